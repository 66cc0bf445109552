"""`recsys-assets services` as a person uses it: real processes, killed and started again."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import BotoCoreError, ClientError

from recsys_assets.resources.aws import AwsClients
from recsys_assets.services.clients import isolated_session
from recsys_assets.services.record import ProcessIdentity, Services, read_services
from recsys_assets.settings import LOCAL_ROLE_ARN
from recsys_assets_tests.main_job.command import Done, Started, only_sentence, recsys_assets
from recsys_assets_tests.sagemaker_local.endpoint import eventually

pytestmark = pytest.mark.xdist_group("services")
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process is not ended with its parent"
)

STORE, ENDPOINT = "/weed ", "recsys_assets.sagemaker_local"  # as command lines tell them
KEY, CONTENT = "kept/object", b"of great value"
MODEL = {
    "ModelName": "kept-model",
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/tests",
    "PrimaryContainer": {
        "Image": "382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:1",
        "ModelDataUrl": "s3://recsys/kept/model.tar.gz",
    },
}


def services(command: str, state: Path, *options: str, **variables: str) -> Done:
    return recsys_assets("services", command, "--state", state, *options, **variables)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder that all tests share; each leaves it as it likes."""
    folder = tmp_path_factory.mktemp("services") / "state"
    yield folder
    services("stop", folder)


@pytest.fixture
def own_state(tmp_path: Path) -> Iterator[Path]:
    """A state folder of the test's own."""
    folder = tmp_path / "state"
    yield folder
    if folder.exists():
        services("stop", folder)


@pytest.fixture
def running(state: Path) -> Services:
    """Services that run in the shared state folder, with an object and a model in them."""
    done = services("start", state)
    assert done.returncode == 0, done.stderr
    found = recorded(state)
    client(found, "s3").put_object(Bucket=found.bucket, Key=KEY, Body=CONTENT)
    sagemaker = client(found, "sagemaker")
    if not sagemaker.list_models()["Models"]:
        sagemaker.create_model(**MODEL)
    return found


def recorded(state: Path) -> Services:
    found = read_services(state)
    assert found is not None
    return found


def client(of: Services, service: str) -> Any:
    url = of.s3_url if service == "s3" else of.sagemaker_url
    session = isolated_session(of.access_key_id, of.secret_access_key, of.region)
    return session.client(service, endpoint_url=url)


def processes(of: Services) -> tuple[ProcessIdentity, ...]:
    """The supervisor, the object store and the endpoint."""
    return (of.supervisor, *of.children)


def all_ended(of: Services) -> bool:
    return not any(process.find() for process in processes(of))


def ports(state: Path) -> dict[str, int]:
    numbers: dict[str, int] = json.loads((state / "services" / "ports.json").read_text())
    return numbers


def sockets(state: Path) -> list[Path]:
    """Return the Unix sockets of the object store, which it puts into /tmp."""
    ports = json.loads((state / "services" / "ports.json").read_text()).values()
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


def answers(of: Services) -> bool:
    try:
        client(of, "s3").head_object(Bucket=of.bucket, Key=KEY)
        client(of, "sagemaker").list_models()
    except (BotoCoreError, ClientError):
        return False
    return True


def assert_nothing_is_lost(before: Services, after: Services) -> None:
    assert (after.s3_url, after.sagemaker_url) == (before.s3_url, before.sagemaker_url)
    stored = client(after, "s3").get_object(Bucket=after.bucket, Key=KEY)["Body"].read()
    assert stored == CONTENT
    names = [model["ModelName"] for model in client(after, "sagemaker").list_models()["Models"]]
    assert names == [MODEL["ModelName"]]


def test_services_that_run_are_not_started_again(state: Path, running: Services) -> None:
    again = services("start", state)
    assert again.returncode == 0
    assert again.stdout.splitlines()[0] == "already running"
    assert recorded(state) == running
    status = services("status", state)
    assert status.returncode == 0
    assert status.stdout.split() == [
        *("running", "object", "store", running.s3_url),
        *("SageMaker", running.sagemaker_url),
    ]


def test_services_that_are_stopped_end_and_keep_data_and_addresses(
    state: Path, running: Services
) -> None:
    assert sockets(state)
    assert services("stop", state).stdout == "stopped\n"
    assert all_ended(running)
    assert sockets(state) == []
    status = services("status", state)
    assert (status.returncode, status.stdout) == (1, "not running\n")
    assert "do not run; start them with" in only_sentence(services("env", state))
    again = services("stop", state)
    assert (again.returncode, again.stdout) == (0, "not running\n")

    started = services("start", state)
    assert started.stdout.splitlines()[0] == "started"
    assert started.stderr == ""
    assert_nothing_is_lost(running, recorded(state))


def test_two_starts_at_once_start_one_set_of_services(state: Path, tmp_path: Path) -> None:
    services("stop", state)
    both = [Started(tmp_path / name, "services", "start", "--state", state) for name in "ab"]
    said = [started.ended().stdout.splitlines() for started in both]
    assert sorted(lines[0] for lines in said) == ["already running", "started"]
    assert said[0][1:] == said[1][1:]


@on_linux
def test_services_end_with_a_killed_supervisor_and_start_again(
    state: Path, running: Services
) -> None:
    os.kill(running.supervisor.pid, signal.SIGKILL)
    eventually(lambda: all_ended(running))
    assert services("status", state).returncode == 1
    assert services("start", state).stdout.splitlines()[0] == "started"
    assert_nothing_is_lost(running, recorded(state))


@pytest.mark.parametrize("service", [STORE, ENDPOINT])
def test_a_killed_service_is_started_again_while_the_other_goes_on(
    state: Path, running: Services, service: str
) -> None:
    (killed,) = (child for child in running.children if service in command_line(child))
    (other,) = (child for child in running.children if child != killed)
    os.kill(killed.pid, signal.SIGKILL)
    eventually(lambda: recorded(state).children != running.children)
    again = recorded(state)
    assert other in again.children
    assert again.alive
    eventually(lambda: answers(again))
    assert_nothing_is_lost(running, again)
    assert services("start", state).stdout.splitlines()[0] == "already running"


def test_steps_wait_for_an_object_store_that_is_started_again(
    state: Path, running: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_STATE", str(state))
    s3 = AwsClients(local=True, patience_seconds=60).client("s3")
    (store,) = (child for child in running.children if STORE in command_line(child))
    os.kill(store.pid, signal.SIGKILL)
    assert s3.get_object(Bucket=running.bucket, Key=KEY)["Body"].read() == CONTENT
    s3.put_object(Bucket=running.bucket, Key="put/while/it/starts", Body=CONTENT)


def test_a_service_that_does_not_stay_up_ends_all(state: Path, running: Services) -> None:
    def killed_until_the_supervisor_ends() -> bool:
        found = read_services(state)
        children = found.children if found else ()
        for process in filter(None, (child.find() for child in children)):
            if STORE in " ".join(process.cmdline()):
                process.kill()
        return found is None

    eventually(killed_until_the_supervisor_ends)
    eventually(lambda: all_ended(running))
    assert services("status", state).returncode == 1
    said = (state / "services" / "supervisor.log").read_text().splitlines()
    assert said[-2] == "the object_store service ended with status -9; it is started again in 4 s"
    assert "the object_store service does not stay up" in said[-1]
    assert services("start", state).stdout.splitlines()[0] == "started"
    assert_nothing_is_lost(running, recorded(state))


def command_line(of: ProcessIdentity) -> str:
    process = of.find()
    assert process is not None
    return " ".join(process.cmdline())


@pytest.mark.parametrize("option", ["--s3-port", "--sagemaker-port"])
def test_a_port_asked_for_that_is_taken_is_refused(own_state: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = only_sentence(services("start", own_state, option, str(port)))
    assert f"port {port}" in sentence
    assert "is taken by another program" in sentence
    assert services("status", own_state).returncode == 1


def test_images_are_kept_for_the_next_start_and_other_options_wait_for_a_stop(
    own_state: Path,
) -> None:
    image = f"mine={sys.executable} -c pass"
    model = {"PrimaryContainer": {"Image": "mine:1"}, "ExecutionRoleArn": LOCAL_ROLE_ARN}
    assert services("start", own_state, "--image", image).returncode == 0
    client(recorded(own_state), "sagemaker").create_model(ModelName="before", **model)
    refused = services("start", own_state, "--image", "other=python")
    assert "`recsys-assets services stop` them" in only_sentence(refused)
    services("stop", own_state)
    assert services("start", own_state).returncode == 0
    client(recorded(own_state), "sagemaker").create_model(ModelName="after", **model)


@pytest.mark.parametrize("image", ["mine", "mine=/nowhere/program"])
def test_an_image_that_is_no_program_is_told(own_state: Path, image: str) -> None:
    sentence = only_sentence(services("start", own_state, "--image", image))
    assert "expected REPOSITORY=PROGRAM, got 'mine'" in sentence or "/nowhere/program" in sentence


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = only_sentence(services("start", tmp_path / "file" / "state"))
    assert f"cannot write to the state folder {tmp_path / 'file' / 'state'}: Not a" in sentence


def test_a_port_of_last_time_that_is_taken_is_told_and_replaced(
    state: Path, running: Services
) -> None:
    services("stop", state)
    before = ports(state)
    with socket.create_server(("127.0.0.1", before["s3.port"])):
        started = services("start", state)
    assert started.returncode == 0, started.stderr
    (line,) = started.stderr.splitlines()
    after = ports(state)
    assert f"port {before['s3.port']}, used last time for s3.port, is taken" in line
    assert f"using {after['s3.port']}" in line
    assert before.pop("s3.port") != after.pop("s3.port")
    assert after == before
    stored = client(recorded(state), "s3").get_object(Bucket=running.bucket, Key=KEY)
    assert stored["Body"].read() == CONTENT


def test_services_end_when_their_state_folder_is_deleted(own_state: Path) -> None:
    assert services("start", own_state).returncode == 0
    found = recorded(own_state)
    while own_state.exists():  # a file may be written while its folder is being emptied
        shutil.rmtree(own_state, ignore_errors=True)
    eventually(lambda: all_ended(found))
    assert not (own_state / "services").exists()


def test_nobody_reads_or_writes_without_the_keys(state: Path, running: Services) -> None:
    filer = f"http://127.0.0.1:{ports(state)['filer.port']}/buckets/{running.bucket}"
    for url in (f"{filer}/{KEY}", f"{running.s3_url}/{running.bucket}/{KEY}"):
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            answer = requests.request(method, url, timeout=10)
            assert answer.status_code in (401, 403, 405), (method, url)
            assert CONTENT not in answer.content
    for url in (f"{filer}/", running.s3_url, f"{running.s3_url}/{running.bucket}"):
        answer = requests.get(url, timeout=10)
        assert answer.status_code in (401, 403), url
        assert b"kept" not in answer.content
    stored = client(running, "s3").get_object(Bucket=running.bucket, Key=KEY)
    assert stored["Body"].read() == CONTENT


def test_no_port_of_the_services_tells_what_is_stored(state: Path, running: Services) -> None:
    asked = {port: requests_to(port, running.bucket) for port in ports(state).values()}
    for port, answers in asked.items():
        for answer in answers:
            assert CONTENT not in answer, port
            assert running.secret_access_key.encode() not in answer, port


def requests_to(port: int, bucket: str) -> list[bytes]:
    """What a port answers to those who ask for the object in the ways that paths allow."""
    answers = []
    for path in (f"/{bucket}/{KEY}", f"/buckets/{bucket}/{KEY}", f"/?path=/buckets/{bucket}/"):
        try:
            answers.append(requests.get(f"http://127.0.0.1:{port}{path}", timeout=5).content)
        except requests.RequestException:
            continue  # not HTTP
    return answers


def test_an_unmodified_client_works_in_a_hostile_shell(state: Path, running: Services) -> None:
    program = """
import boto3
s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
print(s3.get_object(Bucket="recsys", Key="kept/object")["Body"].read().decode())
print([model["ModelName"] for model in sagemaker.list_models()["Models"]])
print(boto3.client("sts").get_caller_identity()["Account"])
print(boto3.client("logs").describe_log_streams.__name__)
"""
    recsys = Path(sys.executable).with_name("recsys-assets")
    script = (
        f"""eval "$('{recsys}' services env --state '{state}')" && '{sys.executable}' -c "$0" """
    )
    nowhere = "http://127.0.0.1:9"
    hostile = {
        "AWS_PROFILE": "production",
        "AWS_DEFAULT_PROFILE": "production",
        "AWS_ACCESS_KEY_ID": "someone-else",
        "AWS_SESSION_TOKEN": "of-someone-else",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": nowhere,
        **{f"{scheme}_PROXY": nowhere for scheme in ("HTTP", "HTTPS", "ALL")},
        **{f"{scheme}_proxy": nowhere for scheme in ("http", "https", "all")},
        "NO_PROXY": "example.com",
        "no_proxy": "example.com",
    }
    done = subprocess.run(
        ["sh", "-c", script, program],
        env={**os.environ, **hostile},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        CONTENT.decode(),
        "['kept-model']",
        "123456789012",
        "describe_log_streams",
    ]


def test_everything_listens_on_loopback_only(running: Services) -> None:
    listening = []
    for identity in processes(running):
        process = identity.find()
        assert process is not None
        for each in (process, *process.children(recursive=True)):
            listening += [c for c in each.net_connections("inet") if c.status == "LISTEN"]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
    served = {connection.laddr.port for connection in listening}
    assert {int(url.rpartition(":")[2]) for url in (running.s3_url, running.sagemaker_url)} < served


def test_secrets_stand_in_two_files_of_their_owner_and_nowhere_else(
    state: Path, running: Services
) -> None:
    secret = running.secret_access_key.encode()
    files = [path for path in state.rglob("*") if path.is_file()]
    holders = [path for path in files if secret in path.read_bytes()]
    assert {path.name for path in holders} == {"services.json", "credentials.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holders} == {0o600}
    assert {"object_store.log", "sagemaker.log", "supervisor.log"} < {path.name for path in files}
    for identity in processes(running):
        assert running.secret_access_key not in command_line(identity)


def test_local_services_are_not_for_aws(own_state: Path) -> None:
    sentence = only_sentence(services("start", own_state, RECSYS_ENV="aws"))
    assert sentence == "local services are for RECSYS_ENV=local, not for aws"
