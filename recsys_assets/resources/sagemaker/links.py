"""Where a person looks at a job: the AWS console's pages, and plain names where there is none.

What belongs here: metadata that leads to jobs, logs, artefacts, models and endpoints. What does
not: what they hold.
"""

from typing import Any
from urllib.parse import quote

from dagster import MetadataValue

from recsys_assets.resources.aws import is_aws
from recsys_assets.resources.object_store import split_uri

_DOMAINS = {"aws-cn": "amazonaws.cn", "aws-us-gov": "amazonaws-us-gov.com"}
_PAGES = {
    "TrainingJob": "jobs",
    "HyperParameterTuningJob": "hyper-tuning-jobs",
    "TransformJob": "transform-jobs",
    "Model": "models",
    "Endpoint": "endpoints",
}


class Links:
    """Makes links into the console of one region.

    Parameters
    ----------
    client
        A boto3 client. If it does not reach AWS there is no console to link to, and all is told in
        plain text.
    """

    def __init__(self, client: Any) -> None:
        self._region = client.meta.region_name
        self._console = None
        if is_aws(client):
            domain = _DOMAINS.get(client.meta.partition, "aws.amazon.com")
            self._console = f"https://{self._region}.console.{domain}"

    def resource(self, noun: str, name: str) -> MetadataValue[Any]:
        """Link to a job, model or endpoint; `noun` is the API's (``TrainingJob``)."""
        page = f"sagemaker/home?region={self._region}#/{_PAGES[noun]}/{quote(name)}"
        return self._link(page, name)

    def log(self, group: str, job: str) -> MetadataValue[Any]:
        """Link to the log streams of a job."""
        # CloudWatch's page takes a fragment escaped twice, with $ for %.
        escaped = _escaped(group)
        chosen = _escaped(f"{job}/")
        page = (
            f"cloudwatch/home?region={self._region}#logsV2:log-groups/log-group/{escaped}"
            f"$3FlogStreamNameFilter$3D{chosen}"
        )
        return self._link(page, f"{group}: {job}/")

    def object(self, uri: str) -> MetadataValue[Any]:
        """Link to an object in S3."""
        bucket, key = split_uri(uri)
        page = f"s3/object/{bucket}?region={self._region}&prefix={quote(key)}"
        return self._link(page, uri)

    def _link(self, page: str, plain: str) -> MetadataValue[Any]:
        if self._console is None:
            return MetadataValue.text(plain)
        return MetadataValue.url(f"{self._console}/{page}")


def _escaped(text: str) -> str:
    return quote(quote(text, safe=""), safe="").replace("%", "$")
