"""What actions of several kinds of resources share: queueing, stopping, listing and checks."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from recsys_assets.sagemaker_local.api.tags import tags_of
from recsys_assets.sagemaker_local.containers.private_mount import private_mounts_work
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import ServiceError, resource_in_use, validation_error
from recsys_assets.sagemaker_local.images import Program
from recsys_assets.sagemaker_local.s3 import TRANSFER_ERRORS, S3Uri, no_objects
from recsys_assets.sagemaker_local.store import Description, Kind, Listed, Query, Store
from recsys_assets.sagemaker_local.validation import parse_json

_DEFAULT_PAGE = 10


def queue_job(context: Context, kind: Kind, job: Description, request: dict[str, Any]) -> str:
    """Add a new job for the scheduler to run; return its ARN.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    kind, job
        The job's record.
    request
        The request that created it, for its tags.

    Raises
    ------
    ServiceError
        When its name is taken.
    """
    arn: str = job[kind.arn_member]
    if not context.store.insert(kind, job, tags=tags_of(request)):
        raise resource_in_use(
            "Job name must be unique within an AWS account and region, and a job with this name"
            f" already exists ({arn})."
        )
    context.changed.set()
    return arn


def check_own_command(program: Program, specification: Mapping[str, Any]) -> None:
    """Check that a request's own entrypoint or arguments can be run.

    Parameters
    ----------
    program
        What stands for the job's image.
    specification
        May have ``ContainerEntrypoint`` and ``ContainerArguments``.

    Raises
    ------
    ServiceError
        When there is nothing to run, or an entrypoint (a program that SageMaker's users write for
        the paths of a container) would not find ``/opt/ml``.
    """
    program.command(specification)
    if "ContainerEntrypoint" in specification and not private_mounts_work():
        raise validation_error(
            "The local SageMaker endpoint supports ContainerEntrypoint only where the kernel gives"
            " a program /opt/ml as a private mount (Linux with user namespaces), which it does not"
            " here. Script mode (the hyperparameters sagemaker_program and"
            " sagemaker_submit_directory) and images mapped to programs with --image need none."
        )


def check_inputs_exist(context: Context, data: Mapping[str, Any]) -> None:
    """Check that there is something at a data source's ``S3Uri``.

    Raises
    ------
    ServiceError
        When there is nothing, or the object store does not answer.
    """
    location = S3Uri.parse(data["S3Uri"], "S3Uri")
    try:
        found = context.objects.has_objects(location)
    except TRANSFER_ERRORS as error:
        raise ServiceError(
            "ServiceUnavailable", f"Cannot look for {location}: {error}", status=503
        ) from error
    if not found:
        raise validation_error(no_objects(location))


def stop_job(
    context: Context,
    kind: Kind,
    name: str,
    words: str,
    request_stop: Callable[[Description], None],
) -> None:
    """Ask an existing job to stop; asking again while it stops is no error.

    Parameters
    ----------
    context
        The endpoint's shared parts.
    kind, name
        The job.
    words
        What the kind is called in error messages.
    request_stop
        Notes the request in the job's record.

    Raises
    ------
    ServiceError
        When the job has ended.
    """
    with context.store.edit(kind, name) as job:
        status = job[kind.status_member]
        if status not in ("InProgress", "Stopping"):
            raise validation_error(
                f"The request was rejected because the {words} is in status {status}."
            )
        request_stop(job)
    context.changed.set()


def list_page(
    store: Store,
    kind: Kind,
    request: Mapping[str, Any],
    *,
    default_sort: str = "CreationTime",
    default_order: str = "Ascending",
    parent: str | None = None,
) -> tuple[list[Description], dict[str, str]]:
    """Return one page of resources and the response's ``NextToken``, if there are more.

    Parameters
    ----------
    store, kind
        What is listed.
    request
        A checked List request.
    default_sort, default_order
        ``SortBy`` and ``SortOrder`` where the request has none.
    parent
        Name of the tuning job whose children are listed; all otherwise.
    """
    size = request.get("MaxResults", _DEFAULT_PAGE)
    query = Query(
        name_contains=request.get("NameContains", ""),
        status=request.get("StatusEquals"),
        parent=parent,
        created_after=request.get("CreationTimeAfter"),
        created_before=request.get("CreationTimeBefore"),
        modified_after=request.get("LastModifiedTimeAfter"),
        modified_before=request.get("LastModifiedTimeBefore"),
        sort_by=request.get("SortBy", default_sort),
        descending=request.get("SortOrder", default_order) == "Descending",
        after=_position(request["NextToken"]) if "NextToken" in request else None,
        limit=size + 1,  # one more tells whether there is another page
    )
    listed = store.find(kind, query)
    more = {"NextToken": _token(kind, listed[size - 1])} if len(listed) > size else {}
    return [item.description for item in listed[:size]], more


def _token(kind: Kind, last: Listed) -> str:
    position = json.dumps([last.sort_value, last.description[kind.name_member]])
    return base64.urlsafe_b64encode(position.encode()).decode()


def _position(token: str) -> tuple[str | float, str]:
    try:
        position = parse_json(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        position = None
    match position:
        case [str() | float() as value, str() as name]:
            return value, name
        case _:
            raise validation_error(f"Invalid NextToken {token!r}: no List response gave it.")
