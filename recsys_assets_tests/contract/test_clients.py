"""Unmodified clients against the local services: each case of each program, and every action."""

import json
import os
import sys
from pathlib import Path

import pytest

from recsys_assets.sagemaker_local.api import ACTIONS
from recsys_assets.sagemaker_local.containers.private_mount import private_mounts_work
from recsys_assets.services.record import Services
from recsys_assets_tests.contract.environments import NoInterpreterError
from recsys_assets_tests.contract.running import CLIENTS, RESULTS, Client, Results, run_client

pytestmark = pytest.mark.xdist_group("contract")

# Read before the tests hide such variables from what they start.
WRITE_RESULTS = bool(os.environ.get("RECSYS_TEST_WRITE_RESULTS"))

BOTO3 = CLIENTS[0]
each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.environment.name)


@pytest.fixture(scope="module")
def boto3_here(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return boto3's results in the project's own environment."""
    return run_client(BOTO3, Path(sys.executable), services, tmp_path_factory.mktemp("client"))


def supported_actions() -> set[tuple[str, str]]:
    found = {(service, action) for service in ACTIONS for action in ACTIONS[service]}
    # The client's processing jobs need a program of their own, see the client programs.
    needing_opt_ml = {(service, action) for service, action in found if "Processing" in action}
    return found if private_mounts_work() else found - needing_opt_ml


def assert_all_is_well(results: Results) -> None:
    failed = {case.case: case.detail for case in results.cases if case.result == "failed"}
    assert failed == {}
    assert results.strange_answers == []
    assert any(case.result == "passed" for case in results.cases)


@pytest.mark.slow
@each_client
def test_an_unmodified_client_does_real_work(
    client: Client, services: Services, tmp_path: Path
) -> None:
    try:
        python = client.environment.python
    except NoInterpreterError as error:
        pytest.skip(str(error))
    results = run_client(client, python, services, tmp_path)
    if WRITE_RESULTS:
        RESULTS.mkdir(exist_ok=True)
        client.results.write_text(results.as_json())
    assert_all_is_well(results)


def test_boto3_as_the_project_has_it_does_real_work(boto3_here: Results) -> None:
    assert_all_is_well(boto3_here)


def test_boto3_has_done_every_action_that_is_supported(boto3_here: Results) -> None:
    done = {(call.service, call.action) for call in boto3_here.calls if call.answered == 200}
    assert supported_actions() - done == set()


def test_boto3_has_been_refused_every_action_that_can_be(boto3_here: Results) -> None:
    refused = {
        (call.service, call.action)
        for call in boto3_here.calls
        if call.answered is not None and 400 <= call.answered < 500
    }
    assert supported_actions() - refused == {("sts", "GetCallerIdentity")}


def test_the_results_that_are_kept_are_of_the_cases_that_boto3_has(boto3_here: Results) -> None:
    kept = json.loads(BOTO3.results.read_text())["cases"]
    assert [case["case"] for case in kept] == [case.case for case in boto3_here.cases]
