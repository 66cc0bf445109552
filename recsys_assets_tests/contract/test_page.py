"""The page on clients says what the results say, and the results are of the pinned versions."""

import json

import pytest

from recsys_assets_tests.contract.page import PAGE, page
from recsys_assets_tests.contract.running import CLIENTS, Client

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.environment.name)


def test_the_page_is_what_the_results_make_of_it() -> None:
    assert PAGE.read_text() == page()


@each_client
def test_results_are_of_the_versions_that_are_pinned(client: Client) -> None:
    if not client.results.exists():
        pytest.skip("this client has not been run")
    versions = json.loads(client.results.read_text())["versions"]
    pinned = dict(requirement.split("==") for requirement in client.environment.requirements)
    for requirement, version in pinned.items():
        assert versions[requirement.partition("[")[0]] == version
