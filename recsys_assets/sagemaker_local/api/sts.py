"""STS: GetCallerIdentity."""

from typing import Any

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.identity import ACCOUNT_ID, USER_ARN


def get_caller_identity(_context: Context, _request: dict[str, Any]) -> dict[str, Any]:
    """Tell every caller that it is the one user of the one account."""
    return {"UserId": "AIDALOCALUSER", "Account": ACCOUNT_ID, "Arn": USER_ARN}
