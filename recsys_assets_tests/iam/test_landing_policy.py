"""The platform's policy allows what looking at the landing and reading from it calls."""

from pathlib import Path

import pytest

from recsys_assets.domain.ratings.ledger import Ledger
from recsys_assets.iam import policy
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.landing import Landing
from recsys_assets.settings import LOCAL_ROLE_ARN, Settings
from recsys_assets_tests.automation.landing_world import moto, notification
from recsys_assets_tests.contract.environments import NoInterpreterError
from recsys_assets_tests.iam.evaluation import LANDING_ACTIONS, allowed_by, permissions_for
from recsys_assets_tests.proxy import Proxy
from recsys_assets_tests.sagemaker_local.endpoint import CREDENTIALS, aws_client

BUCKET = "landing-policy"
SETTINGS = Settings.from_environment(
    {"RECSYS_BUCKET": BUCKET, "RECSYS_PREFIX": "of/us", "RECSYS_ROLE_ARN": LOCAL_ROLE_ARN}
)


@pytest.mark.slow
def test_looking_at_the_landing_and_reading_from_it_is_allowed_and_no_more(
    object_store: str, tmp_path: Path
) -> None:
    s3 = aws_client("s3", object_store)
    s3.create_bucket(Bucket=BUCKET)
    key = "of/us/landing/a.tsv"
    try:
        with moto(tmp_path) as sqs_url, Proxy(object_store, sqs=sqs_url) as proxy:
            sqs = aws_client("sqs", sqs_url)
            queue = sqs.create_queue(QueueName="recsys-landing")["QueueUrl"]
            sqs.send_message(QueueUrl=queue, MessageBody='{"Event": "s3:TestEvent"}')
            landing = Landing(
                aws=AwsClients(
                    local=False,
                    endpoint_url=proxy.url,
                    region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
                    aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
                    aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
                ),
                uri=f"s3://{BUCKET}/of/us/landing/",
                settle_seconds=0,
                success_marker=True,
                queue_url=queue,
            )
            for _ in ("without", "with"):
                s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
                s3.put_object(Bucket=BUCKET, Key="of/us/landing/_SUCCESS", Body=b"")
                told = notification(BUCKET, "of/us/landing/b.tsv", "01", put=None)
                sqs.send_message(QueueUrl=queue, MessageBody=told)
                *_, found = landing.look(Ledger(), budget_seconds=30).arrivals
                assert landing.latest(key) is not None
                assert landing.fetch(found, tmp_path / "a.tsv")
                s3.put_bucket_versioning(
                    Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"}
                )
                s3.delete_object(Bucket=BUCKET, Key=key)
            calls = proxy.calls
    except NoInterpreterError as error:
        pytest.skip(str(error))
    statements = policy("platform", SETTINGS)["Statement"]
    needed = {p for call in calls for p in permissions_for(call, LOCAL_ROLE_ARN)}
    allowed = {
        permission
        for permission in needed
        if any(allowed_by(statement, permission) for statement in statements)
    }
    assert needed == allowed
    assert {permission.action for permission in needed} == LANDING_ACTIONS | {
        "s3:GetObject",
        "s3:ListBucket",
    }
