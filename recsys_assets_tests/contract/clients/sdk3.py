"""The SageMaker Python SDK 3: ModelTrainer, HyperparameterTuner, Transformer and its resources.

What belongs here: calls of the SDK's public classes, as a notebook makes them.
"""

import logging
import tarfile
from pathlib import Path
from typing import Any

import boto3
from cases import (
    BUCKET,
    COPYING_SCRIPT,
    DATA,
    ENDLESS,
    HYPERPARAMETERS,
    IMAGE,
    JSON_LINES,
    RECORDIO,
    REGION,
    ROLE,
    Evidence,
    NotRun,
    case,
    eventually,
    needs_opt_ml,
    once,
    raises,
    report,
    s3_key,
    scores_in,
    unique,
)
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import ContinuousParameter, IntegerParameter
from sagemaker.core.processing import ScriptProcessor
from sagemaker.core.resources import (
    Endpoint,
    EndpointConfig,
    HyperParameterTuningJob,
    Model,
    TrainingJob,
    TransformJob,
)
from sagemaker.core.resources import Tag as TaggedResource
from sagemaker.core.shapes import (
    ContainerDefinition,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
    ProductionVariant,
    Tag,
)
from sagemaker.core.training.configs import Compute, InputData, OutputDataConfig, SourceCode
from sagemaker.core.transformer import Transformer
from sagemaker.train import ModelTrainer
from sagemaker.train.tuner import HyperparameterTuner

SESSION = Session(default_bucket=BUCKET)
OBJECTS = boto3.client("s3")
INPUTS = [
    InputData(channel_name=name, data_source=f"{DATA}/{name}", content_type=RECORDIO)
    for name in ("train", "test")
]


def trainer(hyperparameters: dict[str, str] = HYPERPARAMETERS) -> ModelTrainer:
    return ModelTrainer(
        training_image=IMAGE,
        role=ROLE,
        hyperparameters=hyperparameters,
        compute=Compute(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=1),
        output_data_config=OutputDataConfig(s3_output_path=f"{DATA}/models"),
        base_job_name=unique("sdk3"),
        sagemaker_session=SESSION,
        tags=[Tag(key="team", value="films")],
    )


def evidence(job: TrainingJob) -> Evidence:
    """Return a completed training job's artefact and its score of the test channel."""
    assert job.training_job_status == "Completed", job
    metrics = {metric.metric_name: metric.value for metric in job.final_metric_data_list}
    return {
        "model": job.model_artifacts.s3_model_artifacts,
        "test_rmse": metrics["test:rmse"],
    }


@once
def trained() -> tuple[TrainingJob, str]:
    """A training job that has completed, and what the SDK logged meanwhile."""
    model_trainer = trainer()
    records = _Records(logging.INFO)
    logger = logging.getLogger("sagemaker")
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    model_trainer.train(input_data_config=INPUTS, logs=True)
    logger.removeHandler(records)
    name = model_trainer._latest_training_job.training_job_name
    return TrainingJob.get(training_job_name=name), "\n".join(records.messages)


class _Records(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@once
def model() -> Model:
    return Model.create(
        model_name=unique("sdk3"),
        primary_container=ContainerDefinition(
            image=IMAGE, model_data_url=trained()[0].model_artifacts.s3_model_artifacts
        ),
        execution_role_arn=ROLE,
    )


@case("`image_uris.retrieve` names the image that the local endpoint knows")
def _() -> Evidence:
    assert image_uris.retrieve("factorization-machines", REGION) == IMAGE
    return None


@case("`ModelTrainer.train` with logs")
def _() -> Evidence:
    job, logged = trained()
    assert "#quality_metric" in logged, logged
    return evidence(job)


@case("`ModelTrainer.train` says why a job failed")
def _() -> Evidence:
    broken = trainer({**HYPERPARAMETERS, "mini_batch_siz": "1"})
    raises("mini_batch_siz", broken.train, input_data_config=INPUTS, logs=False)
    return None


@case("`TrainingJob.stop` and `wait`")
def _() -> Evidence:
    endless = trainer(ENDLESS)
    endless.train(input_data_config=INPUTS, wait=False)
    job = endless._latest_training_job
    job.stop()
    job.wait(poll=1)
    job.refresh()
    assert job.training_job_status == "Stopped", job
    return None


@case("`TrainingJob.get_all`, and `Tag.get_all` of one")
def _() -> Evidence:
    names = [job.training_job_name for job in TrainingJob.get_all(name_contains="sdk3")]
    assert trained()[0].training_job_name in names, names
    found = TaggedResource.get_all(resource_arn=trained()[0].training_job_arn)
    tags = [(tag.key, tag.value) for tag in found]
    assert tags == [("team", "films")], tags
    return None


@case("`TrainingJob.get` of a missing job")
def _() -> Evidence:
    raises("ValidationException", TrainingJob.get, training_job_name="missing")
    return None


@case("`Transformer.transform`, and the model's scores")
def _() -> Evidence:
    transformer = Transformer(
        model().model_name,
        1,
        "ml.m5.large",
        strategy="MultiRecord",
        assemble_with="Line",
        accept=JSON_LINES,
        output_path=f"{DATA}/scores/{unique('sdk3')}",
        max_payload=1,
        sagemaker_session=SESSION,
    )
    transformer.transform(f"{DATA}/unlabelled/", content_type=RECORDIO, split_type="RecordIO")
    name = transformer.latest_transform_job.transform_job_name
    assert TransformJob.get(transform_job_name=name).transform_job_status == "Completed"
    attached = Transformer.attach(name, sagemaker_session=SESSION)
    assert attached.output_path == transformer.output_path
    scores = []
    for chunk in range(2):
        key = f"{s3_key(transformer.output_path)}/chunk-{chunk}.pbr.out"
        scores += scores_in(OBJECTS.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    return {"model": trained()[0].model_artifacts.s3_model_artifacts, "scores": scores}


@case("`Transformer.stop_transform_job`")
def _() -> Evidence:
    transformer = Transformer(
        model().model_name,
        1,
        "ml.m5.large",
        strategy="SingleRecord",
        output_path=f"{DATA}/scores/stopped",
        sagemaker_session=SESSION,
    )
    transformer.transform(f"{DATA}/many/", content_type=RECORDIO, split_type="RecordIO", wait=False)
    transformer.stop_transform_job()
    job = transformer.latest_transform_job
    job.refresh()
    assert job.transform_job_status == "Stopped", job
    return None


def tuner(tuned_trainer: ModelTrainer, **options: Any) -> HyperparameterTuner:
    return HyperparameterTuner(
        **{
            "model_trainer": tuned_trainer,
            "objective_metric_name": "test:rmse",
            "hyperparameter_ranges": {
                "linear_lr": ContinuousParameter(0.001, 0.1, scaling_type="Logarithmic"),
                "epochs": IntegerParameter(1, 4),
            },
            "objective_type": "Minimize",
            "strategy": "Random",
            "max_jobs": 3,
            "max_parallel_jobs": 2,
            "base_tuning_job_name": unique("sdk3"),
            **options,
        }
    )


@once
def tuned() -> HyperparameterTuner:
    job = tuner(trainer())
    job.tune(inputs=INPUTS, wait=True)
    return job


@case("`HyperparameterTuner.tune` and `best_training_job`")
def _() -> Evidence:
    return evidence(TrainingJob.get(training_job_name=tuned().best_training_job()))


@case("`HyperparameterTuner.analytics().dataframe()`")
def _() -> Evidence:
    frame = tuned().analytics().dataframe()
    assert len(frame) == 3
    assert set(frame["TrainingJobStatus"]) == {"Completed"}
    assert {"linear_lr", "epochs", "FinalObjectiveValue"} <= set(frame.columns), frame.columns
    best = frame.sort_values("FinalObjectiveValue").iloc[0]
    assert best["TrainingJobName"] == tuned().best_training_job()
    return None


@case("`HyperparameterTuner.tune`, Bayesian")
def _() -> Evidence:
    job = tuner(trainer(), strategy="Bayesian", max_jobs=2)
    job.tune(inputs=INPUTS, wait=True)
    return evidence(TrainingJob.get(training_job_name=job.best_training_job()))


@case("`HyperparameterTuner.stop_tuning_job`")
def _() -> Evidence:
    ranges = {"linear_lr": ContinuousParameter(0.001, 0.1)}
    job = tuner(trainer(ENDLESS), hyperparameter_ranges=ranges, max_jobs=1, max_parallel_jobs=1)
    job.tune(inputs=INPUTS, wait=False)
    job.stop_tuning_job()
    name = job._current_job_name

    def status() -> str:
        tuning_job = HyperParameterTuningJob.get(hyper_parameter_tuning_job_name=name)
        return tuning_job.hyper_parameter_tuning_job_status

    eventually(lambda: status() not in ("InProgress", "Stopping"))
    assert status() == "Stopped"
    return None


@case("`ScriptProcessor.run` with a script of one's own")
def _() -> Evidence:
    needs_opt_ml()
    script = Path("copy.py").absolute()
    script.write_text(COPYING_SCRIPT)
    target = f"{DATA}/processed/{unique('sdk3')}"
    processor = ScriptProcessor(
        role=ROLE,
        image_uri=IMAGE,
        command=["python3"],
        instance_count=1,
        instance_type="ml.m5.large",
        base_job_name="copy",
        sagemaker_session=SESSION,
    )
    source = ProcessingS3Input(
        s3_uri=f"{DATA}/unlabelled/",
        local_path="/opt/ml/processing/input/data",
        s3_data_type="S3Prefix",
        s3_input_mode="File",
    )
    wanted = ProcessingS3Output(
        s3_uri=target,
        local_path="/opt/ml/processing/output/data",
        s3_upload_mode="EndOfJob",
    )
    processor.run(
        code=str(script),
        inputs=[ProcessingInput(input_name="data", s3_input=source)],
        outputs=[ProcessingOutput(output_name="data", s3_output=wanted)],
    )
    found = OBJECTS.list_objects_v2(Bucket=BUCKET, Prefix=s3_key(target))["Contents"]
    names = [item["Key"].rpartition("/")[2] for item in found]
    assert names == ["chunk-0.pbr", "chunk-1.pbr"], names
    return None


@case("`ModelTrainer.train` with source code of one's own")
def _() -> Evidence:
    needs_opt_ml()
    source = Path("source").absolute()
    source.mkdir()
    program = 'import pathlib; pathlib.Path("/opt/ml/model/made").write_text("by a script")'
    (source / "train.py").write_text(program)
    model_trainer = trainer()
    model_trainer.source_code = SourceCode(source_dir=str(source), entry_script="train.py")
    model_trainer.train(input_data_config=INPUTS, logs=False)
    archive = Path("model.tar.gz")
    uri = model_trainer._latest_training_job.model_artifacts.s3_model_artifacts
    OBJECTS.download_file(BUCKET, s3_key(uri), str(archive))
    with tarfile.open(archive) as tar:
        assert tar.extractfile("made").read() == b"by a script"
    return None


@case("`TrainingJobAnalytics(...).dataframe()`")
def _() -> Evidence:
    raise NotRun("reads CloudWatch metrics, which the local endpoint does not keep")


@case("`Model`, `EndpointConfig` and `Endpoint`: create, invoke and delete")
def _() -> Evidence:
    name = unique("sdk3")
    EndpointConfig.create(
        endpoint_config_name=name,
        production_variants=[
            ProductionVariant(
                variant_name="all",
                model_name=model().model_name,
                instance_type="ml.m5.large",
                initial_instance_count=1,
            )
        ],
    )
    endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
    endpoint.wait_for_status("InService", poll=1)
    try:
        rows = OBJECTS.get_object(Bucket=BUCKET, Key=s3_key(f"{DATA}/lines/rows.jsonl"))
        answer = endpoint.invoke(
            body=rows["Body"].read(), content_type=JSON_LINES, accept=JSON_LINES
        )
        text = answer.body.read()
    finally:
        endpoint.delete()
        endpoint.wait_for_delete(poll=1)
        EndpointConfig.get(endpoint_config_name=name).delete()
    return {
        "model": trained()[0].model_artifacts.s3_model_artifacts,
        "scores": scores_in(text),
    }


if __name__ == "__main__":
    report("sagemaker", "sagemaker-core", "boto3")
