"""An Airflow of either version, for the tests of exported DAGs."""

from collections.abc import Iterator

import pytest

from recsys_assets_tests.contract.environments import AIRFLOW_2, AIRFLOW_3, NoInterpreterError
from recsys_assets_tests.export.airflow.airflow_process import Airflow
from recsys_assets_tests.sagemaker_local.endpoint import CREDENTIALS


@pytest.fixture(scope="session", params=[AIRFLOW_2, AIRFLOW_3], ids=lambda item: item.name)
def airflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """Return an Airflow that many tests share."""
    try:
        found = Airflow(request.param, tmp_path_factory.mktemp("airflow") / "home", **CREDENTIALS)
    except NoInterpreterError as error:
        pytest.skip(str(error))
    yield found
    found.close()
