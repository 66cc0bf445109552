"""The page on clients says what the results say, and the results are of the pinned versions."""

import ast
import json

import pytest

from recsys_assets_tests.contract.page import PAGE, page
from recsys_assets_tests.contract.running import CLIENTS, PROGRAMS, Client

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


# Boto3's cases are in part made from tables; test_clients compares them.
@pytest.mark.parametrize("client", CLIENTS[1:], ids=lambda client: client.environment.name)
def test_results_are_of_the_cases_that_a_program_has(client: Client) -> None:
    if not client.results.exists():
        pytest.skip("this client has not been run")
    program = ast.parse((PROGRAMS / client.program).read_text())
    titles = [
        decorator.args[0].value
        for node in program.body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and isinstance(decorator.args[0], ast.Constant)
    ]
    kept = json.loads(client.results.read_text())["cases"]
    assert [case["case"] for case in kept] == titles
