"""What the writer of a DAG decides, beyond what the asset graph says.

What belongs here: the options, their defaults and their rules. What does not: what is made of them.
"""

import re
from dataclasses import dataclass, field
from datetime import date

_DAG_ID = re.compile(r"[\w.-]{1,250}", re.ASCII)
_S3_URI = re.compile(r"s3://[^/]+(/.*)?")


@dataclass(frozen=True)
class ProcessingOptions:
    """Python tasks as SageMaker Processing jobs.

    Attributes
    ----------
    image
        With the project in it; its entry point is not used.
    role_arn
        Role that the jobs take.
    results_uri
        S3 prefix below which each task puts its result, as ``<run id>/<task id>.json``.
    instance_type, instance_count, volume_gb
        Of each job.
    environment
        Variables of the jobs, such as ``RECSYS_ENV`` and ``RECSYS_BUCKET``.

    Raises
    ------
    ValueError
        If `results_uri` is not in S3.
    """

    image: str
    role_arn: str
    results_uri: str
    instance_type: str = "ml.m5.xlarge"
    instance_count: int = 1
    volume_gb: int = 30
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(_S3_URI, "results_uri", self.results_uri, "s3://bucket/prefix")


@dataclass(frozen=True)
class AirflowOptions:
    """How a graph becomes a DAG.

    Attributes
    ----------
    dag_id
        Also the name of the file.
    schedule
        A cron expression or one of Airflow's presets (``@daily``); None: only when asked to.
    after_asset
        URI of an Airflow asset (a dataset, in Airflow 2) whose updates start the DAG, in place of a
        schedule.
    wait_for
        ``s3://bucket/prefix/*``: the DAG waits, deferred, until an object is there that fits.
    start_date
        From when on it is scheduled.
    max_active_runs
        How many runs may be under way at once; more than one do not disturb each other.
    retries, retry_seconds
        How often a failed task is tried again, and the pause, where its asset does not say so.
    deferrable
        Whether the triggerer waits for remote jobs, in place of a worker.
    print_log
        Whether the log of a training job is copied to its task's.
    check_interval
        Seconds between two looks at a remote job.
    aws_conn_id
        Airflow's connection to AWS.
    region_name
        AWS region of SageMaker's API. The provider's hooks of S3 and CloudWatch Logs, of which the
        SageMaker operators make use, are not told of it: name the region in the connection, or in
        AWS_DEFAULT_REGION, as well. None: only there.
    command
        How the project's program is started on a worker, as a shell takes it; it may be in a Python
        environment of its own.
    python_tasks
        ``command``: Python tasks run the program on Airflow's worker; ``processing``: in a
        SageMaker Processing job.
    processing
        Those jobs; needed for ``processing``.
    command_line
        How the DAG was made, for its header.

    Raises
    ------
    ValueError
        If the options do not fit each other, or one has a value that cannot be.
    """

    dag_id: str = "recsys_assets"
    schedule: str | None = None
    after_asset: str | None = None
    wait_for: str | None = None
    start_date: date = date(2026, 1, 1)
    max_active_runs: int = 1
    retries: int = 1
    retry_seconds: float = 60
    deferrable: bool = False
    print_log: bool = True
    check_interval: int = 30
    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    command: str = "recsys-assets"
    python_tasks: str = "command"
    processing: ProcessingOptions | None = None
    command_line: str = "recsys-assets export airflow"

    def __post_init__(self) -> None:
        _require(_DAG_ID, "dag_id", self.dag_id, "letters, digits, '_', '-' and '.'")
        if self.wait_for is not None:
            _require(_S3_URI, "wait_for", self.wait_for, "s3://bucket/prefix/*")
        if self.schedule is not None and self.after_asset is not None:
            raise ValueError(
                f"expected a schedule or an asset that starts the DAG, got both: "
                f"{self.schedule!r} and {self.after_asset!r}"
            )
        if self.python_tasks not in ("command", "processing"):
            raise ValueError(
                f"python_tasks: expected 'command' or 'processing', got {self.python_tasks!r}"
            )
        if (self.python_tasks == "processing") != (self.processing is not None):
            raise ValueError("python_tasks='processing' and processing options need each other")
        for name in ("max_active_runs", "check_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")


def _require(form: re.Pattern[str], name: str, value: str, expected: str) -> None:
    if not form.fullmatch(value):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
