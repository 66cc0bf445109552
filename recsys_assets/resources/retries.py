"""Which failures of a step are tried again, how often and with what pauses.

What belongs here: a policy for each kind of failure, and applying it. What does not: what kind a
failure is of (whoever raises it says so) and trying a single call again (``patience.py``).

A step is tried again for what passes by itself: a service that is throttled or away for longer than
a call has patience, a job that SageMaker could not finish, another run that has committed first.
What its caller or its program is to blame for ends at once, whatever it is.

Assets have no ``retry_policy``. Dagster applies one to a step that was cancelled too: it begins
again, and the run ends green.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from botocore.exceptions import IncompleteReadError
from dagster import AssetExecutionContext, Backoff, Failure, Jitter, RetryPolicy, RetryRequested
from dagster._core.execution.context.system import StepExecutionContext

from recsys_assets.resources.interrupts import was_interrupted
from recsys_assets.resources.object_store import ConflictError
from recsys_assets.resources.patience import passes_by_itself

AWAY = RetryPolicy(max_retries=3, delay=10, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)
"""A service that does not answer, or asks for patience: about 10, 30 and 70 seconds."""

CONFLICT = RetryPolicy(max_retries=5, delay=2, backoff=Backoff.LINEAR, jitter=Jitter.FULL)
"""Another run has committed first: at once, for it has ended; apart from one another by chance."""

JOB = RetryPolicy(delay=10, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)
"""A remote job that may be tried again; how often, the SageMaker resource says (max_retries)."""

_THROTTLED, _SERVERS_FAULT = 429, 500  # HTTP statuses; from the latter on it is not the client

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def retried(step: StepExecutionContext, max_job_retries: int = 0) -> Iterator[None]:
    """Have a step begin again after a failure of the ``with`` block that passes by itself.

    Parameters
    ----------
    step
        The step. A run without retries lets every failure through.
    max_job_retries
        How often a remote job is tried again that failed for no fault of its caller.

    Raises
    ------
    dagster.RetryRequested
        In place of a failure that is to be tried again, which Dagster then does.
    """
    try:
        yield
    except Exception as error:
        policy = policy_of(error, max_job_retries)
        tries = step.previous_attempt_count
        if policy is None or tries >= policy.max_retries or step.retry_mode.disabled:
            raise
        pause = policy.calculate_delay(tries + 1)
        step.log.warning(f"{error}; the step is tried again in {pause:.0f} s")
        raise RetryRequested(policy.max_retries, seconds_to_wait=pause) from error


def retried_asset(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate an asset's function that talks to services itself: see :func:`retried`.

    Loading its inputs and storing its outputs is the IO managers' part.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with retried(AssetExecutionContext.get().get_step_execution_context()):
            return function(*args, **kwargs)

    return call


def policy_of(error: Exception, max_job_retries: int = 0) -> RetryPolicy | None:
    """Return how a failure is to be tried again, None if it is not.

    A run that was cancelled is not, be it that cleaning up after that has failed too.
    """
    if was_interrupted(error):
        return None
    if isinstance(error, ConflictError):
        return CONFLICT
    if isinstance(error, Failure):
        return JOB._replace(max_retries=max_job_retries) if error.allow_retries else None
    return AWAY if _passes(error) else None


def _passes(error: BaseException) -> bool:
    if isinstance(error, S3UploadFailedError) and error.__context__ is not None:
        return _passes(error.__context__)
    if isinstance(error, RetriesExceededError | IncompleteReadError):
        return True  # an object that broke off while it was read
    # What errors of MLflow have; to import them takes seconds.
    status = getattr(error, "get_http_status_code", int)()
    return passes_by_itself(error) or status == _THROTTLED or status >= _SERVERS_FAULT
