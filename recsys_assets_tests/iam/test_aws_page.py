"""The commands of docs/aws.md, typed into a shell, against moto's IAM, S3 and STS."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest

from recsys_assets.iam import policy
from recsys_assets.settings import Settings
from recsys_assets_tests.conftest import PROJECT
from recsys_assets_tests.contract.environments import AWS_CLI, MOTO, NoInterpreterError
from recsys_assets_tests.sagemaker_local.endpoint import eventually, free_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("contract")]

PAGE = (PROJECT / "docs" / "aws.md").read_text()


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[str]:
    """Return the URL of an account of moto's, without anything in it."""
    try:
        python = MOTO.python
    except NoInterpreterError as error:
        pytest.skip(str(error))
    port = free_port()
    with (tmp_path / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [python.with_name("moto_server"), f"--port={port}"], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/moto-api/data.json").is_success
        except httpx.TransportError:
            return False

    try:
        eventually(answers)
        yield url
    finally:
        server.kill()
        server.wait()


def test_the_pages_commands_set_up_bucket_role_and_policies(aws: str, tmp_path: Path) -> None:
    programs = [str(Path(sys.executable).parent), str(AWS_CLI.python.parent)]
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")},
        **keys,
        "AWS_ENDPOINT_URL": aws,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
    }
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    *typed, last = blocks
    assert "recsys-assets run" in last  # it would run on AWS
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(typed)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "ready"
    assert re.search(r"^ok +bucket +s3://my-recommender/ ", done.stdout, flags=re.MULTILINE)

    exported = dict(re.findall(r"export (RECSYS_\w+)=(.*)", PAGE))
    settings = Settings.from_environment(exported)
    iam = boto3.client(
        "iam",
        endpoint_url=aws,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="eu-west-1",
    )
    role = iam.get_role(RoleName="recsys-sagemaker")["Role"]
    assert role["Arn"] == settings.role_arn
    assert role["AssumeRolePolicyDocument"] == policy("sagemaker_role_trust", settings)
    inline = iam.get_role_policy(RoleName="recsys-sagemaker", PolicyName="recsys")
    assert inline["PolicyDocument"] == policy("sagemaker_role", settings)
    (platform,) = iam.list_policies(Scope="Local")["Policies"]
    version = iam.get_policy_version(
        PolicyArn=platform["Arn"], VersionId=platform["DefaultVersionId"]
    )
    assert version["PolicyVersion"]["Document"] == policy("platform", settings)
