"""Retry the last run of a state folder from where it failed: ``python -m ...retry STATE``.

It does what Dagster's run monitoring and run retries do about a run whose process is gone, at once
and in this process.
"""

import sys
from pathlib import Path

from dagster import DagsterInstance, ReexecutionOptions, execute_job
from dagster._core.definitions.reconstruct import ReconstructableRepository

from recsys_assets.cli.state import settings_of


def main() -> int:
    settings_of(Path(sys.argv[1]))
    from recsys_assets.definitions import MAIN_JOB

    repository = ReconstructableRepository.for_module("recsys_assets.definitions", "defs")
    with DagsterInstance.get() as instance:
        (last,) = instance.get_runs(limit=1)
        if not last.is_finished:
            instance.report_run_failed(last)
        result = execute_job(
            repository.get_reconstructable_job(MAIN_JOB),
            instance=instance,
            run_config=last.run_config,
            reexecution_options=ReexecutionOptions.from_failure(last.run_id, instance),
        )
        return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main())
