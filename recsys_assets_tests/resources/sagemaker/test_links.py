"""Links into the AWS console, and plain names where there is none."""

from typing import Any

import boto3
import pytest

from recsys_assets.resources.sagemaker import Links


def client(region: str, **options: Any) -> Any:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return boto3.client("sagemaker", region_name=region, **keys, **options)


def test_jobs_logs_and_objects_are_linked_to_on_aws() -> None:
    links = Links(client("eu-west-1"))
    console = "https://eu-west-1.console.aws.amazon.com"
    page = f"{console}/sagemaker/home?region=eu-west-1#"
    assert links.resource("TrainingJob", "fm-1").value == f"{page}/jobs/fm-1"
    assert links.resource("TransformJob", "t").value == f"{page}/transform-jobs/t"
    assert links.resource("HyperParameterTuningJob", "h").value == f"{page}/hyper-tuning-jobs/h"
    assert links.resource("Endpoint", "e").value == f"{page}/endpoints/e"
    assert links.log("/aws/sagemaker/TrainingJobs", "fm-1").value == (
        f"{console}/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group/"
        "$252Faws$252Fsagemaker$252FTrainingJobs$3FlogStreamNameFilter$3Dfm-1$252F"
    )
    assert links.object("s3://bucket/a/model.tar.gz").value == (
        f"{console}/s3/object/bucket?region=eu-west-1&prefix=a/model.tar.gz"
    )


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_other_partitions_have_consoles_of_their_own(region: str, host: str) -> None:
    value = Links(client(region)).resource("TrainingJob", "a").value
    assert str(value).startswith(f"https://{host}/")


def test_where_there_is_no_console_names_are_plain_text() -> None:
    links = Links(client("us-east-1", endpoint_url="http://127.0.0.1:9"))
    assert links.resource("TrainingJob", "fm-1").value == "fm-1"
    assert links.log("/aws/sagemaker/TrainingJobs", "fm-1").value == (
        "/aws/sagemaker/TrainingJobs: fm-1/"
    )
    assert links.object("s3://bucket/a").value == "s3://bucket/a"
