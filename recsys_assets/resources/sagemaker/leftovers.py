"""What a run of another orchestrator has left on SageMaker.

What belongs here: finding it by the run's part of its name, stopping and deleting it. What does
not: what a run is meant to leave, such as registered models and the endpoint.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys_assets.resources.sagemaker.jobs import (
    MODEL,
    PROCESSING,
    TRAINING,
    TRANSFORM,
    TUNING,
    Kind,
    Remote,
)
from recsys_assets.resources.sagemaker.names import run_part

# Searches first: they would start other training jobs in the place of those that are stopped.
_JOBS = (TUNING, TRAINING, TRANSFORM, PROCESSING)
# "How Your Processing Container Configures Input and Output" in the SageMaker developer guide.
_OWN_PROCESSING_JOB = Path("/opt/ml/config/processingjobconfig.json")


def clean_up_after(run_id: str, client: Any, log: Callable[[str], None]) -> dict[str, list[str]]:
    """Stop the jobs of a run that still run, and delete the models made for its transforms.

    Those are models that a transform job of the run names, and that have the name of the same
    asset. A second call finds nothing left to do. The processing job that this process may be part
    of goes on.

    Parameters
    ----------
    run_id
        Its first 8 characters stand in the names of all that the run creates.
    client
        A boto3 client of SageMaker.
    log
        Is told what is done.

    Returns
    -------
    dict
        Names of the jobs ``stopped`` and the models ``deleted``.
    """
    part = run_part(run_id)
    own = _own_processing_job()
    stopped, deleted = [], []
    for kind in _JOBS:
        for name in _names(client, kind, NameContains=part, StatusEquals="InProgress"):
            if name != own:
                Remote(kind, name, client, 0).stop()
                log(f"stopped {kind.words} {name}")
                stopped.append(name)
    for transform in _names(client, TRANSFORM, NameContains=part):
        described = Remote(TRANSFORM, transform, client, 0).describe() or {}
        model = Remote(MODEL, described.get("ModelName", ""), client, 0)
        asset = transform.partition(part)[0]
        if model.name.startswith(asset + part) and model.describe() is not None:
            model.delete()
            log(f"deleted model {model.name}")
            deleted.append(model.name)
    return {"stopped": stopped, "deleted": deleted}


def _names(client: Any, kind: Kind, **conditions: str) -> list[str]:
    pages = client.get_paginator(kind.method("list") + "s").paginate(**conditions)
    return [item[kind.name_field] for page in pages for item in page[f"{kind.noun}Summaries"]]


def _own_processing_job() -> str | None:
    """Return the name of the processing job that this process is part of; None if it is of none."""
    try:
        config: dict[str, str] = json.loads(_OWN_PROCESSING_JOB.read_text())
    except FileNotFoundError:
        return None
    return config["ProcessingJobName"]
