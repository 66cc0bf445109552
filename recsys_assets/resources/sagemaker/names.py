"""On whose behalf a job runs, and what that makes of its name and tags.

What belongs here: the rule by which a step that starts again finds its job. What does not: looking
for it (``jobs.py``).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NOT_IN_TAGS = re.compile(r"[^\w\s.:/=+\-@]")
_LONGEST_TAG = 256


@dataclass(frozen=True)
class Run:
    """On whose behalf a job runs.

    Attributes
    ----------
    run_id, root_run_id
        The Dagster run, and the first of the runs that it retries; the latter names the job.
    asset
        The asset that the job makes.
    partition
        The asset's partition; None for an asset without partitions.
    """

    run_id: str
    root_run_id: str
    asset: str
    partition: str | None = None

    def tags(self, more: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the tags of everything made for this run, and `more` (by key)."""
        pairs = {
            **more,
            "recsys:run-id": self.run_id,
            "recsys:root-run-id": self.root_run_id,
            "recsys:asset": self.asset,
        }
        if self.partition is not None:
            # A partition's key may hold what a tag may not.
            value = _NOT_IN_TAGS.sub("_", self.partition)[:_LONGEST_TAG]
            pairs["recsys:partition"] = value
        return [{"Key": key, "Value": value} for key, value in pairs.items()]


def job_name(run: Run, request: Mapping[str, Any], length: int) -> str:
    """Return the name of a job: the asset, the root run and a hash of the request.

    Tags are left out of the hash: they name the run that asks, which differs between retries.
    """
    body = {key: value for key, value in request.items() if key != "Tags"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:8]
    suffix = run_part(run.root_run_id) + digest
    asset = re.sub("[^a-zA-Z0-9]+", "-", run.asset).strip("-")
    return asset[: length - len(suffix)].rstrip("-") + suffix


def run_part(run_id: str) -> str:
    """Return what the names of all that a run creates have in common."""
    return f"-{run_id[:8]}-"
