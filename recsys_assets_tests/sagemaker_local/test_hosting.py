"""Endpoints: their programs, what they answer and how one fleet takes over from another."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, STAND_IN, Endpoint, eventually


def delete(endpoint: Endpoint, name: str) -> None:
    endpoint.settled_endpoint(name)
    endpoint.sagemaker.delete_endpoint(EndpointName=name)
    endpoint.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=name, WaiterConfig={"Delay": 1}
    )


def messages(endpoint: Endpoint, name: str, *words: str) -> list[str]:
    """Return the log of an endpoint's instances: the messages with all of these words."""
    events = endpoint.logs.filter_log_events(
        logGroupName=f"/aws/sagemaker/Endpoints/{name}", filterPattern=" ".join(words)
    )["events"]
    return [event["message"] for event in events]


def requests(endpoint: Endpoint, name: str) -> list[str]:
    return messages(endpoint, name, "payload", "bytes")


@pytest.fixture(scope="module")
def one(endpoint: Endpoint) -> Iterator[str]:
    """Return the name of an endpoint with one model, which no test changes."""
    endpoint.create_model("one", MODE="tell", NAME="one")
    endpoint.host("one", {"ModelName": "one"})
    endpoint.settled_endpoint("one")
    yield "one"
    delete(endpoint, "one")


def test_an_endpoint_lives_from_creating_to_deleted(endpoint: Endpoint, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    endpoint.create_model("life", MODE="tell", LOADED=str(gate))
    endpoint.create_endpoint_config("life", {"ModelName": "life", "VariantName": "blue"})
    created = endpoint.sagemaker.create_endpoint(EndpointName="life", EndpointConfigName="life")
    assert created["EndpointArn"] == "arn:aws:sagemaker:us-east-1:123456789012:endpoint/life"

    creating = endpoint.hosted("life")
    assert creating["EndpointStatus"] == "Creating"
    assert creating["EndpointConfigName"] == "life"
    (pending,) = creating["PendingDeploymentSummary"]["ProductionVariants"]
    assert (pending["VariantName"], pending["InstanceType"]) == ("blue", "ml.m5.large")
    with pytest.raises(
        ClientError, match=r"ValidationError.*Endpoint life of account .* not found"
    ):
        endpoint.invoke("life")
    with pytest.raises(ClientError, match=r"ValidationException.*Cannot update in-progress"):
        endpoint.sagemaker.delete_endpoint(EndpointName="life")

    gate.touch()
    endpoint.sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName="life", WaiterConfig={"Delay": 1}
    )
    description = endpoint.hosted("life")
    assert "PendingDeploymentSummary" not in description
    (variant,) = description["ProductionVariants"]
    assert variant["DeployedImages"][0]["SpecifiedImage"] == STAND_IN
    counts = ("CurrentInstanceCount", "DesiredInstanceCount", "CurrentWeight", "DesiredWeight")
    assert [variant[member] for member in counts] == [1, 1, 1.0, 1.0]
    pid = endpoint.tell("life")["pid"]

    delete(endpoint, "life")
    assert not psutil.pid_exists(pid)
    with pytest.raises(ClientError, match=r"ValidationException.*Could not find endpoint \"arn:"):
        endpoint.hosted("life")
    with pytest.raises(ClientError, match="not found"):
        endpoint.invoke("life")
    assert not list(endpoint.state.glob("jobs/endpoint/life/*"))


def test_a_request_and_its_answer_keep_their_headers(endpoint: Endpoint, one: str) -> None:
    response = endpoint.invoke(
        one, Accept="application/jsonlines", CustomAttributes="trace=7", InferenceId="id-1"
    )
    assert response["InvokedProductionVariant"] == "AllTraffic"
    assert response["ContentType"] == "application/json"
    assert response["CustomAttributes"] == "told=1"
    headers = json.loads(response["Body"].read())["headers"]
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "application/jsonlines"
    assert headers["x-amzn-sagemaker-custom-attributes"] == "trace=7"
    assert not {"authorization", "x-amz-date"} & headers.keys()


def test_an_error_of_the_model_is_told_with_its_status(endpoint: Endpoint, one: str) -> None:
    for status, fault in ((400, "client"), (503, "server")):
        with pytest.raises(endpoint.runtime.exceptions.ModelError) as caught:
            endpoint.tell(one, {"status": status})
        response = caught.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert response["OriginalStatusCode"] == status
        assert json.loads(response["OriginalMessage"])["name"] == "one"
        message = response["Error"]["Message"]
        assert message.startswith(f'Received {fault} error ({status}) from primary with message "')


def test_a_payload_may_have_six_megabytes_in_either_direction(endpoint: Endpoint, one: str) -> None:
    most = 6 << 20
    blank = b"{}".ljust(most)
    assert endpoint.invoke(one, Body=blank)["Body"].read()
    with pytest.raises(ClientError) as caught:
        endpoint.invoke(one, Body=blank + b" ")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413

    big = endpoint.invoke(one, Body=json.dumps({"size": most}).encode())["Body"].read()
    assert len(big) == most
    with pytest.raises(endpoint.runtime.exceptions.ModelError, match="6,291,457 bytes"):
        endpoint.tell(one, {"size": most + 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"TargetModel": "m"}, "does not support TargetModel"),
        ({"TargetContainerHostname": "h"}, "does not support TargetContainerHostname"),
        ({"EnableExplanations": "`true`"}, "does not support EnableExplanations"),
        ({"InferenceComponentName": "c"}, "does not support InferenceComponentName"),
        ({"SessionId": "NEW_SESSION"}, "does not support SessionId"),
        ({"TargetVariant": "absent"}, "Variant absent not found"),
    ],
)
def test_what_an_invocation_cannot_have_is_refused(
    endpoint: Endpoint, one: str, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(ClientError, match=f"ValidationError.*{message}"):
        endpoint.invoke(one, **arguments)


def test_other_ways_to_invoke_are_refused_by_name(endpoint: Endpoint, one: str) -> None:
    with pytest.raises(ClientError, match="not support sagemaker-runtime:InvokeEndpointAsync"):
        endpoint.runtime.invoke_endpoint_async(EndpointName=one, InputLocation="s3://b/k")
    with pytest.raises(ClientError, match="InvokeEndpointWithResponseStream"):
        endpoint.runtime.invoke_endpoint_with_response_stream(EndpointName=one, Body=b"")


def test_what_the_program_says_is_in_the_log_of_its_instance(endpoint: Endpoint, one: str) -> None:
    (stream,) = endpoint.logs.describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/one")[
        "logStreams"
    ]
    variant, instance = stream["logStreamName"].split("/")
    assert (variant, instance[:2], len(instance)) == ("AllTraffic", "i-", 19)
    events = endpoint.logs.get_log_events(
        logGroupName="/aws/sagemaker/Endpoints/one",
        logStreamName=stream["logStreamName"],
        startFromHead=True,
    )["events"]
    assert events[0]["message"] == "loaded ['weights.json']"


def test_traffic_is_shared_by_weight_and_shares_can_be_changed(endpoint: Endpoint) -> None:
    for name in ("a", "b"):
        endpoint.create_model(f"share-{name}", MODE="tell", NAME=name)
    endpoint.host(
        "share",
        {"VariantName": "a", "ModelName": "share-a", "InitialVariantWeight": 3},
        {"VariantName": "b", "ModelName": "share-b", "InitialVariantWeight": 1},
    )
    endpoint.settled_endpoint("share")
    assert Counter(endpoint.tell("share")["name"] for _ in range(8)) == {"a": 6, "b": 2}
    response = endpoint.invoke("share", TargetVariant="b")
    assert response["InvokedProductionVariant"] == "b"
    assert json.loads(response["Body"].read())["name"] == "b"

    pids = {name: endpoint.tell("share", TargetVariant=name)["pid"] for name in ("a", "b")}
    endpoint.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="share",
        DesiredWeightsAndCapacities=[
            {"VariantName": "a", "DesiredWeight": 0},
            {"VariantName": "b", "DesiredWeight": 1, "DesiredInstanceCount": 2},
        ],
    )
    a, b = endpoint.settled_endpoint("share")["ProductionVariants"]
    assert (a["CurrentWeight"], b["CurrentWeight"], b["CurrentInstanceCount"]) == (0, 1, 2)
    told = [endpoint.tell("share") for _ in range(8)]
    assert {answer["name"] for answer in told} == {"b"}
    assert sorted(Counter(answer["pid"] for answer in told).values()) == [4, 4]
    assert pids["b"] in {answer["pid"] for answer in told}, "the first instance has stayed"
    assert endpoint.tell("share", TargetVariant="a")["pid"] == pids["a"]

    endpoint.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="share",
        DesiredWeightsAndCapacities=[{"VariantName": "b", "DesiredInstanceCount": 1}],
    )
    endpoint.settled_endpoint("share")
    assert {endpoint.tell("share")["pid"] for _ in range(4)} == {pids["b"]}
    delete(endpoint, "share")


def test_the_old_fleet_answers_until_the_new_one_is_in_service(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    loaded, answer = tmp_path / "loaded", tmp_path / "answer"
    endpoint.create_model("old", MODE="tell", NAME="old")
    endpoint.create_model("new", MODE="tell", NAME="new", LOADED=str(loaded))
    endpoint.host("moving", {"ModelName": "old"})
    endpoint.settled_endpoint("moving")
    endpoint.create_endpoint_config("moving-2", {"ModelName": "new"})
    endpoint.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName="moving-2")

    updating = endpoint.hosted("moving")
    assert updating["EndpointStatus"] == "Updating"
    assert updating["EndpointConfigName"] == "moving"
    assert updating["PendingDeploymentSummary"]["EndpointConfigName"] == "moving-2"
    old = endpoint.tell("moving")
    assert old["name"] == "old"
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        endpoint.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName="moving")

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(endpoint.tell, "moving", {"until": str(answer)})
        # The old instance has this request; only then the new one gets ready.
        eventually(lambda: len(requests(endpoint, "moving")) == 2)
        loaded.touch()
        assert endpoint.settled_endpoint("moving")["EndpointConfigName"] == "moving-2"
        assert endpoint.tell("moving")["name"] == "new"
        assert psutil.pid_exists(old["pid"]), "it still has a request to answer"
        answer.touch()
        assert late.result()["name"] == "old"
    eventually(lambda: not psutil.pid_exists(old["pid"]))
    delete(endpoint, "moving")


def test_no_request_is_lost_while_fleets_change(endpoint: Endpoint) -> None:
    for name in ("red", "green"):
        endpoint.create_model(name, MODE="tell", NAME=name)
        endpoint.create_endpoint_config(
            f"busy-{name}", {"ModelName": name, "InitialInstanceCount": 2}
        )
    endpoint.sagemaker.create_endpoint(EndpointName="busy", EndpointConfigName="busy-red")
    endpoint.settled_endpoint("busy")
    done = threading.Event()

    def ask() -> Counter[str]:
        told: Counter[str] = Counter()
        while not done.is_set():
            told[endpoint.tell("busy")["name"]] += 1  # raises whatever goes wrong
        return told

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            for config in ("busy-green", "busy-red", "busy-green"):
                endpoint.sagemaker.update_endpoint(EndpointName="busy", EndpointConfigName=config)
                assert endpoint.settled_endpoint("busy")["EndpointConfigName"] == config
                endpoint.sagemaker.update_endpoint_weights_and_capacities(
                    EndpointName="busy",
                    DesiredWeightsAndCapacities=[
                        {"VariantName": "AllTraffic", "DesiredInstanceCount": 1}
                    ],
                )
                endpoint.settled_endpoint("busy")
        finally:
            done.set()
        told = sum((client.result() for client in clients), Counter())
    assert told.keys() == {"red", "green"}
    delete(endpoint, "busy")


def test_an_update_that_fails_leaves_the_old_fleet(endpoint: Endpoint) -> None:
    endpoint.create_model("good", MODE="tell", NAME="good")
    endpoint.create_model("bad", MODE="crash")
    endpoint.host("kept", {"ModelName": "good"})
    endpoint.settled_endpoint("kept")
    pid = endpoint.tell("kept")["pid"]
    endpoint.create_endpoint_config(
        "kept-2", {"ModelName": "good"}, {"VariantName": "bad", "ModelName": "bad"}
    )
    endpoint.sagemaker.update_endpoint(EndpointName="kept", EndpointConfigName="kept-2")
    description = endpoint.settled_endpoint("kept")
    assert description["EndpointStatus"] == "InService"
    assert description["EndpointConfigName"] == "kept"
    assert description["FailureReason"] == (
        "The primary container for production variant bad did not pass the ping health check."
        " The model's container ended, exit code: 3."
        " Please check CloudWatch logs for this endpoint."
    )
    assert endpoint.tell("kept")["pid"] == pid

    endpoint.create_endpoint_config("kept-3", {"ModelName": "good"})
    endpoint.sagemaker.update_endpoint(EndpointName="kept", EndpointConfigName="kept-3")
    description = endpoint.settled_endpoint("kept")
    assert description["EndpointConfigName"] == "kept-3"
    assert "FailureReason" not in description
    delete(endpoint, "kept")


def test_an_endpoint_that_cannot_start_has_failed(endpoint: Endpoint) -> None:
    endpoint.create_model("crashing", MODE="crash")
    endpoint.sagemaker.create_model(
        ModelName="artless",
        PrimaryContainer={"Image": STAND_IN, "ModelDataUrl": f"s3://{BUCKET}/absent.tar.gz"},
    )
    for model, reason in (
        ("crashing", "did not pass the ping health check"),
        ("artless", f"Failed to download model data: s3://{BUCKET}/absent.tar.gz: "),
    ):
        endpoint.host(f"failed-{model}", {"ModelName": model})
        description = endpoint.settled_endpoint(f"failed-{model}")
        assert description["EndpointStatus"] == "Failed"
        assert reason in description["FailureReason"]
        with pytest.raises(ClientError, match="Cannot update failed endpoint"):
            endpoint.sagemaker.update_endpoint(
                EndpointName=f"failed-{model}", EndpointConfigName=f"failed-{model}"
            )
        delete(endpoint, f"failed-{model}")


def test_a_program_that_ends_is_started_again(endpoint: Endpoint) -> None:
    endpoint.create_model("mortal", MODE="tell")
    endpoint.host("mortal", {"ModelName": "mortal"})
    endpoint.settled_endpoint("mortal")
    first = endpoint.tell("mortal")["pid"]
    with pytest.raises(endpoint.runtime.exceptions.ModelError, match="gave no answer") as caught:
        endpoint.tell("mortal", {"exit": 7})
    assert caught.value.response["OriginalStatusCode"] == 0

    def answers() -> int:
        try:
            pid: int = endpoint.tell("mortal")["pid"]
        except (
            endpoint.runtime.exceptions.ServiceUnavailable,
            endpoint.runtime.exceptions.ModelError,
        ):
            return 0
        return pid

    assert eventually(answers) != first
    assert endpoint.hosted("mortal")["EndpointStatus"] == "InService"
    assert messages(endpoint, "mortal", "ended") == [
        "[sagemaker logs]: The model's container ended, exit code: 7."
    ]
    delete(endpoint, "mortal")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_endpoints_come_back_after_the_end_of_the_process(
    own_endpoint: Endpoint, tmp_path: Path, number: signal.Signals
) -> None:
    own_endpoint.start()
    gate = tmp_path / "gate"
    own_endpoint.create_model("back", MODE="tell", NAME="back")
    own_endpoint.create_model("later", MODE="tell", NAME="later", LOADED=str(gate))
    own_endpoint.host("back", {"ModelName": "back"}, {"VariantName": "v2", "ModelName": "back"})
    own_endpoint.host("moving", {"ModelName": "back"})
    own_endpoint.settled_endpoint("back")
    own_endpoint.settled_endpoint("moving")
    own_endpoint.create_endpoint_config("moving-2", {"ModelName": "later"})
    own_endpoint.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName="moving-2")
    own_endpoint.host("waiting", {"ModelName": "later"})
    # What an endpoint is made of may go while it serves.
    own_endpoint.sagemaker.delete_endpoint_config(EndpointConfigName="back")
    own_endpoint.sagemaker.delete_model(ModelName="back")
    pids = {own_endpoint.tell("back")["pid"] for _ in range(2)}
    assert len(pids) == 2
    own_endpoint.signal(number)
    for pid in pids:
        eventually(lambda pid=pid: not psutil.pid_exists(pid))

    own_endpoint.start()
    assert own_endpoint.hosted("waiting")["EndpointStatus"] == "Creating"
    assert own_endpoint.settled_endpoint("back")["EndpointConfigName"] == "back"
    assert len({own_endpoint.tell("back")["pid"] for _ in range(2)} - pids) == 2
    assert own_endpoint.hosted("moving")["EndpointStatus"] == "Updating"

    def old_fleet_answers() -> bool:
        try:
            return own_endpoint.tell("moving")["name"] == "back"
        except own_endpoint.runtime.exceptions.ServiceUnavailable:
            return False

    eventually(old_fleet_answers)
    gate.touch()
    for name in ("waiting", "moving"):
        assert own_endpoint.settled_endpoint(name)["EndpointStatus"] == "InService"
        assert own_endpoint.tell(name)["name"] == "later"


def test_endpoints_do_not_keep_jobs_waiting(own_endpoint: Endpoint) -> None:
    own_endpoint.start()  # with room for two jobs
    own_endpoint.create_model("steady", MODE="tell")
    own_endpoint.host("steady", {"ModelName": "steady", "InitialInstanceCount": 3})
    own_endpoint.settled_endpoint("steady")
    own_endpoint.train("beside")
    assert own_endpoint.ended_training_job("beside")["TrainingJobStatus"] == "Completed"
