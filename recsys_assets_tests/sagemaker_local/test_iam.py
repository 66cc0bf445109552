"""Roles, as clients look them up before they pass them on."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from recsys_assets_tests.sagemaker_local.endpoint import ROLE, Endpoint, aws_client


@pytest.fixture(scope="module")
def iam(endpoint: Endpoint) -> Any:
    return aws_client("iam", endpoint.url)


def test_a_role_trusts_sagemaker(iam: Any) -> None:
    role = iam.get_role(RoleName="sagemaker")["Role"]
    assert role["Arn"] == ROLE
    assert role["RoleName"] == "sagemaker"
    assert role["RoleId"].startswith("AROA")
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")


def test_every_action_is_allowed_to_it(iam: Any) -> None:
    pages = list(
        iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=ROLE,
            ActionNames=["s3:GetObject", "s3:PutObject"],
            ResourceArns=["arn:aws:s3:::a/*", "arn:aws:s3:::b/*"],
            PaginationConfig={"PageSize": 3},
        )
    )
    assert [page["IsTruncated"] for page in pages] == [True, False]
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert [(result["EvalActionName"], result["EvalResourceName"][-3]) for result in results] == [
        ("s3:GetObject", "a"),
        ("s3:GetObject", "b"),
        ("s3:PutObject", "a"),
        ("s3:PutObject", "b"),
    ]
    assert {result["EvalDecision"] for result in results} == {"allowed"}
    anywhere = iam.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["s3:GetObject"])
    assert anywhere["EvaluationResults"][0]["EvalResourceName"] == "*"


def test_a_role_that_the_account_does_not_have_is_not_found(iam: Any) -> None:
    with pytest.raises(iam.exceptions.NoSuchEntityException, match="name absent cannot be found"):
        iam.get_role(RoleName="absent")
    for arn in (f"{ROLE}-absent", ROLE.replace("123456789012", "210987654321")):
        with pytest.raises(iam.exceptions.NoSuchEntityException) as caught:
            iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=["s3:GetObject"])
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"PolicyInputList": ["{}"]}, "does not support PolicyInputList"),
        ({"Marker": "x"}, "Invalid Marker 'x'"),
    ],
)
def test_a_simulation_that_cannot_be_done_is_refused(
    iam: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        iam.simulate_principal_policy(
            PolicySourceArn=ROLE, ActionNames=["s3:GetObject"], **arguments
        )


def test_the_roles_are_told_at_the_start(own_endpoint: Endpoint) -> None:
    own_endpoint.options += ["--role=first", "--role=second"]
    own_endpoint.start()
    client = aws_client("iam", own_endpoint.url)
    assert client.get_role(RoleName="second")["Role"]["Arn"].endswith(":role/second")
    with pytest.raises(client.exceptions.NoSuchEntityException):
        client.get_role(RoleName="sagemaker")
