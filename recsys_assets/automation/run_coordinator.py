"""The run coordinator: Dagster's queue, whose pools have their limits before a run waits for them.

What belongs here: giving pools the default limit in time. What does not: the limit and what else
the queue goes by (``dagster.yaml``).

Dagster's daemon gives a pool the default limit when it first finds a run of it in the queue, but
has read by then which pools are limited: all runs of a new pool that wait at that moment are
started at once.
"""

from dagster import DagsterRun, QueuedRunCoordinator
from dagster._core.run_coordinator import SubmitRunContext


class LimitingRunCoordinator(QueuedRunCoordinator):
    """Puts runs in the queue; a pool that has no limit yet is given the default one before."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Put a run in the queue."""
        concurrency = context.dagster_run.run_op_concurrency
        pools = set(concurrency.all_pools or ()) if concurrency is not None else set()
        storage = self._instance.event_log_storage
        if pools and self._instance.global_op_concurrency_default_limit is not None:
            limited = {limit.name for limit in storage.get_pool_limits()}
            for pool in sorted(pools - limited):
                storage.initialize_concurrency_limit_to_default(pool)
        return super().submit_run(context)
