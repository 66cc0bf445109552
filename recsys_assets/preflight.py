"""What must be in place before a run costs money: the checks of `recsys-assets doctor`.

What belongs here: looking at bucket, role, image, quotas and MLflow, and saying in plain words what
is missing and what to do. What does not: changing anything in an account, and the terminal.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from dagster import Failure

from recsys_assets.iam import policy
from recsys_assets.resources.sagemaker import SageMaker
from recsys_assets.services.control import ServicesError
from recsys_assets.settings import Settings

# The last is what a web page gives, which something on the way answers in AWS's place.
_FAILURES = (BotoCoreError, ClientError, ResponseParserError)
_DENIED = ("AccessDenied", "AccessDeniedException", "403", "UnauthorizedOperation")


@dataclass(frozen=True)
class Finding:
    """What one look has found.

    Attributes
    ----------
    subject
        What was looked at, in a word.
    verdict
        ``ok``; ``missing`` when a run would fail; ``unknown`` when it could not be found out.
    text
        What was found, or what is missing and what to do about it.
    """

    subject: str
    verdict: Literal["ok", "missing", "unknown"]
    text: str


def examine(settings: Settings, sagemaker: SageMaker) -> Iterator[Finding]:
    """Look at everything that a run needs; nothing is created, nothing costs money.

    Parameters
    ----------
    settings
        The deployment's settings.
    sagemaker
        The deployment's SageMaker resource, initialized.
    """
    yield from _endpoints(settings)
    try:
        identity = sagemaker.aws.client("sts").get_caller_identity()
    except (*_FAILURES, ServicesError) as error:
        yield Finding(
            "credentials",
            "missing",
            f"AWS does not know you: {_words(error)}. Set up credentials as for the AWS CLI, for "
            "instance with `aws configure` or AWS_PROFILE.",
        )
        yield from _mlflow(settings)
        return
    yield Finding("credentials", "ok", f"{identity['Arn']} in account {identity['Account']}")
    for look in (_bucket, _role, _image, _quotas):
        yield from look(settings, sagemaker)
    yield from _mlflow(settings)


def _endpoints(settings: Settings) -> Iterator[Finding]:
    """Tell of addresses in AWS's place, such as a shell keeps from `recsys-assets services env`."""
    moved = sorted(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL"))
    if settings.environment == "aws" and moved:
        yield Finding(
            "endpoints",
            "unknown",
            f"this is not AWS: {moved[0]}={os.environ[moved[0]]} and the like are set; unset them, "
            "and RECSYS_BUCKET and RECSYS_ROLE_ARN if they came with them",
        )


def _bucket(settings: Settings, sagemaker: SageMaker) -> Iterator[Finding]:
    if not settings.bucket:
        yield Finding("bucket", "missing", "no bucket is named: set RECSYS_BUCKET")
        return
    client = sagemaker.aws.client("s3")
    uri = f"s3://{settings.bucket}/{settings.prefix}"
    prefix = f"{settings.prefix}/" if settings.prefix else ""
    try:
        headers = client.list_objects_v2(Bucket=settings.bucket, Prefix=prefix, MaxKeys=1)[
            "ResponseMetadata"
        ]["HTTPHeaders"]
        # An upload that is begun and given up shows the permission and leaves no object.
        place = {"Bucket": settings.bucket, "Key": f"{prefix}doctor"}
        upload = client.create_multipart_upload(**place)
        client.abort_multipart_upload(**place, UploadId=upload["UploadId"])
    except _FAILURES as error:
        advice = {
            "NoSuchBucket": f"create it: aws s3 mb s3://{settings.bucket} "
            f"--region {settings.region}",
            "PermanentRedirect": "it lies in another region; set RECSYS_REGION to it or use "
            "another bucket",
        }.get(_code(error), "give this identity what `recsys-assets policy platform` prints")
        yield Finding("bucket", "missing", f"{uri}: {_words(error)}; {advice}")
        return
    found = headers.get("x-amz-bucket-region", settings.region)
    if found != settings.region:
        yield Finding(
            "bucket",
            "missing",
            f"{uri} lies in {found}, but jobs would run in {settings.region}, and SageMaker reads "
            f"only from its own region: set RECSYS_REGION={found} or use another bucket",
        )
    else:
        yield Finding("bucket", "ok", f"{uri} can be listed and written to")


def _role(settings: Settings, sagemaker: SageMaker) -> Iterator[Finding]:
    arn = settings.role_arn
    if not arn.startswith("arn:") or ":role/" not in arn:
        yield Finding(
            "role",
            "missing",
            "expected RECSYS_ROLE_ARN=arn:aws:iam::<account>:role/<name>, the role that "
            f"SageMaker's jobs take; got {arn!r}",
        )
        return
    client = sagemaker.aws.client("iam")
    try:
        role = client.get_role(RoleName=arn.rpartition("/")[2])["Role"]
    except _FAILURES as error:
        if _code(error) in _DENIED:
            yield Finding("role", "unknown", f"you may not read {arn} (iam:GetRole)")
            return
        yield Finding(
            "role",
            "missing",
            f"{arn}: {_words(error)}; create it with the policies that `recsys-assets policy "
            "sagemaker_role` and `... sagemaker_role_trust` print",
        )
        return
    if not _trusts_sagemaker(role["AssumeRolePolicyDocument"]):
        yield Finding(
            "role",
            "missing",
            f"{arn} may not be taken by sagemaker.amazonaws.com; give it the trust policy that "
            "`recsys-assets policy sagemaker_role_trust` prints",
        )
        return
    if settings.bucket:
        yield from _permissions_of_role(settings, client)


def _permissions_of_role(settings: Settings, client: Any) -> Iterator[Finding]:
    """Compare what the role may do with what its policy asks for."""
    denied: list[str] = []
    for statement in policy("sagemaker_role", settings)["Statement"]:
        try:
            answer = client.simulate_principal_policy(
                PolicySourceArn=settings.role_arn,
                ActionNames=_as_list(statement["Action"]),
                ResourceArns=_as_list(statement["Resource"]),
                ContextEntries=_context(statement.get("Condition", {})),
            )
        except _FAILURES as error:
            yield Finding(
                "role",
                "unknown",
                f"{settings.role_arn} can be taken by SageMaker; what it may do could not be found "
                f"out: {_words(error)} (iam:SimulatePrincipalPolicy)",
            )
            return
        denied += [
            result["EvalActionName"]
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed"
        ]
    if denied:
        yield Finding(
            "role",
            "missing",
            f"{settings.role_arn} may not {', '.join(dict.fromkeys(denied))}; give it what "
            "`recsys-assets policy sagemaker_role` prints",
        )
    else:
        yield Finding("role", "ok", f"{settings.role_arn} can do what jobs need")


def _context(condition: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the context in which a statement's condition holds."""
    return [
        {
            "ContextKeyName": key,
            "ContextKeyType": "string",
            "ContextKeyValues": [value.replace("*", "doctor")],
        }
        for operands in condition.values()
        for key, value in operands.items()
    ]


def _as_list(value: Any) -> list[Any]:
    """Return what a policy may write as one value or as a list of them."""
    return value if isinstance(value, list) else [value]


def _trusts_sagemaker(document: Mapping[str, Any]) -> bool:
    for statement in _as_list(document["Statement"]):
        principal = statement.get("Principal")
        named = _as_list(principal.get("Service", [])) if isinstance(principal, dict) else []
        if statement["Effect"] == "Allow" and "sagemaker.amazonaws.com" in named:
            return True
    return False


def _image(settings: Settings, sagemaker: SageMaker) -> Iterator[Finding]:
    try:
        image = sagemaker.training_image()
    except Failure as error:
        yield Finding("image", "missing", f"{error.description} Set RECSYS_REGION to one of them.")
    else:
        yield Finding("image", "ok", image)


def _quotas(settings: Settings, sagemaker: SageMaker) -> Iterator[Finding]:
    if settings.environment == "local":
        return  # this machine has none
    client = sagemaker.aws.client("service-quotas")
    try:
        pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
        quotas = {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
    except _FAILURES as error:
        yield Finding("quotas", "unknown", f"{_words(error)} (servicequotas:ListServiceQuotas)")
        return
    for name, count in _wanted_quotas(sagemaker).items():
        allowed = quotas.get(name)
        if allowed is None:
            yield Finding(
                "quotas",
                "unknown",
                f"{name}: {count} needed; AWS lists no value for this account, look under Service "
                "Quotas, Amazon SageMaker",
            )
        elif allowed < count:
            yield Finding(
                "quotas",
                "missing",
                f"{name}: {count} needed, {allowed:g} allowed; ask for more under Service Quotas, "
                "Amazon SageMaker, or choose another instance type",
            )
        else:
            yield Finding("quotas", "ok", f"{name}: {allowed:g} allowed, {count} needed")


def _wanted_quotas(sagemaker: SageMaker) -> dict[str, int]:
    """Return how many instances one job of each kind takes, by the name of the quota."""
    training, transform = sagemaker.training, sagemaker.transform
    endpoint = sagemaker.endpoint
    spot = "spot " if training.spot is not None else ""
    return {
        f"{training.instance_type} for {spot}training job usage": training.instance_count,
        f"{transform.instance_type} for transform job usage": transform.instance_count,
        f"{endpoint.instance_type} for endpoint usage": endpoint.instance_count,
    }


def _mlflow(settings: Settings) -> Iterator[Finding]:
    uri, shown = settings.mlflow_tracking_uri, settings.shown_mlflow_uri
    if uri.startswith("sqlite:"):
        yield Finding("mlflow", "ok", f"{shown} (made by the first run)")
        return
    # A server that is not there should not be asked for minutes, as a run's client would.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "10"
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        yield Finding(
            "mlflow",
            "missing",
            f"{shown}: {_words(error).replace(uri, shown)}; start it, or set "
            "RECSYS_MLFLOW_TRACKING_URI",
        )
    else:
        yield Finding("mlflow", "ok", shown)


def _code(error: Exception) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _words(error: Exception) -> str:
    """Return the first line of what an error says, with its code if it has one."""
    text = error.response["Error"]["Message"] if isinstance(error, ClientError) else str(error)
    first = text.strip().partition("\n")[0]
    return f"{first} ({_code(error)})" if _code(error) else first
