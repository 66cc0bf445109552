"""What the writer of a state machine decides, beyond what the asset graph says.

What belongs here: the options, their defaults and their rules. What does not: what is made of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[\w-]{1,80}", re.ASCII)
_ROLE = re.compile(r"arn:(?P<partition>[\w-]+):iam::(?P<account>\d{12}):role/.+")
_LONGEST_VARIABLE = 256  # characters of a variable of a processing job


@dataclass(frozen=True)
class StepFunctionsOptions:
    """How a graph becomes a state machine.

    Attributes
    ----------
    image
        Of the processing jobs that run Python tasks, with the project and a shell in it; its entry
        point is not used.
    role_arn
        Role that jobs and models take.
    bucket, prefix
        Where the platform's objects lie. Results of tasks are put below ``<prefix>/tasks/``.
    region
        AWS region.
    name
        Of the state machine and of the files.
    polling
        Whether to create jobs and look at them again and again, for interpreters of the language
        that lack ``.sync``; by default Step Functions itself waits for the end of a job.
    poll_seconds
        Between two looks: at an endpoint, and with `polling` at jobs.
    instance_type, volume_gb, max_runtime_seconds
        Of each processing job.
    environment
        Variables of processing jobs, beside ``RECSYS_ENV``, ``RECSYS_BUCKET``, ``RECSYS_PREFIX``,
        ``RECSYS_REGION`` and ``RECSYS_ROLE_ARN``.

    Raises
    ------
    ValueError
        If an option has a value that cannot be.
    """

    image: str
    role_arn: str
    bucket: str
    region: str
    prefix: str = ""
    name: str = "recsys_assets"
    polling: bool = False
    poll_seconds: int = 30
    instance_type: str = "ml.m5.xlarge"
    volume_gb: int = 30
    max_runtime_seconds: int = 86_400
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name: expected at most 80 letters, digits, '_' and '-', got {self.name!r}"
            )
        if not _ROLE.fullmatch(self.role_arn):
            raise ValueError(
                f"role_arn: expected arn:aws:iam::<account>:role/<name>, got {self.role_arn!r}"
            )
        for name in ("image", "bucket", "region"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a value, got nothing")
        for name in ("poll_seconds", "volume_gb", "max_runtime_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        for name, value in self.environment.items():
            if len(value) > _LONGEST_VARIABLE:
                raise ValueError(
                    f"environment: {name} has {len(value)} characters, and SageMaker takes at most "
                    f"{_LONGEST_VARIABLE}"
                )

    @property
    def variables(self) -> dict[str, str]:
        """All variables of a processing job."""
        return {
            "RECSYS_ENV": "aws",
            "RECSYS_BUCKET": self.bucket,
            "RECSYS_PREFIX": self.prefix.strip("/"),
            "RECSYS_REGION": self.region,
            "RECSYS_ROLE_ARN": self.role_arn,
            **self.environment,
        }

    @property
    def tasks_key(self) -> str:
        """Key below which each run's folder of results lies."""
        return "/".join(filter(None, (self.prefix.strip("/"), "tasks")))

    @property
    def partition(self) -> str:
        """AWS partition, as of the role."""
        return self.role_arn.split(":")[1]

    @property
    def account(self) -> str:
        """AWS account, as of the role."""
        return self.role_arn.split(":")[4]
