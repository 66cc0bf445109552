"""Runs that are killed and a network that fails: no job is lost, and none is created twice.

Every run here is a process of its own with the settings of AWS, unmodified; a proxy stands between
it and the services and does the harm.
"""

import contextlib
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_assets.services.record import Services
from recsys_assets_tests.main_job.command import Started, only_sentence, write_config
from recsys_assets_tests.proxy import (
    Answer,
    Call,
    Fault,
    Forward,
    Proxy,
    drop_after,
    drop_before,
    refuse,
)
from recsys_assets_tests.sagemaker_local.endpoint import eventually

pytestmark = pytest.mark.xdist_group("faults")

CREATES = ("CreateTrainingJob", "CreateModel", "CreateTransformJob")
RETRY = (sys.executable, "-m", "recsys_assets_tests.main_job.retry")


class Deployment:
    """A deployment "on AWS": a state folder, settings and credentials, all calls by the proxy."""

    def __init__(self, folder: Path, services: Services, proxy: Proxy, prefix: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.run: Started | None = None
        self._services = services
        self._proxy = proxy
        self._credentials_read = folder / "credentials_read"
        config = folder / "sagemaker.yaml"
        config.write_text("poll_seconds: 0.2\ntags: {team: tests}\n")
        self.variables = {
            **proxy.environment(),
            "AWS_CONFIG_FILE": str(self._aws_config()),
            "AWS_REGION": services.region,
            "RECSYS_ENV": "aws",
            "RECSYS_BUCKET": services.bucket,
            "RECSYS_PREFIX": prefix,
            "RECSYS_ROLE_ARN": "arn:aws:iam::123456789012:role/recsys-sagemaker",
            "RECSYS_SAGEMAKER_CONFIG": str(config),
            "RECSYS_PATIENCE_SECONDS": "60",
        }
        self.job_config = write_config(
            folder / "job.yaml",
            raw_ratings={"generated_rows": 4_000},
            filtered_ratings={"min_ratings_per_customer": 2, "min_ratings_per_video": 2},
            model_training={"hyperparameters": {"epochs": 3, "num_factors": 4}},
        )

    def _aws_config(self) -> Path:
        """Write a configuration whose credentials come from a program that counts its calls."""
        answer = self.folder / "credentials.json"
        answer.write_text(
            f'{{"Version": 1, "AccessKeyId": "{self._services.access_key_id}", '
            f'"SecretAccessKey": "{self._services.secret_access_key}"}}'
        )
        script = f"echo >> {self._credentials_read}; cat {answer}"
        path = self.folder / "aws_config"
        path.write_text(f"[default]\ncredential_process = sh -c {shlex.quote(script)}\n")
        return path

    def start(self, *, retry: bool = False) -> Started:
        folder = self.folder / f"run{len([*self.folder.iterdir()])}"
        if retry:
            self.run = Started(folder, self.state, program=RETRY, **self.variables)
        else:
            options = ("--state", self.state, "--config", self.job_config)
            self.run = Started(folder, "run", *options, **self.variables)
        return self.run

    def killing(self, number: signal.Signals, *, reached: bool) -> Fault:
        """Return a fault that kills the run at a call, which has reached the service or not."""

        def fault(call: Call, forward: Forward) -> None:
            if reached:
                forward()
            assert self.run is not None
            self.run.process.send_signal(number)

        return fault

    def expiring(self) -> Fault:
        """Return a fault that refuses calls until the credentials have been read again."""
        read: list[int] = []

        def fault(call: Call, forward: Forward) -> Answer | None:
            read.append(len(self._credentials_read.read_bytes()))
            if read[-1] > read[0]:
                return forward()
            return refuse(400, "ExpiredTokenException", "The security token has expired")(
                call, forward
            )

        return fault


@pytest.fixture
def deployment(
    tmp_path: Path, services: Services, proxy: Proxy, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    deployed = Deployment(tmp_path, services, proxy, request.node.name)
    yield deployed
    if deployed.run is not None:
        deployed.run.process.kill()


def created(proxy: Proxy, action: str) -> list[Call]:
    """The calls that have really created something."""
    return [call for call in proxy.seen(action) if call.forwarded == 200]


def names(calls: list[Call], member: str = "TrainingJobName") -> set[str]:
    return {call.content[member] for call in calls}


def succeeded(run: Started) -> None:
    run.process.wait(timeout=300)
    done = run.ended()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_killed_before_after_and_while_it_waits_finds_its_job_each_time(
    deployment: Deployment, proxy: Proxy
) -> None:
    kill = signal.SIGKILL
    proxy.inject(deployment.killing(kill, reached=False), "CreateTrainingJob")
    assert deployment.start().ended().returncode == -kill
    assert created(proxy, "CreateTrainingJob") == []

    proxy.inject(deployment.killing(kill, reached=True), "CreateTrainingJob")
    assert deployment.start(retry=True).ended().returncode == -kill
    assert len(created(proxy, "CreateTrainingJob")) == 1

    proxy.inject(deployment.killing(kill, reached=True), "GetLogEvents")
    assert deployment.start(retry=True).ended().returncode == -kill

    succeeded(deployment.start(retry=True))
    for action in CREATES:
        assert len(created(proxy, action)) == 1, action
    assert len(names(proxy.seen("CreateTrainingJob") + proxy.seen("DescribeTrainingJob"))) == 1


def test_a_run_survives_throttling_errors_lost_answers_expired_credentials_and_a_cut_network(
    deployment: Deployment, proxy: Proxy
) -> None:
    for fault, action in (
        (refuse(400, "ThrottlingException", "Rate exceeded"), "DescribeTrainingJob"),
        (refuse(400, "ThrottlingException", "Rate exceeded"), "CreateTrainingJob"),
        (drop_after, "CreateTrainingJob"),
        (drop_after, "CreateModel"),
        (refuse(503, "ServiceUnavailable"), "CreateTransformJob"),
        (drop_after, "CreateTransformJob"),
        (refuse(500, "InternalFailure"), "DescribeLogStreams"),
        (drop_before, "GetLogEvents"),
        (refuse(503, "SlowDown"), "PutObject"),
        (drop_before, "UploadPart"),
        (drop_before, "ListObjectsV2"),
    ):
        proxy.inject(fault, action)
    # After the job was created: a look at it, then what befalls the next ones.
    proxy.inject(after_create(proxy, deployment.expiring()), "DescribeTrainingJob", times=20)
    proxy.inject(cutting(proxy, calls=3), "DescribeTransformJob")
    succeeded(deployment.start())

    for action in CREATES:
        assert len(created(proxy, action)) == 1, action
    # The answer that was lost was looked for, not asked for again.
    assert [call.forwarded for call in proxy.seen("CreateTrainingJob")] == [None, 200]
    assert [call.forwarded for call in proxy.seen("CreateModel")] == [200]
    expired = [call for call in proxy.seen("DescribeTrainingJob") if call.answered == 400]
    assert len(expired) >= 2
    assert [call.answered for call in proxy.calls].count(None) >= 7


def after_create(proxy: Proxy, fault: Fault) -> Fault:
    """Return a fault that begins once a training job has been created."""

    def begun(call: Call, forward: Forward) -> Answer | None:
        return fault(call, forward) if created(proxy, "CreateTrainingJob") else forward()

    return begun


def cutting(proxy: Proxy, calls: int) -> Fault:
    """Return a fault that cuts the network until so many calls have been hung up on."""

    def fault(call: Call, forward: Forward) -> None:
        before = len(proxy.calls)
        proxy.cut()

        def mend() -> None:
            eventually(lambda: len(proxy.calls) >= before + calls)
            proxy.mend()

        threading.Thread(target=mend).start()

    return fault


@pytest.mark.slow
def test_a_network_that_is_cut_for_a_minute_costs_nothing_but_the_minute(
    deployment: Deployment, proxy: Proxy
) -> None:
    deployment.variables["RECSYS_PATIENCE_SECONDS"] = "300"
    minute = threading.Event()

    def cut(call: Call, forward: Forward) -> None:
        proxy.cut()

        def mend() -> None:
            proxy.mend()
            minute.set()

        threading.Timer(60, mend).start()

    proxy.inject(after_create(proxy, cut), "GetLogEvents")
    succeeded(deployment.start())
    assert minute.is_set()
    for action in CREATES:
        assert len(created(proxy, action)) == 1, action


def test_a_run_that_is_interrupted_while_its_job_is_being_created_stops_it(
    deployment: Deployment, proxy: Proxy, services: Services
) -> None:
    proxy.inject(deployment.killing(signal.SIGINT, reached=True), "CreateTrainingJob")
    assert only_sentence(deployment.start().ended()) == "interrupted"
    (job,) = names(created(proxy, "CreateTrainingJob"))
    (stopped,) = proxy.seen("StopTrainingJob")
    assert stopped.content == {"TrainingJobName": job}


def test_a_job_that_comes_into_being_only_after_the_interrupt_is_stopped_too(
    deployment: Deployment, proxy: Proxy
) -> None:
    """SageMaker takes its time to create a job, and knows of none to stop until then."""

    def slowly(call: Call, forward: Forward) -> Answer:
        assert deployment.run is not None
        deployment.run.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            deployment.run.process.wait(3)  # a run that does not wait for the answer has ended
        return forward()

    proxy.inject(slowly, "CreateTrainingJob")
    assert only_sentence(deployment.start().ended()) == "interrupted"
    eventually(lambda: bool(created(proxy, "CreateTrainingJob")))
    (job,) = names(created(proxy, "CreateTrainingJob"))
    (stopped,) = proxy.seen("StopTrainingJob")
    assert stopped.content == {"TrainingJobName": job}
    assert stopped.forwarded == 200
