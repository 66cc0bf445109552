"""The IAM policies that the platform needs on AWS, as files to fill in and apply.

What belongs here: the policies and filling in a deployment's names. What does not: creating users,
roles or anything else in an account.

- ``platform.json``: for whoever runs the platform (Dagster's process).
- ``sagemaker_role.json``: for the role that SageMaker's jobs take.
- ``sagemaker_role_trust.json``: who may take that role.
- ``spark_role.json``: for the role that Spark jobs take, on EMR Serverless or in Glue.
"""

import json
from importlib.resources import files
from string import Template
from typing import Any

from recsys_assets.settings import Settings, SettingsError

POLICIES = ("platform", "sagemaker_role", "sagemaker_role_trust", "spark_role")


def policy(name: str, settings: Settings) -> dict[str, Any]:
    """Return a policy with a deployment's bucket, prefix, region, account and role filled in.

    Parameters
    ----------
    name
        One of ``POLICIES``.
    settings
        The deployment; partition and account are those of its role's ARN, which need not exist yet.

    Raises
    ------
    SettingsError
        If the bucket or the role is not set, or the role is no ARN.
    """
    if not settings.bucket:
        raise SettingsError("RECSYS_BUCKET: expected the name of a bucket, got nothing")
    parts = settings.role_arn.split(":", maxsplit=5)
    if len(parts) < 6 or parts[2] != "iam":
        raise SettingsError(
            "RECSYS_ROLE_ARN: expected arn:aws:iam::<account>:role/<name>, "
            f"got {settings.role_arn!r}"
        )
    text = files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    filled = Template(text).substitute(
        PARTITION=parts[1],
        ACCOUNT=parts[4],
        ROLE_ARN=settings.role_arn,
        REGION=settings.region,
        BUCKET=settings.bucket,
        PREFIX=f"{settings.prefix}/" if settings.prefix else "",
    )
    document: dict[str, Any] = json.loads(filled)
    return document
