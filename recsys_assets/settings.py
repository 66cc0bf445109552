"""What a deployment sets, read from the environment in one place.

What belongs here: the settings that move the platform between one machine and AWS, their names and
their defaults. What does not: run config (it stands on the assets) and credentials, which AWS's own
chain finds on AWS and the local services make up for themselves.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ENVIRONMENTS = ("local", "aws")
LOCAL_BUCKET = "recsys"
LOCAL_REGION = "us-east-1"
LOCAL_ROLE_ARN = "arn:aws:iam::123456789012:role/recsys-sagemaker"


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names the variable."""


@dataclass(frozen=True)
class Settings:
    """The settings of a deployment.

    Attributes
    ----------
    environment
        ``RECSYS_ENV``: ``local`` (default) or ``aws``.
    state
        ``RECSYS_STATE``: the folder that holds everything local (default ``./.recsys``), absolute.
    bucket, prefix
        ``RECSYS_BUCKET`` (needed on AWS) and ``RECSYS_PREFIX`` (default empty): where objects lie.
    region
        ``RECSYS_REGION``, on AWS else ``AWS_REGION`` or ``AWS_DEFAULT_REGION``, else us-east-1;
        the region of an AWS profile is not read.
    role_arn
        ``RECSYS_ROLE_ARN`` (needed on AWS): the role that SageMaker's jobs take.
    mlflow_tracking_uri
        ``RECSYS_MLFLOW_TRACKING_URI`` (default: SQLite in the state folder).
    sagemaker_config
        ``RECSYS_SAGEMAKER_CONFIG``: a YAML file of what jobs ask for (instances, spot, VPC, keys,
        tags, a cap on their cost), absolute; None for the defaults.
    automation_config
        ``RECSYS_AUTOMATION_CONFIG``: a YAML file of how the platform runs itself (where ratings
        land, when models are trained, schedules, notifications, retention), absolute; None for the
        defaults.
    spark_config
        ``RECSYS_SPARK_CONFIG``: a YAML file of where ratings are filtered on Spark, absolute; None
        to filter them in the step's process.
    patience_seconds
        ``RECSYS_PATIENCE_SECONDS`` (default 300, of local services 60): how long a call is tried
        again while it is throttled, the network is cut, the credentials have expired or a local
        service is being started again.
    s3_endpoint_url
        ``RECSYS_S3_ENDPOINT_URL``: an S3-compatible store to use in place of the local one, with
        ``RECSYS_S3_ACCESS_KEY_ID`` and ``RECSYS_S3_SECRET_ACCESS_KEY``; local environment only.
    """

    environment: str
    state: Path
    bucket: str
    prefix: str
    region: str
    role_arn: str
    mlflow_tracking_uri: str
    sagemaker_config: Path | None
    automation_config: Path | None
    spark_config: Path | None
    patience_seconds: float
    s3_endpoint_url: str | None

    @property
    def shown_mlflow_uri(self) -> str:
        """``mlflow_tracking_uri`` as it may be printed: without its password."""
        password = urlsplit(self.mlflow_tracking_uri).password
        return self.mlflow_tracking_uri.replace(f":{password}@", ":***@")

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings; nothing is needed but on AWS, and there only by the runs.

        Raises
        ------
        SettingsError
            If ``RECSYS_ENV`` is neither ``local`` nor ``aws``, or ``RECSYS_PATIENCE_SECONDS`` is
            not a number of seconds.
        """
        environment = variables.get("RECSYS_ENV") or "local"
        if environment not in ENVIRONMENTS:
            raise SettingsError(f"RECSYS_ENV: expected local or aws, got {environment!r}")
        local = environment == "local"
        state = Path(variables.get("RECSYS_STATE") or ".recsys").absolute()
        surrounding = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
        return cls(
            environment=environment,
            state=state,
            bucket=variables.get("RECSYS_BUCKET") or (LOCAL_BUCKET if local else ""),
            prefix=(variables.get("RECSYS_PREFIX") or "").strip("/"),
            region=variables.get("RECSYS_REGION")
            or (LOCAL_REGION if local or not surrounding else surrounding),
            role_arn=variables.get("RECSYS_ROLE_ARN") or (LOCAL_ROLE_ARN if local else ""),
            mlflow_tracking_uri=variables.get("RECSYS_MLFLOW_TRACKING_URI")
            or f"sqlite:///{state}/mlflow/mlflow.db",
            sagemaker_config=_file(variables, "RECSYS_SAGEMAKER_CONFIG"),
            automation_config=_file(variables, "RECSYS_AUTOMATION_CONFIG"),
            spark_config=_file(variables, "RECSYS_SPARK_CONFIG"),
            patience_seconds=_seconds(
                variables, "RECSYS_PATIENCE_SECONDS", 60.0 if local else 300.0
            ),
            s3_endpoint_url=variables.get("RECSYS_S3_ENDPOINT_URL") or None,
        )


def _file(variables: Mapping[str, str], name: str) -> Path | None:
    text = variables.get(name)
    return Path(text).absolute() if text else None


def _seconds(variables: Mapping[str, str], name: str, default: float) -> float:
    text = variables.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SettingsError(f"{name}: expected a number of seconds, got {text!r}")
    return seconds
