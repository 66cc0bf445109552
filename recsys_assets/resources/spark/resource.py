"""The Spark resource: a deployment's settings, and what a job reads and leaves.

What belongs here: where the job's files lie, and making one file of what it has written. What does
not: jobs themselves (``jobs.py``).

A job on AWS reads the ratings where they lie. It writes below the folder of its asset and run,
``<asset>/<run id>/spark/``, from where the step takes what it publishes, and which the step empties
whatever happens. What a run that was killed has left there goes when its version does.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dagster import (
    AssetExecutionContext,
    ConfigurableResource,
    Failure,
    InitResourceContext,
    MetadataValue,
)
from dagster._core.pipes.client import PipesClientCompletedInvocation
from pydantic import Field

from recsys_assets.domain.ratings.parts import join_parts
from recsys_assets.domain.ratings.transformation import FilterReport, FilterRules, NothingLeftError
from recsys_assets.lost_interrupts import lost_interrupts_repeated
from recsys_assets.resources.object_store import ObjectStore, split_uri
from recsys_assets.resources.spark.code import SCRIPT, fingerprint, packed_modules
from recsys_assets.resources.spark.config import (
    EmrServerlessConfig,
    GlueConfig,
    LocalSparkConfig,
)
from recsys_assets.resources.spark.jobs import (
    AwsJob,
    Code,
    EmrServerlessJob,
    GlueJob,
    LocalJob,
)
from recsys_assets.settings import SettingsError
from recsys_assets.settings_files import read_settings_file, settings_of

_CODE = "spark"  # below the platform's prefix
_FILTERED = "filtered"  # as recsys_assets/spark/filter_ratings.py names it
_PLACES = ("emr_serverless", "glue", "local")

Metadata = Mapping[str, MetadataValue]


class Spark(ConfigurableResource[Any]):
    """Filters ratings on Spark, where a deployment has one."""

    store: ObjectStore
    emr_serverless: EmrServerlessConfig | None = Field(
        default=None, description="Run jobs in an application of EMR Serverless."
    )
    glue: GlueConfig | None = Field(default=None, description="Run jobs as runs of a Glue job.")
    local: LocalSparkConfig | None = Field(
        default=None, description="Run jobs on this machine, to try it out."
    )

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Iterator["Spark"]:
        """Be used in a run, which hears of every interrupt: its jobs cost money."""
        with lost_interrupts_repeated():
            yield self

    @property
    def is_configured(self) -> bool:
        """Whether there is a Spark to run on."""
        return any(getattr(self, place) is not None for place in _PLACES)

    def filter_ratings(
        self,
        context: AssetExecutionContext,
        ratings: Sequence[str],
        filtered: Path,
        rules: FilterRules,
    ) -> tuple[FilterReport, Metadata]:
        """Write the ratings that remain after the long-tail filter.

        Parameters
        ----------
        context
            Of the step, whose run and asset the job is for.
        ratings
            ``s3://`` URIs of Parquet files of checked ratings.
        filtered
            Parquet file to write, with the same rows in the same order as
            ``recsys_assets.domain.ratings.filtering.filter_ratings`` writes.
        rules
            What is kept, and how it is split.

        Returns
        -------
        FilterReport
            What the filter met and left.
        Mapping of str to MetadataValue
            Which job it was.

        Raises
        ------
        NothingLeftError
            If no rating remains.
        dagster.Failure
            If the job fails; it says what the service says.
        """
        with TemporaryDirectory(prefix="recsys-") as name:
            folder = Path(name)
            if self.local is not None:
                run = self._run_here(context, self.local, ratings, folder, rules)
            else:
                run = self._run_on_aws(context, ratings, folder, rules)
            report = _report(run)
            parts = sorted((folder / _FILTERED).glob("*.parquet"))
            rows = join_parts(parts, filtered) if parts else 0
        if rows != report.rows_kept:
            raise Failure(
                f"expected {report.rows_kept} rows, as the Spark job has reported, found {rows} "
                f"in {len(parts)} files",
                allow_retries=False,
            )
        return report, run.metadata

    def _run_here(
        self,
        context: AssetExecutionContext,
        config: LocalSparkConfig,
        ratings: Sequence[str],
        folder: Path,
        rules: FilterRules,
    ) -> PipesClientCompletedInvocation:
        """Run a job on copies of the ratings: PySpark alone cannot read S3."""
        fetched = [folder / f"ratings-{number}.parquet" for number in range(len(ratings))]
        for uri, path in zip(ratings, fetched, strict=True):
            self.store.download(uri, path)
        modules = folder / "modules.zip"
        modules.write_bytes(packed_modules())
        return LocalJob(config, folder).run(
            context,
            Code(str(SCRIPT), str(modules)),
            _extras([str(path) for path in fetched], str(folder), rules),
        )

    def _run_on_aws(
        self,
        context: AssetExecutionContext,
        ratings: Sequence[str],
        folder: Path,
        rules: FilterRules,
    ) -> PipesClientCompletedInvocation:
        """Run a job on the ratings themselves, and fetch what it leaves."""
        code = self._uploaded_code()
        asset = "/".join(context.asset_key.path)
        scratch = f"{asset}/{context.run.run_id}/spark/{context.retry_number}"
        uri = self.store.uri(scratch)
        try:
            run = self._aws_job(context, scratch).run(context, code, _extras(ratings, uri, rules))
            (folder / _FILTERED).mkdir()
            for part in self.store.list(f"{uri}/{_FILTERED}/"):
                if part.endswith(".parquet"):
                    self.store.download(part, folder / _FILTERED / part.rpartition("/")[2])
        finally:
            self.store.delete(scratch, [item.name for item in self.store.objects(scratch)])
        return run

    def _aws_job(self, context: AssetExecutionContext, scratch: str) -> AwsJob:
        from recsys_assets.resources.spark.pipes import s3_pipes

        injector, reader = s3_pipes(self.store, scratch)
        asset = "/".join(context.asset_key.path)
        tags = {"recsys:run-id": context.run.run_id, "recsys:asset": asset}
        aws = self.store.aws
        if self.emr_serverless is not None:
            client = aws.client("emr-serverless")
            return EmrServerlessJob(client, injector, reader, tags, self.emr_serverless)
        if self.glue is not None:
            return GlueJob(aws.client("glue"), injector, reader, tags, self.glue)
        raise SettingsError(f"expected one of {', '.join(_PLACES)}, got none")

    def _uploaded_code(self) -> Code:
        """Put a job's files where they lie for everybody who has the same; return where."""
        script, modules = SCRIPT.read_bytes(), packed_modules()
        name = fingerprint(script, modules)
        code = Code(
            self.store.uri(_CODE, name, SCRIPT.name), self.store.uri(_CODE, name, "modules.zip")
        )
        for uri, content in ((code.script, script), (code.modules, modules)):
            bucket, key = split_uri(uri)
            self.store.client.put_object(Bucket=bucket, Key=key, Body=content)
        return code


def configured_spark(path: Path | None, **platform: Any) -> Spark:
    """Make the resource from a file of settings (YAML, its keys are the resource's fields).

    Parameters
    ----------
    path
        The file; None for no Spark.
    platform
        Fields that the platform sets itself, and that the file cannot.

    Raises
    ------
    SettingsError
        If a setting does not exist or does not fit, or the file names none or several places to
        run jobs; the message names file and key.
    """
    if path is None:
        return Spark(**platform)
    content = read_settings_file(path, "RECSYS_SPARK_CONFIG")
    unknown = sorted(map(str, content.keys() - set(_PLACES)))
    if unknown:
        raise SettingsError(
            f"{path}: {', '.join(unknown)}: not known; expected one of {', '.join(_PLACES)}"
        )
    named = [place for place, settings in content.items() if settings is not None]
    if len(named) != 1:
        raise SettingsError(
            f"{path}: expected one of {', '.join(_PLACES)}, got {' and '.join(named) or 'none'}"
        )
    with settings_of(path):
        spark = Spark(**content, **platform)
    if spark.local is None and spark.store.aws.local:
        raise SettingsError(
            f"{path}: {named[0]} is on AWS: expected RECSYS_ENV to be aws, got local"
        )
    return spark


def _extras(ratings: Sequence[str], scratch: str, rules: FilterRules) -> dict[str, Any]:
    return {"ratings": list(ratings), "scratch": scratch, "rules": asdict(rules)}


def _report(run: PipesClientCompletedInvocation) -> FilterReport:
    """Return what a job has told of its result.

    Raises
    ------
    NothingLeftError
        If it has told that nothing is left.
    dagster.Failure
        If it has told nothing.
    """
    for message in run.get_custom_messages():
        if "nothing_left" in message:
            raise NothingLeftError(message["nothing_left"])
        return FilterReport(**message["report"])
    raise Failure("the Spark job has ended without telling what it did", allow_retries=False)
