"""A DAG of Airflow's SageMaker operators, as a team would write it, for Airflow 2 and 3."""

import os

import api_requests
import pendulum
from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerDeleteModelOperator,
    SageMakerEndpointConfigOperator,
    SageMakerEndpointOperator,
    SageMakerModelOperator,
    SageMakerProcessingOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import (
    SageMakerEndpointSensor,
    SageMakerProcessingSensor,
    SageMakerTrainingSensor,
    SageMakerTransformSensor,
    SageMakerTuningSensor,
)

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG

RUN = os.environ["CONTRACT_RUN"]  # part of every name
ARTEFACT = "{{ ti.xcom_pull(task_ids='train')['Training']['ModelArtifacts']['S3ModelArtifacts'] }}"
QUICK = {"check_interval": 1}
ANYWAY = {"trigger_rule": "all_done"}  # what comes before may fail as it should

with DAG("contract", schedule=None, start_date=pendulum.datetime(2024, 1, 1)) as dag:
    train = SageMakerTrainingOperator(
        task_id="train",
        config=api_requests.training(f"{RUN}-train"),
        print_log=False,
        **QUICK,
    )
    train_with_logs = SageMakerTrainingOperator(
        task_id="train_with_logs",
        config=api_requests.training(f"{RUN}-logs"),
        print_log=True,
        **QUICK,
    )
    train_deferred = SageMakerTrainingOperator(
        task_id="train_deferred",
        config=api_requests.training(f"{RUN}-deferred"),
        print_log=False,
        deferrable=True,
        **QUICK,
    )
    train_taken = SageMakerTrainingOperator(
        task_id="train_taken",
        config=api_requests.training(f"{RUN}-train"),
        print_log=False,
        **QUICK,
    )
    train_taken_fails = SageMakerTrainingOperator(
        task_id="train_taken_fails",
        config=api_requests.training(f"{RUN}-train"),
        print_log=False,
        action_if_job_exists="fail",
        **QUICK,
    )
    train_fails = SageMakerTrainingOperator(
        task_id="train_fails",
        config=api_requests.training(f"{RUN}-fails", mini_batch_siz="1"),
        print_log=False,
        **QUICK,
    )
    training_sensor = SageMakerTrainingSensor(
        task_id="training_sensor", job_name=f"{RUN}-train", print_log=False, poke_interval=1
    )
    train >> [train_taken, train_taken_fails, training_sensor]

    tune = SageMakerTuningOperator(
        task_id="tune", config=api_requests.tuning(f"{RUN}-tune"), **QUICK
    )
    tuning_sensor = SageMakerTuningSensor(
        task_id="tuning_sensor", job_name=f"{RUN}-tune", poke_interval=1
    )
    tune >> tuning_sensor
    tune_deferred = SageMakerTuningOperator(
        task_id="tune_deferred",
        config=api_requests.tuning(f"{RUN}-tdef"),
        deferrable=True,
        **QUICK,
    )

    transform = SageMakerTransformOperator(
        task_id="transform",
        config={
            "Model": api_requests.model(f"{RUN}-transform", ARTEFACT),
            "Transform": api_requests.transform(f"{RUN}-transform", f"{RUN}-transform"),
        },
        **QUICK,
    )
    transform_again = SageMakerTransformOperator(
        task_id="transform_again",
        config={
            "Model": api_requests.model(f"{RUN}-transform", ARTEFACT),
            "Transform": api_requests.transform(f"{RUN}-transform", f"{RUN}-transform"),
        },
        **QUICK,
    )
    transform_deferred = SageMakerTransformOperator(
        task_id="transform_deferred",
        config=api_requests.transform(f"{RUN}-deferred", f"{RUN}-transform"),
        deferrable=True,
        **QUICK,
    )
    transform_sensor = SageMakerTransformSensor(
        task_id="transform_sensor", job_name=f"{RUN}-transform", poke_interval=1
    )
    train >> transform >> [transform_again, transform_deferred, transform_sensor]

    process = SageMakerProcessingOperator(
        task_id="process",
        config=api_requests.processing(f"{RUN}-process", *api_requests.COPY),
        print_log=False,
        **QUICK,
    )
    process_again = SageMakerProcessingOperator(
        task_id="process_again",
        config=api_requests.processing(f"{RUN}-process", *api_requests.COPY),
        print_log=False,
        **QUICK,
    )
    process_deferred = SageMakerProcessingOperator(
        task_id="process_deferred",
        config=api_requests.processing(f"{RUN}-pdef", *api_requests.COPY),
        print_log=False,
        deferrable=True,
        **QUICK,
    )
    processing_sensor = SageMakerProcessingSensor(
        task_id="processing_sensor", job_name=f"{RUN}-process", poke_interval=1
    )
    process >> [process_again, processing_sensor]

    model = SageMakerModelOperator(
        task_id="model", config=api_requests.model(f"{RUN}-model", ARTEFACT)
    )
    endpoint_config = SageMakerEndpointConfigOperator(
        task_id="endpoint_config",
        config=api_requests.endpoint_config(f"{RUN}-first", f"{RUN}-model"),
    )
    endpoint = SageMakerEndpointOperator(
        task_id="endpoint",
        config={"EndpointName": f"{RUN}-endpoint", "EndpointConfigName": f"{RUN}-first"},
        **QUICK,
    )
    # Asked to create what exists, the operator updates it.
    endpoint_again = SageMakerEndpointOperator(
        task_id="endpoint_again",
        config={
            "EndpointConfig": api_requests.endpoint_config(f"{RUN}-second", f"{RUN}-model"),
            "Endpoint": {
                "EndpointName": f"{RUN}-endpoint",
                "EndpointConfigName": f"{RUN}-second",
            },
        },
        **QUICK,
    )
    endpoint_sensor = SageMakerEndpointSensor(
        task_id="endpoint_sensor", endpoint_name=f"{RUN}-endpoint", poke_interval=1
    )
    delete_model = SageMakerDeleteModelOperator(
        task_id="delete_model", config={"ModelName": f"{RUN}-model"}, **ANYWAY
    )
    train >> model >> endpoint_config >> endpoint >> endpoint_again >> endpoint_sensor
    endpoint_sensor >> delete_model
