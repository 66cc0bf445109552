"""Airflow's SageMaker operators, sensors and triggers, in one DAG that is run in this process.

What belongs here: an Airflow of its own for the DAG in ``dags/``, and cases that look at what its
tasks came to. What does not: the DAG. The same files run in Airflow 2 and 3.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import api_requests
from cases import (
    BUCKET,
    DATA,
    Evidence,
    case,
    needs_opt_ml,
    once,
    report,
    s3_key,
    scores_in,
    unique,
)

RUN = unique("af")
DAGS = Path(__file__).parent / "dags"


@once
def tasks() -> dict[str, Any]:
    """Run the DAG and return its task instances by task."""
    # Airflow reads these when it is imported; it lives in the home folder.
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
    os.environ["CONTRACT_RUN"] = RUN
    subprocess.run([Path(sys.executable).with_name("airflow"), "db", "migrate"], check=True)
    sys.path.append(str(DAGS))
    run = importlib.import_module("sagemaker_operators").dag.test()
    return {instance.task_id: instance for instance in run.get_task_instances()}


def hook() -> Any:
    from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook

    return SageMakerHook()


def scores(name: str) -> list[float]:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    prefix = s3_key(api_requests.transform(name, name)["TransformOutput"]["S3OutputPath"])
    keys = [f"{prefix}/chunk-{chunk}.pbr.out" for chunk in range(2)]
    return [score for key in keys for score in scores_in(S3Hook().read_key(key, BUCKET))]


def returned(task: str) -> Any:
    """Return the XCom of a task, which must have succeeded."""
    assert tasks()[task].state == "success", f"{task}: {tasks()[task].state}"
    return tasks()[task].xcom_pull(task_ids=task)


def evidence(job: dict[str, Any]) -> Evidence:
    """Return a completed training job's artefact and its score of the test channel."""
    assert job["TrainingJobStatus"] == "Completed", job
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    return {
        "model": job["ModelArtifacts"]["S3ModelArtifacts"],
        "test_rmse": metrics["test:rmse"],
    }


def describe_training_job(name: str) -> Any:
    return hook().describe_training_job(name)


@case("SageMakerTrainingOperator")
def _() -> Evidence:
    return evidence(returned("train")["Training"])


@case("SageMakerTrainingOperator with print_log")
def _() -> Evidence:
    return evidence(returned("train_with_logs")["Training"])


@case("SageMakerTrainingOperator, deferrable")
def _() -> Evidence:
    returned("train_deferred")
    return evidence(describe_training_job(f"{RUN}-deferred"))


@case("SageMakerTrainingOperator gives a taken name a timestamp")
def _() -> Evidence:
    job = returned("train_taken")["Training"]
    assert job["TrainingJobName"].startswith(f"{RUN}-train-"), job
    return evidence(job)


@case("SageMakerTrainingOperator fails on a taken name if told to")
def _() -> Evidence:
    returned("train")
    assert tasks()["train_taken_fails"].state == "failed"
    return None


@case("SageMakerTrainingOperator fails with its job")
def _() -> Evidence:
    assert tasks()["train_fails"].state == "failed"
    job = describe_training_job(f"{RUN}-fails")
    assert "mini_batch_siz" in job["FailureReason"], job
    return None


@case("SageMakerTrainingSensor")
def _() -> Evidence:
    returned("training_sensor")
    return None


@case("SageMakerTuningOperator")
def _() -> Evidence:
    best = returned("tune")["Tuning"]["BestTrainingJob"]["TrainingJobName"]
    return evidence(describe_training_job(best))


@case("SageMakerTuningOperator, deferrable")
def _() -> Evidence:
    returned("tune_deferred")
    job = hook().describe_tuning_job(f"{RUN}-tdef")
    assert job["HyperParameterTuningJobStatus"] == "Completed", job
    return evidence(describe_training_job(job["BestTrainingJob"]["TrainingJobName"]))


@case("SageMakerTuningSensor")
def _() -> Evidence:
    returned("tuning_sensor")
    return None


@case("SageMakerTransformOperator with a model")
def _() -> Evidence:
    answer = returned("transform")
    artefact = answer["Model"]["PrimaryContainer"]["ModelDataUrl"]
    return {"model": artefact, "scores": scores(f"{RUN}-transform")}


@case("SageMakerTransformOperator gives taken names a timestamp")
def _() -> Evidence:
    answer = returned("transform_again")
    assert answer["Model"]["ModelName"].startswith(f"{RUN}-transform-"), answer
    assert answer["Transform"]["ModelName"] == answer["Model"]["ModelName"], answer
    assert answer["Transform"]["TransformJobName"].startswith(f"{RUN}-transform-"), answer
    return None


@case("SageMakerTransformOperator, deferrable")
def _() -> Evidence:
    returned("transform_deferred")
    artefact = returned("train")["Training"]["ModelArtifacts"]["S3ModelArtifacts"]
    return {"model": artefact, "scores": scores(f"{RUN}-deferred")}


@case("SageMakerTransformSensor")
def _() -> Evidence:
    returned("transform_sensor")
    return None


def assert_copied(name: str) -> None:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    keys = S3Hook().list_keys(BUCKET, s3_key(f"{DATA}/processed/{name}/"))
    names = sorted(key.rpartition("/")[2] for key in keys)
    assert names == ["chunk-0.pbr", "chunk-1.pbr"], names


@case("SageMakerProcessingOperator")
def _() -> Evidence:
    needs_opt_ml()
    job = returned("process")["Processing"]
    assert job["ProcessingJobStatus"] == "Completed", job
    assert_copied(f"{RUN}-process")
    return None


@case("SageMakerProcessingOperator gives a taken name a timestamp")
def _() -> Evidence:
    needs_opt_ml()
    job = returned("process_again")["Processing"]
    assert job["ProcessingJobName"].startswith(f"{RUN}-process-"), job
    return None


@case("SageMakerProcessingOperator, deferrable")
def _() -> Evidence:
    needs_opt_ml()
    returned("process_deferred")
    assert_copied(f"{RUN}-pdef")
    return None


@case("SageMakerProcessingSensor")
def _() -> Evidence:
    needs_opt_ml()
    returned("processing_sensor")
    return None


@case("SageMakerModelOperator and SageMakerDeleteModelOperator")
def _() -> Evidence:
    assert returned("model")["Model"]["ModelName"] == f"{RUN}-model"
    returned("delete_model")
    names = hook().conn.list_models(NameContains=f"{RUN}-model")["Models"]
    assert names == [], names
    return None


@case("SageMakerEndpointConfigOperator")
def _() -> Evidence:
    config = returned("endpoint_config")["EndpointConfig"]
    assert config["ProductionVariants"][0]["ModelName"] == f"{RUN}-model", config
    return None


@case("SageMakerEndpointOperator creates an endpoint")
def _() -> Evidence:
    assert returned("endpoint")["Endpoint"]["EndpointStatus"] == "InService"
    return None


@case("SageMakerEndpointOperator updates what it is asked to create and exists")
def _() -> Evidence:
    endpoint = returned("endpoint_again")["Endpoint"]
    assert endpoint["EndpointConfigName"] == f"{RUN}-second", endpoint
    hook().conn.delete_endpoint(EndpointName=f"{RUN}-endpoint")
    return None


@case("SageMakerEndpointSensor")
def _() -> Evidence:
    returned("endpoint_sensor")
    return None


if __name__ == "__main__":
    report("apache-airflow", "apache-airflow-providers-amazon", "aiobotocore")
