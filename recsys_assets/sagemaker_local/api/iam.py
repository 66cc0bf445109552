"""IAM: GetRole and SimulatePrincipalPolicy, with which clients check a role before they pass it on.

The roles that exist are told when the endpoint starts. Nothing here asks what a role may do, so
that every action is allowed to each of them.
"""

import base64
import hashlib
import itertools
import json
import re
import urllib.parse
from typing import Any

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.identity import USER_ARN, role_arn
from recsys_assets.sagemaker_local.validation import ANY, Supported, refuse_unsupported

_TRUST_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}

_MOST_RESULTS = 100

_MARKER = re.compile("[0-9]{1,9}")

_SUPPORTED_SIMULATION: Supported = {
    "PolicySourceArn": ANY,
    "ActionNames": ANY,
    "ResourceArns": ANY,
    "CallerArn": ANY,
    "ContextEntries": ANY,
    "MaxItems": ANY,
    "Marker": ANY,
}


def get_role(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell about a role, which SageMaker may assume."""
    name = request["RoleName"]
    if name not in context.roles:
        raise _no_such_role(name)
    digest = hashlib.sha256(name.encode()).digest()
    return {
        "Role": {
            "Path": "/",
            "RoleName": name,
            "RoleId": "AROA" + base64.b32encode(digest)[:17].decode(),
            "Arn": role_arn(name),
            "CreateDate": 0,  # roles are told to the endpoint, not created
            # IAM gives policies URL-encoded.
            "AssumeRolePolicyDocument": urllib.parse.quote(json.dumps(_TRUST_POLICY)),
            "MaxSessionDuration": 3600,
        }
    }


def simulate_principal_policy(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Tell that a role, or the one user, may perform all actions asked about."""
    refuse_unsupported(request, _SUPPORTED_SIMULATION)
    source = request["PolicySourceArn"]
    if source != USER_ARN and source not in map(role_arn, context.roles):
        raise _no_such_role(source.rpartition("/")[2])
    marker = request.get("Marker", "0")
    if _MARKER.fullmatch(marker) is None:
        raise ServiceError("InvalidInput", f"Invalid Marker {marker!r}.")
    start, resources = int(marker), request.get("ResourceArns") or ["*"]
    stop = start + request.get("MaxItems", _MOST_RESULTS)
    total = len(request["ActionNames"]) * len(resources)
    page = itertools.islice(itertools.product(request["ActionNames"], resources), start, stop)
    return {
        "EvaluationResults": [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": "allowed",
                "MatchedStatements": [],
                "MissingContextValues": [],
            }
            for action, resource in page
        ],
        "IsTruncated": stop < total,
        **({"Marker": str(stop)} if stop < total else {}),
    }


def _no_such_role(name: str) -> ServiceError:
    return ServiceError("NoSuchEntity", f"The role with name {name} cannot be found.", 404)
