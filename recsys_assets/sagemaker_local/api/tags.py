"""AddTags, DeleteTags and ListTags, for every kind of resource."""

from typing import Any

from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.errors import validation_error
from recsys_assets.sagemaker_local.store import KINDS

_MOST_TAGS = 50


def add_tags(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Add tags to a resource and return all that it has."""
    arn = _existing(context, request["ResourceArn"])
    tags = tags_of(request)
    if len(context.store.tags(arn) | tags) > _MOST_TAGS:
        raise validation_error(f"A resource can have at most {_MOST_TAGS} tags.")
    context.store.put_tags(arn, tags)
    return list_tags(context, request)


def delete_tags(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Remove tags from a resource; keys that it does not have are no error."""
    context.store.delete_tags(_existing(context, request["ResourceArn"]), request["TagKeys"])
    return {}


def list_tags(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Return a resource's tags; they always fit on one page."""
    arn = _existing(context, request["ResourceArn"])
    tags = context.store.tags(arn)
    return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def tags_of(request: dict[str, Any]) -> dict[str, str]:
    """Return a request's ``Tags`` by key.

    Raises
    ------
    ServiceError
        When a key comes twice.
    """
    tags: dict[str, str] = {}
    for tag in request.get("Tags", []):
        if tag["Key"] in tags:
            raise validation_error(f"Duplicate tag key: {tag['Key']!r}.")
        tags[tag["Key"]] = tag["Value"]
    return tags


def _existing(context: Context, arn: str) -> str:
    name = arn.rpartition("/")[2]
    for kind in KINDS:
        if kind.arn(name) == arn and context.store.get(kind, name) is not None:
            return arn
    raise validation_error(f"Could not find resource {arn!r}.")
