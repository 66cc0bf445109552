"""Patience: which errors pass by themselves, how long they are waited for, and by which calls."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from dagster import DagsterInstance, asset, materialize

from recsys_assets.resources import patience
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.patience import Tries, passes_by_itself
from recsys_assets.services.record import Services
from recsys_assets_tests.proxy import Answer, Call, Forward, Proxy, drop_before, refuse

pytestmark = pytest.mark.xdist_group("in_process")


def answer(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Describe"
    )


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (answer("ThrottlingException"), True),
        (answer("SlowDown", 503), True),
        (answer("InternalFailure", 500), True),
        (answer("ServiceUnavailable", 503), True),
        (answer("ExpiredTokenException"), True),
        (answer("RequestTimeout"), True),
        (EndpointConnectionError(endpoint_url="u"), True),
        (ConnectionClosedError(endpoint_url="u"), True),
        (ReadTimeoutError(endpoint_url="u"), True),
        (answer("ValidationException"), False),
        (answer("AccessDeniedException"), False),
        (answer("InvalidClientTokenId", 403), False),
        (answer("ResourceInUse"), False),
        (NoCredentialsError(), False),
        (ParamValidationError(report="r"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: value.args[0] if isinstance(value, BaseException) and value.args else None,
)
def test_time_heals_throttling_timeouts_and_failing_servers_and_not_the_callers_mistakes(
    error: BaseException, passes: bool
) -> None:
    assert passes_by_itself(error) is passes


def test_pauses_grow_up_to_a_limit_until_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    tries = Tries(120)
    pauses = []
    while (pause := tries.pause_after(answer("Throttling"))) is not None:
        pauses.append(pause)
        now[0] += pause
    bounds = [0.5, 1, 2, 4, 8, 16, *[20] * len(pauses)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, bounds, strict=False))
    assert 120 <= sum(pauses) <= 140
    assert Tries(120).pause_after(answer("ValidationException")) is None
    assert Tries(0).pause_after(answer("Throttling")) is None


@pytest.fixture
def credentials(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Return what writes the shared credentials file, with a key id."""
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))

    def write(access_key_id: str) -> None:
        path.write_text(
            f"[default]\naws_access_key_id = {access_key_id}\n"
            f"aws_secret_access_key = {services.secret_access_key}\n"
        )

    write(services.access_key_id)
    return write


@pytest.fixture
def client(
    proxy: Proxy, services: Services, credentials: object, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return what makes clients as a deployment on AWS makes them; their pauses are short."""
    monkeypatch.setattr(patience, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(patience, "_LONGEST_PAUSE_SECONDS", 0.05)

    def make(service: str, patience_seconds: float = 30) -> Any:
        clients = AwsClients(
            local=False,
            endpoint_url=proxy.url,
            region_name=services.region,
            patience_seconds=patience_seconds,
        )
        return clients.client(service)

    return make


@pytest.mark.parametrize(
    "fault",
    [refuse(400, "ThrottlingException"), refuse(500, "InternalFailure"), drop_before],
    ids=["throttled", "5xx", "cut"],
)
def test_calls_are_made_again_until_they_succeed(
    proxy: Proxy, client: Callable[..., Any], fault: Any
) -> None:
    proxy.inject(fault, "ListTrainingJobs", times=12)
    client("sagemaker").list_training_jobs()
    assert [call.answered for call in proxy.calls].count(200) == 1
    assert len(proxy.calls) == 13


def test_uploads_are_patient_too(proxy: Proxy, client: Callable[..., Any]) -> None:
    proxy.inject(drop_before, "PutObject", times=8)
    client("s3").put_object(Bucket="recsys", Key="patience", Body=b"x" * 100_000)
    assert [call.answered for call in proxy.calls] == [None] * 8 + [200]


def test_patience_ends(proxy: Proxy, client: Callable[..., Any]) -> None:
    proxy.cut()
    with pytest.raises(ConnectionClosedError):
        client("sagemaker", patience_seconds=0.2).list_training_jobs()
    assert len(proxy.calls) > 2


def test_a_refusal_is_final(proxy: Proxy, client: Callable[..., Any]) -> None:
    with pytest.raises(ClientError, match="not found"):
        client("sagemaker").describe_training_job(TrainingJobName="absent")
    assert len(proxy.calls) == 1


@pytest.mark.parametrize("fault", [drop_before, refuse(500, "InternalFailure")])
def test_what_creates_something_is_never_sent_twice_by_itself(
    proxy: Proxy, client: Callable[..., Any], fault: Any
) -> None:
    proxy.inject(fault, "CreateModel")
    with pytest.raises((ConnectionClosedError, ClientError)):
        client("sagemaker").create_model(ModelName="m")
    assert len(proxy.calls) == 1


def test_expired_credentials_are_read_again_from_where_they_came_from(
    proxy: Proxy,
    services: Services,
    client: Callable[..., Any],
    credentials: Callable[[str], None],
) -> None:
    credentials("the-old-key")
    sagemaker = client("sagemaker")

    def expire(call: Call, forward: Forward) -> Answer | None:
        if len(proxy.calls) == 3:  # somebody logs in anew
            credentials(services.access_key_id)
        return refuse(400, "ExpiredTokenException")(call, forward)

    proxy.inject(expire, times=3)
    sagemaker.list_training_jobs()
    keys = [call.access_key_id for call in proxy.calls]
    assert keys == ["the-old-key"] * 3 + [services.access_key_id]


def test_credentials_that_cannot_be_had_for_a_while_are_waited_for(
    proxy: Proxy,
    services: Services,
    client: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A login that has ended shows before anything is sent: there is nothing to sign with."""
    soon = datetime.now(UTC) + timedelta(minutes=5)  # botocore asks for new ones at once
    answer = {
        "Version": 1,
        "AccessKeyId": services.access_key_id,
        "SecretAccessKey": services.secret_access_key,
        "Expiration": soon.isoformat(),
    }
    (tmp_path / "answer").write_text(json.dumps(answer))
    asked = tmp_path / "asked"
    program = tmp_path / "program"
    program.write_text(f"echo >> {asked}; [ $(wc -l < {asked}) -gt 3 ] && cat {tmp_path}/answer")
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = sh {program}\n")
    asked.write_text("\n" * 5)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    sagemaker = client("sagemaker")
    asked.write_text("")  # from here on it fails three times
    sagemaker.list_training_jobs()
    assert len(asked.read_text()) > 3
    assert [call.answered for call in proxy.calls] == [200]


def test_what_is_waited_for_stands_in_the_log_of_the_run(
    proxy: Proxy, client: Callable[..., Any]
) -> None:
    proxy.inject(refuse(400, "ThrottlingException", "Rate exceeded"), "ListTrainingJobs")

    @asset
    def model() -> None:
        client("sagemaker").list_training_jobs()

    with DagsterInstance.ephemeral() as instance:
        run = materialize([model], instance=instance).run_id
        (told,) = [
            entry.user_message for entry in instance.all_logs(run) if entry.level == logging.WARNING
        ]
    assert "sagemaker ListTrainingJobs: An error occurred (ThrottlingException)" in told
    assert "for at most 30 s" in told
