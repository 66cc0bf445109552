"""`recsys-assets doctor` finds what is missing, says it in words and changes nothing."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from recsys_assets.cli import cli
from recsys_assets.cli.ui import mlflow_ui
from recsys_assets.definitions import build_resources
from recsys_assets.preflight import Finding, _trusts_sagemaker, examine
from recsys_assets.services.record import Services
from recsys_assets.settings import Settings
from recsys_assets_tests.main_job.command import exported
from recsys_assets_tests.proxy import Answer, Call, Forward, Proxy, refuse

TRAINING_QUOTA = "ml.m5.xlarge for training job usage"
QUOTAS = {
    TRAINING_QUOTA: 4.0,
    "ml.m5.xlarge for transform job usage": 4.0,
    "ml.m5.large for endpoint usage": 4.0,
}


@pytest.fixture
def proxy(services: Services, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """Stand between the checks, with AWS's settings, and the local services."""
    between = {**proxy.environment(), "AWS_ENDPOINT_URL_SERVICE_QUOTAS": proxy.url}
    for name, value in {**exported(services), **between, "RECSYS_ENV": "aws"}.items():
        monkeypatch.setenv(name, value)
    return proxy


def quotas(values: dict[str, float]) -> Answer:
    """Answer as Service Quotas does, which no local service stands in for."""
    found = [{"QuotaName": name, "Value": value} for name, value in values.items()]
    body = json.dumps({"Quotas": found}).encode()
    return Answer(200, (("Content-Type", "application/x-amz-json-1.1"),), body)


def findings(proxy: Proxy, allowed: dict[str, float] = QUOTAS) -> dict[str, list[Finding]]:
    def answer(call: Call, forward: Forward) -> Answer:
        return quotas(allowed)

    proxy.inject(answer, "ListServiceQuotas")
    settings = replace(Settings.from_environment(), patience_seconds=0.0)
    with contextlib.ExitStack() as stack:
        configured = build_resources(settings)["sagemaker"]
        sagemaker = stack.enter_context(configured.process_config_and_initialize_cm())
        found: dict[str, list[Finding]] = {}
        for finding in examine(settings, sagemaker):
            found.setdefault(finding.subject, []).append(finding)
    return found


def missing(found: dict[str, list[Finding]]) -> dict[str, str]:
    return {
        finding.subject: finding.text
        for group in found.values()
        for finding in group
        if finding.verdict == "missing"
    }


def test_nothing_is_missing_where_all_is_there(proxy: Proxy) -> None:
    found = findings(proxy)
    assert missing(found) == {}
    (elsewhere,) = found.pop("endpoints")
    assert elsewhere.verdict == "unknown"
    assert f"this is not AWS: AWS_ENDPOINT_URL_CLOUDWATCH_LOGS={proxy.url}" in elsewhere.text
    assert {"credentials", "bucket", "role", "image", "quotas", "mlflow"} == found.keys()
    assert all(finding.verdict == "ok" for group in found.values() for finding in group)


def test_looking_leaves_nothing_behind(proxy: Proxy) -> None:
    findings(proxy)
    changing = {"PutObject", "CompleteMultipartUpload", "CreateBucket"}
    made = {call.action for call in proxy.calls} & changing
    assert made == set()
    assert not {call.action for call in proxy.calls if call.action.startswith("Create")} - {
        "CreateMultipartUpload"
    }
    assert len(proxy.seen("CreateMultipartUpload")) == len(proxy.seen("AbortMultipartUpload"))


def test_a_bucket_that_is_not_there_is_missing_and_the_command_that_makes_it_is_told(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_BUCKET", "nobody-made-this")
    found = missing(findings(proxy))
    assert found.keys() == {"bucket"}
    assert "aws s3 mb s3://nobody-made-this --region us-east-1" in found["bucket"]


def test_a_bucket_that_is_not_named_is_missing(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECSYS_BUCKET")
    assert missing(findings(proxy)) == {"bucket": "no bucket is named: set RECSYS_BUCKET"}


def test_a_bucket_that_may_not_be_written_to_is_missing(proxy: Proxy) -> None:
    proxy.inject(refuse(403, "AccessDenied", "Access Denied"), "CreateMultipartUpload")
    found = missing(findings(proxy))
    assert found.keys() == {"bucket"}
    assert "`recsys-assets policy platform`" in found["bucket"]


def test_a_bucket_in_another_region_is_missing(proxy: Proxy) -> None:
    def from_elsewhere(call: Call, forward: Forward) -> Answer:
        answer = forward()
        headers = (*answer.headers, ("x-amz-bucket-region", "eu-north-1"))
        return Answer(answer.status, headers, answer.body)

    proxy.inject(from_elsewhere, "ListObjectsV2")
    found = missing(findings(proxy))
    assert "set RECSYS_REGION=eu-north-1" in found["bucket"]


def test_a_role_that_is_not_there_is_missing(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_ROLE_ARN", "arn:aws:iam::123456789012:role/unheard-of")
    found = missing(findings(proxy))
    assert found.keys() == {"role"}
    assert "unheard-of" in found["role"]
    assert "`recsys-assets policy sagemaker_role`" in found["role"]


@pytest.mark.parametrize("role", ["", "recsys-sagemaker"])
def test_a_role_that_is_no_arn_is_missing(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    monkeypatch.setenv("RECSYS_ROLE_ARN", role)
    found = missing(findings(proxy))
    assert "expected RECSYS_ROLE_ARN=arn:aws:iam::" in found["role"]


def test_a_role_that_sagemaker_may_not_take_is_missing(proxy: Proxy) -> None:
    def for_lambda(call: Call, forward: Forward) -> Answer:
        answer = forward()
        body = answer.body.replace(b"sagemaker.amazonaws", b"lambda.amazonaws")
        return Answer(answer.status, answer.headers, body)

    proxy.inject(for_lambda, "GetRole")
    assert "may not be taken by sagemaker.amazonaws.com" in missing(findings(proxy))["role"]


@pytest.mark.parametrize(
    ("statement", "trusted"),
    [
        ({"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}, False),
        (
            {"Effect": "Allow", "Principal": {"Service": ["sagemaker.amazonaws.com"]}},
            True,
        ),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_trust_policy_is_read_in_every_form_that_iam_takes(
    statement: dict[str, object], trusted: bool, listed: bool
) -> None:
    document = {"Statement": [statement] if listed else statement}
    assert _trusts_sagemaker(document) is trusted


def test_what_a_role_may_not_do_is_named(proxy: Proxy) -> None:
    def denied(call: Call, forward: Forward) -> Answer:
        answer = forward()
        body = answer.body.replace(b">allowed<", b">implicitDeny<", 1)
        return Answer(answer.status, answer.headers, body)

    proxy.inject(denied, "SimulatePrincipalPolicy")
    text = missing(findings(proxy))["role"]
    assert "may not s3:AbortMultipartUpload;" in text


def test_a_role_that_may_not_be_looked_at_is_unknown_and_holds_nobody_up(proxy: Proxy) -> None:
    proxy.inject(refuse(403, "AccessDenied", "not you"), "GetRole")
    found = findings(proxy)
    assert [finding.verdict for finding in found["role"]] == ["unknown"]
    assert missing(found) == {}


def test_a_web_page_in_the_place_of_an_answer_is_no_crash(proxy: Proxy) -> None:
    page = Answer(502, (("Content-Type", "text/html"),), b"<!doctype html>\n<h1>Bad Gateway")
    proxy.inject(lambda call, forward: page, "SimulatePrincipalPolicy")
    (finding,) = findings(proxy)["role"]
    assert finding.verdict == "unknown"
    assert "could not be found out: Unable to parse response" in finding.text
    assert "\n" not in finding.text


def test_a_quota_that_is_too_small_is_missing(proxy: Proxy) -> None:
    found = missing(findings(proxy, {**QUOTAS, TRAINING_QUOTA: 0.0}))
    assert found.keys() == {"quotas"}
    assert f"{TRAINING_QUOTA}: 1 needed, 0 allowed" in found["quotas"]


def test_spot_instances_have_a_quota_of_their_own(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "sagemaker.yaml"
    config.write_text("training: {max_runtime_seconds: 3600, spot: {}}")
    monkeypatch.setenv("RECSYS_SAGEMAKER_CONFIG", str(config))
    found = findings(proxy)
    texts = [finding.text for finding in found["quotas"] if finding.verdict == "unknown"]
    (text,) = texts
    assert text.startswith("ml.m5.xlarge for spot training job usage: 1 needed")
    assert "Service Quotas" in text


def test_credentials_that_have_expired_are_missing_and_mlflow_is_looked_at_all_the_same(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.inject(refuse(403, "ExpiredToken", "The token has expired"), service="sts", times=99)
    found = findings(proxy)
    assert found.keys() == {"endpoints", "credentials", "mlflow"}
    assert missing(found).keys() == {"credentials"}


def test_an_mlflow_server_that_does_not_answer_is_missing(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = missing(findings(proxy))
    assert found.keys() == {"mlflow"}
    assert "RECSYS_MLFLOW_TRACKING_URI" in found["mlflow"]


def test_the_password_of_mlflow_is_not_printed(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_MLFLOW_TRACKING_URI", "http://user:s3cret@127.0.0.1:9")
    told = str(findings(proxy))
    assert "http://user:***@127.0.0.1:9" in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:s3cret@host", "https://user:***@host"),
        ("postgresql://user:s3cret@host/db", "--backend-store-uri postgresql://user:***@host/db"),
        ("sqlite:////state/mlflow.db", "--backend-store-uri sqlite:////state/mlflow.db"),
    ],
)
def test_where_mlflow_is_to_be_looked_at_is_told_without_its_password(uri: str, shown: str) -> None:
    told = mlflow_ui(Settings.from_environment({"RECSYS_MLFLOW_TRACKING_URI": uri}))
    assert shown in told
    assert "s3cret" not in told
    assert told.startswith("https://") is uri.startswith("https://")


def test_the_command_prints_each_finding_and_its_exit_status_says_whether_all_is_there(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.inject(lambda call, forward: quotas(QUOTAS), "ListServiceQuotas", times=2)
    answer = CliRunner().invoke(cli, ["doctor"])
    assert answer.exit_code == 0, answer.output
    assert answer.output.splitlines()[-1] == "ready"
    monkeypatch.delenv("RECSYS_BUCKET")
    answer = CliRunner().invoke(cli, ["doctor"])
    assert answer.exit_code == 1
    assert "missing  bucket       no bucket is named: set RECSYS_BUCKET" in answer.output
    assert answer.output.splitlines()[-1] == "1 missing"
