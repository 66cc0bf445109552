"""MLflow's model registry.

What belongs here: putting a model into it, once, and what is in it. What does not: which models are
worth it, and the runs that made them (``tracking.py``).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register_model(
    client: "MlflowClient", name: str, source: str, run_id: str, tags: Mapping[str, str]
) -> str:
    """Make an artefact a version of a registered model, unless it is one, and return the version.

    Parameters
    ----------
    client
        MLflow's client.
    name
        Of the registered model, which is made if there is none.
    source
        URI of the artefact.
    run_id
        The MLflow run that made it.
    tags
        Of the version; they replace those of an earlier time.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{name}' and source_path = '{source}'")
    found = known[0] if known else client.create_model_version(name, source, run_id)
    version = str(found.version)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    return version


def registered_artefacts(client: "MlflowClient") -> set[str]:
    """Return the URIs of the artefacts of all versions of all registered models."""
    sources: set[str] = set()
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        sources |= {version.source for version in page if version.source}
        token = page.token
        if not token:
            return sources
