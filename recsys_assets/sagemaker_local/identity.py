"""Who this endpoint is: its account, its region and the names (ARNs) formed from them.

There is one account and, for each process, one region; neither depends on a caller's credentials.
"""

import os

ACCOUNT_ID = "123456789012"
"""The account of every resource; AWS's own example account, so that nobody owns it."""

USER_ARN = f"arn:aws:iam::{ACCOUNT_ID}:user/local"
"""Whom every caller is told to be."""


DEFAULT_ROLE = "sagemaker"
"""Name of the one role that exists if the endpoint is not told of others."""


def region() -> str:
    """Return the region that clients of the surrounding environment use (``us-east-1`` if none)."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def arn(resource_type: str, name: str) -> str:
    """Return the ARN of a SageMaker resource.

    Parameters
    ----------
    resource_type
        As it stands in ARNs: ``training-job``, ``model``.
    name
        The resource's own name.
    """
    return f"arn:aws:sagemaker:{region()}:{ACCOUNT_ID}:{resource_type}/{name}"


def role_arn(name: str) -> str:
    """Return the ARN of a role of the account."""
    return f"arn:aws:iam::{ACCOUNT_ID}:role/{name}"
