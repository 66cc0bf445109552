"""The endpoint's own life: its end, its restart and what becomes of jobs meanwhile."""

import contextlib
import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from recsys_assets.sagemaker_local import __main__ as command_line
from recsys_assets.sagemaker_local.jobs.search.ranges import parse_ranges
from recsys_assets.sagemaker_local.jobs.search.strategies import Search
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, eventually, free_port

RANGES = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}


def started(endpoint: Endpoint, name: str, times: int = 1) -> bool:
    return endpoint.log_lines("Training", name).count("started") == times


def journal(path: Path) -> list[tuple[str, int]]:
    """Return what programs noted in a journal: events and process ids."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(event, int(pid)) for event, pid in (line.split() for line in lines)]


def events(path: Path) -> list[str]:
    return [event for event, _ in journal(path)]


def test_records_logs_and_artefacts_survive_a_kill(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    own_endpoint.train("survivor", {"print": "a|b", "x": 0.5}, Tags=[{"Key": "k", "Value": "v"}])
    before = own_endpoint.ended_training_job("survivor")
    log = own_endpoint.log_lines("Training", "survivor")
    own_endpoint.signal(signal.SIGKILL)
    own_endpoint.start()
    after = own_endpoint.training_job("survivor")
    for description in (before, after):
        del description["ResponseMetadata"]
    assert after == before
    assert own_endpoint.log_lines("Training", "survivor") == log
    arn = after["TrainingJobArn"]
    assert own_endpoint.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_jobs_of_an_ended_endpoint_run_again_and_never_twice_at_once(
    own_endpoint: Endpoint, tmp_path: Path, number: signal.Signals
) -> None:
    own_endpoint.start()
    names = ["running-1", "running-2", "waiting"]  # two at a time
    for name in names:
        slow_run = 0 if name == "waiting" else 1
        own_endpoint.train(
            name, {"slow_run": slow_run, "ignore_sigterm": 1, "journal": tmp_path / name}
        )
    eventually(lambda: started(own_endpoint, "running-1") and started(own_endpoint, "running-2"))
    assert not started(own_endpoint, "waiting")
    own_endpoint.signal(number)
    own_endpoint.start()

    for name in names:
        job = own_endpoint.ended_training_job(name)
        assert job["TrainingJobStatus"] == "Completed"
        steps = [step["Status"] for step in job["SecondaryStatusTransitions"]]
        assert ("Interrupted" in steps) == (name != "waiting")
        messages = [step["StatusMessage"] for step in job["SecondaryStatusTransitions"]]
        assert all(message != after for message, after in itertools.pairwise(messages))
        once = ["begin", "end"]
        assert events(tmp_path / name) == (once if name == "waiting" else ["begin", *once])
        assert own_endpoint.keys(f"models/{name}/")
    for _, pid in journal(tmp_path / "running-1"):
        assert not psutil.pid_exists(pid)


def test_a_search_goes_on_where_it_was_killed(own_endpoint: Endpoint, tmp_path: Path) -> None:
    own_endpoint.start()
    static = {"journal": tmp_path / "journal", "slow_run": 2}
    own_endpoint.tune("resumed", RANGES, jobs=3, parallel=1, static=static, RandomSeed=5)
    eventually(lambda: events(tmp_path / "journal").count("begin") == 2)
    own_endpoint.signal(signal.SIGKILL)
    own_endpoint.start()
    job = own_endpoint.ended_tuning_job("resumed")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    tuned = [child["TunedHyperParameters"] for child in own_endpoint.children("resumed")]
    search = Search("Random", parse_ranges(RANGES), maximize=False, seed=5)
    assert tuned == [search.suggest(number, []) for number in (1, 2, 3)]
    once = ["begin", "end"]
    assert events(tmp_path / "journal") == [*once, "begin", *once, *once]


def test_a_transform_job_goes_on_where_it_was_killed(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    own_endpoint.create_model("slow", MODE="slow")
    own_endpoint.put("resume/in", b"1\n")
    own_endpoint.transform("resume", "slow", "resume/in")

    def payload_was_sent(times: int) -> bool:
        return own_endpoint.log_lines("Transform", "resume").count(sent) == times

    sent = "payload of 2 bytes as None"
    eventually(lambda: payload_was_sent(1))
    own_endpoint.signal(signal.SIGKILL)
    own_endpoint.start()
    eventually(lambda: payload_was_sent(2))
    assert own_endpoint.transform_job("resume")["TransformJobStatus"] == "InProgress"


def test_what_a_killed_run_leaves_behind_is_removed_at_the_next_start(
    own_endpoint: Endpoint,
) -> None:
    for kind in ("training-job", "transform-job", "processing-job"):
        (own_endpoint.state / "jobs" / kind / "dead" / "ml").mkdir(parents=True)
    own_endpoint.start()
    assert not list(own_endpoint.state.glob("jobs/*/*"))


def test_a_job_that_was_being_stopped_is_stopped_after_a_kill(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    own_endpoint.train("stubborn", {"seconds": 600, "ignore_sigterm": 1})
    eventually(lambda: started(own_endpoint, "stubborn"))
    own_endpoint.sagemaker.stop_training_job(TrainingJobName="stubborn")
    own_endpoint.signal(signal.SIGKILL)
    own_endpoint.start()
    assert own_endpoint.ended_training_job("stubborn")["TrainingJobStatus"] == "Stopped"
    assert started(own_endpoint, "stubborn", times=1)


def test_a_waiting_job_is_stopped_without_being_started(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    for name in ("first", "second", "third"):
        own_endpoint.train(name, {"seconds": 600})
    eventually(lambda: started(own_endpoint, "first") and started(own_endpoint, "second"))
    assert own_endpoint.training_job("third")["SecondaryStatus"] == "Starting"
    own_endpoint.sagemaker.stop_training_job(TrainingJobName="third")
    job = own_endpoint.ended_training_job("third")
    assert job["TrainingJobStatus"] == "Stopped"
    assert "TrainingStartTime" not in job
    assert not own_endpoint.log_lines("Training", "third")


@pytest.mark.parametrize("session", [{}, {"own_session": 1}], ids=["same", "own"])
def test_what_a_program_starts_ends_with_it(
    own_endpoint: Endpoint, tmp_path: Path, session: dict[str, int]
) -> None:
    own_endpoint.start()
    own_endpoint.train("parent", {"descendant": tmp_path / "ended", **session})
    assert own_endpoint.ended_training_job("parent")["TrainingJobStatus"] == "Completed"
    own_endpoint.train("killed", {"descendant": tmp_path / "killed", "seconds": 600, **session})
    eventually(lambda: started(own_endpoint, "killed"))
    own_endpoint.signal(signal.SIGKILL)
    for name in ("ended", "killed"):
        pid = int((tmp_path / name).read_text())
        eventually(lambda pid=pid: not psutil.pid_exists(pid))


def test_the_endpoint_and_its_programs_end_when_the_state_folder_is_deleted(
    own_endpoint: Endpoint, tmp_path: Path
) -> None:
    own_endpoint.start()
    own_endpoint.train("homeless", {"seconds": 600, "journal": tmp_path / "journal"})
    eventually(lambda: started(own_endpoint, "homeless"))
    shutil.rmtree(own_endpoint.state)
    assert own_endpoint.process is not None
    own_endpoint.process.wait(timeout=10)
    ((_, pid),) = journal(tmp_path / "journal")
    eventually(lambda: not psutil.pid_exists(pid))


def test_the_endpoint_ends_with_its_parent_if_asked_to(tmp_path: Path) -> None:
    port = free_port()
    arguments = ["-m", "recsys_assets.sagemaker_local", f"--port={port}", "--exit-with-parent"]
    command = [sys.executable, *arguments, f"--state={tmp_path / 'state'}"]
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess; p = subprocess.Popen({command!r}); print(p.pid, flush=True);"
            " p.wait()",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=5).is_success
        return False

    eventually(answers)
    parent.kill()
    parent.wait()
    eventually(lambda: not psutil.pid_exists(pid))


def test_a_state_folder_has_one_endpoint_at_a_time(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    with pytest.raises(RuntimeError, match=f"another endpoint is using {own_endpoint.state}"):
        command_line.lock_folder(own_endpoint.state, patience=0)


def test_an_endpoint_waits_for_the_programs_of_the_last_one(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    own_endpoint.train("held-up", {"seconds": 600})
    eventually(lambda: started(own_endpoint, "held-up"))
    assert own_endpoint.process is not None
    (supervisor,) = psutil.Process(own_endpoint.process.pid).children()
    (program,) = supervisor.children()
    supervisor.suspend()  # so that it cannot end its program yet
    try:
        own_endpoint.signal(signal.SIGKILL)
        assert program.is_running()
        with pytest.raises(RuntimeError, match="another endpoint"):
            command_line.lock_folder(own_endpoint.state, patience=0)
    finally:
        supervisor.resume()
    own_endpoint.start()
    eventually(lambda: started(own_endpoint, "held-up", times=2))
    assert not program.is_running()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host=0.0.0.0"], "--host 0.0.0.0 can be reached by others and needs --token-file"),
        (["--host=localhost"], "Expected 4 octets"),
        (["--image=mine"], "expected REPOSITORY=PROGRAM, got 'mine'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        command_line.main(["--port=0", f"--state={tmp_path / 'state'}", *arguments])
    assert not (tmp_path / "state").exists()


def test_records_that_cannot_be_read_are_told_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "endpoint.sqlite"
    file.write_bytes(b"no database" * 100)
    with pytest.raises(SystemExit, match=f"{file} cannot be read: file is not a database"):
        command_line.main(["--port=0", f"--state={tmp_path}"])


def test_a_port_that_is_taken_starts_nothing(own_endpoint: Endpoint, tmp_path: Path) -> None:
    own_endpoint.start()
    port = own_endpoint.url.rpartition(":")[2]
    with pytest.raises(SystemExit, match="in use"):
        command_line.main([f"--port={port}", f"--state={tmp_path / 'other'}"])
