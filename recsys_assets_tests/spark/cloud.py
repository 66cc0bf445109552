"""EMR Serverless and Glue, as far as clients of boto3 can tell.

What belongs here: answering requests with what a test has written down, doing a job's work when one
is started, and the platform as a deployment on AWS has it. What does not: what is expected of it.
botocore checks every request, and every answer, against its model of the service.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from botocore.stub import Stubber
from dagster import DagsterInstance, ExecuteInProcessResult, materialize
from dagster._core.pipes import utils
from dagster_aws.pipes.clients import emr_serverless, glue
from dagster_pipes import (
    PipesContext,
    PipesMappingParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
)

from recsys_assets.assets.ratings import filtered_ratings, raw_ratings
from recsys_assets.definitions import build_resources
from recsys_assets.domain.ratings.filtering import filter_ratings
from recsys_assets.domain.ratings.transformation import FilterRules, NothingLeftError
from recsys_assets.io_managers import ParquetFolder, ParquetIOManager, RawRatingsIOManager
from recsys_assets.resources.aws import AwsClients
from recsys_assets.resources.object_store import ObjectStore, split_uri
from recsys_assets.settings import Settings

Parameters = Mapping[str, Any]


@dataclass
class Cloud:
    """A service of AWS in the place of which a test answers.

    Attributes
    ----------
    answers
        What is answered, in order: operation (as boto3's method) and answer, or the code of an
        error.
    work
        What a job does when it is started, given the request.
    requests
        What has been asked, with the parameters.
    """

    answers: list[tuple[str, dict[str, Any] | str]]
    work: Callable[[Parameters], None] = lambda request: None
    requests: list[tuple[str, Parameters]] = field(default_factory=list)

    def put_in_place_of(self, client: Any) -> None:
        """Answer for a client's service."""
        stubber = Stubber(client)
        for operation, answer in self.answers:
            if isinstance(answer, str):
                stubber.add_client_error(operation, answer, "told by the service")
            else:
                stubber.add_response(operation, answer)
        client.meta.events.register("provide-client-params.*.*", self._ask)
        stubber.activate()

    def _ask(self, params: Parameters, model: Any, **_: Any) -> None:
        self.requests.append((model.name, dict(params)))
        if model.name == "StartJobRun":
            self.work(params)

    @property
    def operations(self) -> list[str]:
        """What has been asked, in order."""
        return [name for name, _ in self.requests]


@dataclass
class Deployment:
    """The platform with a prefix of its own, whose Spark is on AWS and whose S3 is here.

    Attributes
    ----------
    settings
        As on AWS.
    here
        Resources of the same prefix, without AWS.
    """

    settings: Settings
    here: Mapping[str, Any]

    @property
    def store(self) -> ObjectStore:
        store: ObjectStore = self.here["store"]
        return store

    def run(
        self, cloud: Cloud, sleep: Callable[[float], None] = lambda _: None, **config: Any
    ) -> ExecuteInProcessResult:
        """Materialize filtered_ratings of the ratings that are there.

        Between two looks at a job, `sleep` is called.
        """

        def client(_: AwsClients, service: str, patience_seconds: float | None = None) -> Any:
            if service == "s3":
                return s3
            made = original(aws, service, patience_seconds)
            cloud.put_in_place_of(made)
            return made

        original, aws = AwsClients.client, AwsClients(local=False, region_name="eu-west-1")
        s3 = self.store.client
        with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
            patch.setattr(AwsClients, "client", client)
            for module in (emr_serverless, glue):  # looks follow one another at once
                patch.setattr(module, "time", SimpleNamespace(sleep=sleep, time=lambda: 0))
            patch.setattr(utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)
            patch.setattr(utils, "DEFAULT_SLEEP_INTERVAL", 0.05)
            return materialize(
                [raw_ratings, filtered_ratings],
                selection=[filtered_ratings],
                resources=build_resources(self.settings),
                run_config={"ops": {"filtered_ratings": {"config": config}}},
                instance=instance,
                raise_on_error=False,
            )

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the current filtered ratings, in their order."""
        manager: ParquetIOManager = self.here["parquet_io_manager"]
        tables = manager.load(self.store.require("filtered_ratings"), ParquetFolder)
        return duckdb.read_parquet(str(tables.main)).fetchall()

    def rows_without_spark(self) -> list[tuple[Any, ...]]:
        """Return what DuckDB makes of the same ratings."""
        manager: RawRatingsIOManager = self.here["raw_ratings_io_manager"]
        ratings, filtered = manager.fetch(self.store.require("raw_ratings")), ParquetFolder()
        filter_ratings(ratings.main, filtered.main, FilterRules())
        return duckdb.read_parquet(str(filtered.main)).fetchall()

    def objects(self, asset: str) -> list[str]:
        """Return the names of what is stored for an asset, without the runs' ids."""
        return sorted(item.name.partition("/")[2] for item in self.store.objects(asset))


def pipes(parameters: Mapping[str, str], s3: Any) -> PipesContext:
    """Open Dagster's own library for the side of the job."""
    loader = PipesMappingParamsLoader(parameters)
    return PipesContext(loader, PipesS3ContextLoader(s3), PipesS3MessageWriter(s3))


def filter_in_two_parts(session: PipesContext, s3: Any) -> None:
    """Do what the script does, with DuckDB in the place of Spark."""
    with session, TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for number, uri in enumerate(session.extras["ratings"]):
            bucket, key = split_uri(uri)
            s3.download_file(bucket, key, str(folder / "in" / f"{number}.parquet"))
        rules = FilterRules(**session.extras["rules"])
        try:
            report = filter_ratings(folder / "in" / "*.parquet", folder / "out.parquet", rules)
        except NothingLeftError as error:
            session.report_custom_message({"nothing_left": str(error)})
            return
        rows = duckdb.read_parquet(str(folder / "out.parquet"))
        half = report.rows_kept // 2
        rows.limit(half).write_parquet(str(folder / "part-00000-x.snappy.parquet"))
        rows.limit(report.rows_kept, offset=half).write_parquet(
            str(folder / "part-00001-x.snappy.parquet")
        )
        (folder / "_SUCCESS").touch()
        bucket, key = split_uri(session.extras["scratch"])
        for path in (*folder.glob("part-*"), folder / "_SUCCESS"):
            s3.upload_file(str(path), bucket, f"{key}/filtered/{path.name}")
        s3.put_object(Bucket=bucket, Key=f"{key}/tables/rated/part-00000-x.parquet", Body=b"x")
        session.report_custom_message({"report": json.loads(json.dumps(vars(report)))})
