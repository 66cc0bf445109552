"""Remote work of exported DAGs in real Airflows: nothing is started twice."""

from collections.abc import Iterator
from typing import Any

import pytest

from recsys_assets.export.graph import Graph
from recsys_assets_tests.export.airflow import graphs
from recsys_assets_tests.export.airflow.airflow_process import Airflow
from recsys_assets_tests.proxy import Proxy, drop_after
from recsys_assets_tests.sagemaker_local.endpoint import Endpoint, eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("airflow")]

SUCCESS = {"start": ["success"], "trained": ["success"]}


def job_of(answer: Any) -> dict[str, Any]:
    """Return the description of the training job that a run's result holds."""
    (description,) = answer["results"]["trained"].values()
    return {key: value for key, value in description.items() if key != "ResponseMetadata"}


class Place:
    """A graph's DAG in an Airflow whose calls to SageMaker are seen."""

    def __init__(self, airflow: Airflow, proxy: Proxy, graph: Graph, dag_id: str, **options: Any):
        self.airflow, self.proxy = airflow, proxy
        # Airflows share the endpoint, and runs of one DAG are one run, whoever does them.
        own = f"{dag_id}_{airflow.home.parent.name}"
        self.dag = airflow.write(graphs.exported(graph, own, **options))

    def run(self, **given: Any) -> Any:
        return self.airflow.run(self.dag, **given, **self.proxy.environment())

    def start(self, **given: Any) -> None:
        self.airflow.start(self.dag, **given, **self.proxy.environment())

    def calls(self, *verbs: str) -> list[str]:
        """Return which things were created or updated, as SageMaker was asked to."""
        return [
            call.action
            for call in self.proxy.calls
            if call.service == "sagemaker" and call.action.startswith(verbs or ("Create", "Update"))
        ]

    def names(self, action: str, member: str) -> list[str]:
        return [call.content[member] for call in self.proxy.calls if call.action == action]


@pytest.fixture(scope="session")
def stored(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint, with what jobs read."""
    endpoint.put("exported/input/lines", b"{}\n{}\n")
    endpoint.create_model("exported")
    return endpoint


@pytest.fixture
def watched(stored: Endpoint, object_store: str) -> Iterator[Proxy]:
    with Proxy(stored.url, s3=object_store) as proxy:
        yield proxy


@pytest.fixture(params=[False, True], ids=["sync", "deferrable"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_job_is_started_once_for_a_run_and_again_for_another(
    airflow: Airflow, watched: Proxy, deferrable: bool
) -> None:
    place = Place(airflow, watched, graphs.training(), f"once_{deferrable}", deferrable=deferrable)
    first = place.run()
    assert first["states"] == SUCCESS, airflow.log()[-5000:]
    assert job_of(first)["TrainingJobStatus"] == "Completed"
    assert place.calls() == ["CreateTrainingJob"]
    again = place.run()  # as a cleared task is done again
    assert job_of(again) == job_of(first)
    assert place.calls() == ["CreateTrainingJob"]
    assert place.run(date="2026-02-04T00:00:00+00:00")["states"] == SUCCESS
    assert len(set(place.names("CreateTrainingJob", "TrainingJobName"))) == 2


@pytest.mark.parametrize("print_log", [False, True], ids=["no log", "log"])
def test_a_task_whose_worker_was_killed_goes_on_with_its_job(
    airflow: Airflow, watched: Proxy, deferrable: bool, print_log: bool
) -> None:
    dag_id = f"killed_{deferrable}_{print_log}"
    options = {"deferrable": deferrable, "print_log": print_log}
    place = Place(airflow, watched, graphs.training(), dag_id, **options)
    conf = {"seconds": 20}
    place.start(conf=conf)
    eventually(lambda: any(call.answered for call in watched.calls if "Create" in call.action))
    airflow.kill()
    before = len(watched.calls)
    assert place.run(conf=conf)["states"] == SUCCESS, airflow.log()[-5000:]
    assert place.calls() == ["CreateTrainingJob"]
    described = [c for c in watched.calls[before:] if c.action == "DescribeTrainingJob"]
    assert len(described) > 2  # it was still at work


def test_a_create_whose_answer_was_lost_is_found_by_the_next_try(
    airflow: Airflow, watched: Proxy
) -> None:
    place = Place(airflow, watched, graphs.training(), "lost", retries=1)
    watched.inject(drop_after, "CreateTrainingJob", times=1)
    assert place.run(AWS_MAX_ATTEMPTS="1")["states"] == SUCCESS, airflow.log()[-5000:]
    created = [call for call in watched.calls if call.action == "CreateTrainingJob"]
    assert {call.content["TrainingJobName"] for call in created} == {
        created[0].content["TrainingJobName"]
    }
    assert sum(call.forwarded == 200 for call in created) == 1


def test_a_failed_job_fails_its_task_and_the_next_try_has_the_next_name(
    airflow: Airflow, watched: Proxy, deferrable: bool
) -> None:
    place = Place(
        airflow,
        watched,
        graphs.training(failure="out of luck"),
        f"failed_{deferrable}",
        deferrable=deferrable,
        retries=1,
    )
    assert place.run()["state"] == "failed"
    (name,) = place.names("CreateTrainingJob", "TrainingJobName")  # the program is to blame
    assert "out of luck" in airflow.log()
    assert place.run()["state"] == "failed"
    assert place.names("CreateTrainingJob", "TrainingJobName") == [name, f"{name}-2"]


def test_a_search_is_started_once(airflow: Airflow, watched: Proxy, deferrable: bool) -> None:
    place = Place(airflow, watched, graphs.tuning(), f"tuned_{deferrable}", deferrable=deferrable)
    first = place.run()
    assert first["states"]["tuned"] == ["success"], airflow.log()[-5000:]
    assert first["results"]["tuned"]["Tuning"]["TrainingJobStatusCounters"]["Completed"] == 2
    assert place.run()["states"]["tuned"] == ["success"]
    assert place.calls() == ["CreateHyperParameterTuningJob"]
    (name,) = place.names("CreateHyperParameterTuningJob", "HyperParameterTuningJobName")
    assert len(name) <= 32 - len("-10")


def test_models_configurations_and_transforms_that_are_there_are_taken(
    airflow: Airflow, watched: Proxy, endpoint: Endpoint, deferrable: bool
) -> None:
    name = f"exported-{airflow.home.parent.name}-{deferrable}".lower().replace("_", "-")
    place = Place(
        airflow, watched, graphs.serving(name), f"served_{deferrable}", deferrable=deferrable
    )
    first = place.run()
    assert first["state"] == "success", airflow.log()[-5000:]
    assert sorted(place.calls()) == [
        "CreateEndpoint",
        "CreateEndpointConfig",
        "CreateModel",
        "CreateModel",
        "CreateTransformJob",
    ]
    assert place.run()["state"] == "success", airflow.log()[-5000:]
    assert len(place.calls()) == 5
    second = place.run(date="2026-02-04T00:00:00+00:00")
    assert place.calls("Update") == ["UpdateEndpoint"]
    serves = endpoint.hosted(name)["EndpointConfigName"]
    assert serves == second["results"]["deployed"]["Endpoint"]["EndpointConfigName"]
    assert serves != first["results"]["deployed"]["Endpoint"]["EndpointConfigName"]
    endpoint.sagemaker.delete_endpoint(EndpointName=name)
