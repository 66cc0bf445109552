"""One config for Dagster and for a DAG run, and what both have stored, side by side.

What belongs here: writing the config down in both forms, and reading what a run has published. What
does not: running it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from recsys_assets.resources.object_store import ObjectStore, Version

Config = Mapping[str, Mapping[str, Any]]  # of each step, by its name

SAME_BYTES = (
    "raw_ratings",
    "filtered_ratings",
    "sparse_matrix",
    "protobuf_train",
    "protobuf_validate",
    "protobuf_test",
    "batch_predictions",
    "recommendations",
)
"""Assets whose files are equal to the byte."""

DOCUMENTS = ("selected_model", "model_evaluation")
"""Assets whose files tell of the run as well."""

OF_A_RUN = {
    "artefact",
    "billable_seconds",
    "job_arn",
    "job_name",
    "mlflow_run_id",
    "model",  # the name of the job that trained it
    "tuning_job",
}
"""What may differ in documents: names, ids, times and URIs."""


def params(config: Config) -> dict[str, Any]:
    """Return run config as the parameters of a DAG run."""
    return {name: value for step, given in config.items() for name, value in _flat(step, given)}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}__{key}", inner)
    else:
        yield name, value


def version(store: ObjectStore, asset: str, run_id: str) -> Version:
    """Return what a run has published of an asset."""
    found = store.find(asset, [run_id])
    assert found is not None
    assert found.run_id == run_id, f"{asset} of run {run_id} is missing"
    return found


def contents(store: ObjectStore, run_id: str) -> dict[str, Any]:
    """Return what a run has published, without what only tells of the run."""
    published = {asset: version(store, asset, run_id) for asset in (*SAME_BYTES, *DOCUMENTS)}
    found: dict[str, Any] = {
        asset: (published[asset].content_hash, published[asset].row_count) for asset in SAME_BYTES
    }
    for asset in DOCUMENTS:
        found[asset] = _without_run(published[asset].facts["content"])
    return found


def _without_run(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_run(item) for key, item in value.items() if key not in OF_A_RUN}
    if isinstance(value, list):
        return [_without_run(item) for item in value]
    return value
