"""What a deployment may ask of Spark: EMR Serverless, Glue or this machine.

What belongs here: the groups of settings that the resource has as fields, and their limits. What
does not: what is made of them (``jobs.py``).
"""

from dagster import Config
from pydantic import ConfigDict, Field, field_validator


class _Group(Config):
    """What all places have; a setting that there is not is an error."""

    model_config = ConfigDict(extra="forbid")

    conf: dict[str, str] = Field(
        default={}, description="Spark's own settings, such as spark.sql.shuffle.partitions: '400'."
    )

    @field_validator("conf")
    @classmethod
    def _check_conf(cls, conf: dict[str, str]) -> dict[str, str]:
        for setting in (f"{key}={value}" for key, value in conf.items()):
            if any(character.isspace() for character in setting):
                # AWS takes all of them as one text, which is split at spaces.
                raise ValueError(f"expected no space in a setting of Spark, got {setting!r}")
        return conf


class EmrServerlessConfig(_Group):
    """An application of EMR Serverless, of release 7."""

    application_id: str = Field(description="Of an application of type Spark.")
    execution_role_arn: str = Field(description="Role that the job takes.")
    timeout_minutes: int = Field(default=720, ge=1, description="EMR then stops a job.")


class GlueConfig(_Group):
    """A Spark job of AWS Glue 5.0; which script it names does not matter."""

    job_name: str = Field(description="Of a job that is there.")
    worker_type: str | None = Field(default=None, description="By default the job's own.")
    workers: int | None = Field(
        default=None, ge=2, description="How many; by default the job's own number."
    )
    timeout_minutes: int = Field(default=720, ge=1, description="Glue then stops a job.")


class LocalSparkConfig(_Group):
    """Spark on this machine, to try it out."""

    python: str = Field(description="An interpreter that PySpark 3.5 is installed for.")
