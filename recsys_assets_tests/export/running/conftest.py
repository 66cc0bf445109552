"""Airflow homes and exported DAGs, on the local services of the test process."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from recsys_assets.services.record import Services
from recsys_assets.settings import Settings
from recsys_assets_tests.contract.environments import (
    AIRFLOW_2,
    AIRFLOW_3,
    Environment,
    NoInterpreterError,
)
from recsys_assets_tests.export.running.airflow_home import Airflow
from recsys_assets_tests.main_job.command import exported, recsys_assets
from recsys_assets_tests.proxy import Proxy

QUICK = ("--check-interval", "1", "--no-logs")  # jobs take seconds here


@pytest.fixture(scope="session", params=[AIRFLOW_2, AIRFLOW_3], ids=lambda item: item.name)
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of each Airflow."""
    environment: Environment = request.param
    try:
        return environment.python
    except NoInterpreterError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def database(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, of which each home gets a copy."""
    return Airflow(python, tmp_path_factory.mktemp("airflow") / "home", {}).database


@pytest.fixture(scope="session")
def variables(settings: Settings, services: Services) -> Mapping[str, str]:
    """What a deployment of Airflow on the local services has in its environment."""
    return {
        **exported(services),
        "RECSYS_ENV": "local",
        "RECSYS_STATE": str(settings.state),
    }


@pytest.fixture(scope="module")
def sagemaker_calls(services: Services) -> Iterator[Proxy]:
    """A proxy that sees what Airflow's own operators ask of SageMaker."""
    with Proxy(services.sagemaker_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def airflow(
    python: Path,
    database: Path,
    variables: Mapping[str, str],
    sagemaker_calls: Proxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Airflow:
    """An Airflow that the tests of a module share."""
    seen = {"AWS_ENDPOINT_URL_SAGEMAKER": sagemaker_calls.url}
    home = tmp_path_factory.mktemp(python.parents[1].name) / "home"
    return Airflow(python, home, {**variables, **seen}, database)


@pytest.fixture(scope="module")
def export(airflow: Airflow, variables: Mapping[str, str]) -> Callable[..., Path]:
    """Export our graph into the DAGs of this Airflow, quick for tests; return the DAG's file."""

    def export(dag_id: str, *options: str) -> Path:
        done = recsys_assets(
            *("export", "airflow", "--out", airflow.dags, "--dag-id", dag_id, *QUICK, *options),
            **variables,
        )
        assert done.returncode == 0, done.stderr
        return airflow.dags / f"{dag_id}.py"

    return export
