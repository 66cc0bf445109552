"""The SageMaker Python SDK 2: estimators, tuner, transformer, predictor and analytics.

What belongs here: calls of the SDK's public classes, as a notebook makes them.
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import sagemaker
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
    scores_in,
    unique,
)
from sagemaker import FactorizationMachines, image_uris
from sagemaker.amazon.amazon_estimator import RecordSet
from sagemaker.amazon.common import RecordSerializer
from sagemaker.deserializers import JSONDeserializer, JSONLinesDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.predictor import Predictor
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.s3 import S3Downloader
from sagemaker.serializers import JSONLinesSerializer
from sagemaker.transformer import Transformer
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner, IntegerParameter

SESSION = sagemaker.Session(default_bucket=BUCKET)
INSTANCE = {"instance_count": 1, "instance_type": "ml.m5.large"}
INPUTS = {
    name: TrainingInput(f"{DATA}/{name}", content_type=RECORDIO) for name in ("train", "test")
}


def estimator(hyperparameters: dict[str, str] = HYPERPARAMETERS) -> Estimator:
    return Estimator(
        IMAGE,
        ROLE,
        **INSTANCE,
        output_path=f"{DATA}/models",
        hyperparameters=hyperparameters,
        base_job_name=unique("sdk2"),
        sagemaker_session=SESSION,
        tags=[{"Key": "team", "Value": "films"}],
    )


def factorization_machines(epochs: int = 3) -> FactorizationMachines:
    return FactorizationMachines(
        ROLE,
        **INSTANCE,
        num_factors=4,
        predictor_type="regressor",
        epochs=epochs,
        output_path=f"{DATA}/models",
        data_location=f"{DATA}/sdk2",
        base_job_name=unique("sdk2"),
        sagemaker_session=SESSION,
    )


def described(name: str) -> dict:
    return SESSION.describe_training_job(name)


def evidence(name: str) -> Evidence:
    """Return a completed training job's artefact and its score of the test channel."""
    job = described(name)
    assert job["TrainingJobStatus"] == "Completed", job
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    return {
        "model": job["ModelArtifacts"]["S3ModelArtifacts"],
        "test_rmse": metrics["test:rmse"],
    }


@once
def trained() -> tuple[Estimator, str]:
    """An estimator that was fitted, and what was printed meanwhile."""
    fitted = estimator()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        fitted.fit(INPUTS, logs="All")
    return fitted, printed.getvalue()


@case("`image_uris.retrieve` names the image that the local endpoint knows")
def _() -> Evidence:
    assert image_uris.retrieve("factorization-machines", REGION) == IMAGE
    return None


@case("`Estimator.fit` with logs")
def _() -> Evidence:
    fitted, printed = trained()
    assert "#quality_metric" in printed, printed
    assert "Training seconds: " in printed, printed
    return evidence(fitted.latest_training_job.name)


@case("`Estimator.fit` in Pipe mode")
def _() -> Evidence:
    piped = estimator()
    piped.input_mode = "Pipe"
    piped.fit(INPUTS, logs=False)
    name = piped.latest_training_job.name
    assert described(name)["AlgorithmSpecification"]["TrainingInputMode"] == "Pipe"
    return evidence(name)


@case("`Estimator.logs` of a job that has ended")
def _() -> Evidence:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        trained()[0].logs()
    assert "#test_score" in printed.getvalue(), printed.getvalue()
    return None


@case("`Estimator.attach` and its tags")
def _() -> Evidence:
    fitted = trained()[0]
    name = fitted.latest_training_job.name
    attached = Estimator.attach(name, sagemaker_session=SESSION)
    assert attached.model_data == fitted.model_data
    assert attached.hyperparameters().items() >= HYPERPARAMETERS.items()
    tags = SESSION.list_tags(described(name)["TrainingJobArn"])
    assert tags == [{"Key": "team", "Value": "films"}], tags
    return None


@case("`Estimator.fit` says why a job failed")
def _() -> Evidence:
    broken = estimator({**HYPERPARAMETERS, "mini_batch_siz": "1"})
    raises("mini_batch_siz", broken.fit, INPUTS, logs=False)
    return None


@case("`Session.stop_training_job`")
def _() -> Evidence:
    endless = estimator(ENDLESS)
    endless.fit(INPUTS, wait=False)
    name = endless.latest_training_job.name
    SESSION.stop_training_job(name)
    status = "TrainingJobStatus"
    eventually(lambda: described(name)[status] not in ("InProgress", "Stopping"))
    assert described(name)[status] == "Stopped", described(name)
    return None


@case("`FactorizationMachines.fit` on records in S3")
def _() -> Evidence:
    fitted = factorization_machines()
    dimension = int(HYPERPARAMETERS["feature_dim"])
    records = [
        RecordSet(f"{DATA}/{name}", 400, dimension, s3_data_type="S3Prefix", channel=name)
        for name in ("train", "test")
    ]
    fitted.fit(records, mini_batch_size=50)
    return evidence(fitted.latest_training_job.name)


@once
def fitted_on_arrays() -> FactorizationMachines:
    fitted = factorization_machines()
    generator = np.random.default_rng(1)
    features = generator.random((200, int(HYPERPARAMETERS["feature_dim"])), dtype=np.float32)
    labels = features[:, :3].sum(axis=1)
    sets = [fitted.record_set(features, labels, channel=name) for name in ("train", "test")]
    fitted.fit(sets, mini_batch_size=50)
    return fitted


@case("`FactorizationMachines.record_set` and `fit` on arrays, through a manifest")
def _() -> Evidence:
    name = fitted_on_arrays().latest_training_job.name
    assert described(name)["TrainingJobStatus"] == "Completed", described(name)
    return {"model": fitted_on_arrays().model_data}


@case("`Estimator.transformer`, and its scores by `S3Downloader`")
def _() -> Evidence:
    fitted = trained()[0]
    transformer = fitted.transformer(
        **INSTANCE,
        strategy="MultiRecord",
        assemble_with="Line",
        accept=JSON_LINES,
        output_path=f"{DATA}/scores/{unique('sdk2')}",
        max_payload=1,
    )
    transformer.transform(f"{DATA}/unlabelled/", content_type=RECORDIO, split_type="RecordIO")
    attached = Transformer.attach(transformer.latest_transform_job.name, sagemaker_session=SESSION)
    assert attached.output_path == transformer.output_path
    files = sorted(S3Downloader.list(transformer.output_path, sagemaker_session=SESSION))
    assert [file.rpartition("/")[2] for file in files] == ["chunk-0.pbr.out", "chunk-1.pbr.out"]
    texts = [S3Downloader.read_file(file, sagemaker_session=SESSION) for file in files]
    transformer.delete_model()
    return {
        "model": fitted.model_data,
        "scores": [score for text in texts for score in scores_in(text)],
    }


@case("`Transformer.stop_transform_job`")
def _() -> Evidence:
    transformer = trained()[0].transformer(
        **INSTANCE, strategy="SingleRecord", output_path=f"{DATA}/scores/stopped"
    )
    transformer.transform(f"{DATA}/many/", content_type=RECORDIO, split_type="RecordIO", wait=False)
    transformer.stop_transform_job()
    name = transformer.latest_transform_job.name
    job = SESSION.describe_transform_job(name)
    assert job["TransformJobStatus"] == "Stopped", job
    return None


def tuner(tuned: Estimator, **options: object) -> HyperparameterTuner:
    ranges = {
        "linear_lr": ContinuousParameter(0.001, 0.1, scaling_type="Logarithmic"),
        "epochs": IntegerParameter(1, 4),
    }
    settings = {"strategy": "Random", "max_jobs": 3, "max_parallel_jobs": 2, **options}
    return HyperparameterTuner(
        tuned,
        "test:rmse",
        ranges,
        objective_type="Minimize",
        base_tuning_job_name=unique("sdk2"),
        **settings,
    )


@once
def tuned() -> HyperparameterTuner:
    job = tuner(estimator())
    job.fit(INPUTS)
    return job


@case("`HyperparameterTuner.fit` and `best_training_job`")
def _() -> Evidence:
    assert tuned().describe()["HyperParameterTuningJobStatus"] == "Completed"
    return evidence(tuned().best_training_job())


@case("`HyperparameterTuner.analytics().dataframe()`")
def _() -> Evidence:
    frame = tuned().analytics().dataframe()
    assert len(frame) == 3
    assert set(frame["TrainingJobStatus"]) == {"Completed"}
    assert {"linear_lr", "epochs", "FinalObjectiveValue"} <= set(frame.columns), frame.columns
    best = frame.sort_values("FinalObjectiveValue").iloc[0]
    assert best["TrainingJobName"] == tuned().best_training_job()
    return None


@case("`HyperparameterTuner.attach` and `best_estimator`")
def _() -> Evidence:
    attached = HyperparameterTuner.attach(tuned().latest_tuning_job.name, sagemaker_session=SESSION)
    assert attached.best_estimator().latest_training_job.name == tuned().best_training_job()
    return None


@case("`HyperparameterTuner.identical_dataset_and_algorithm_tuner`: a warm start")
def _() -> Evidence:
    job = tuned().identical_dataset_and_algorithm_tuner()
    job.max_jobs, job.strategy = 2, "Bayesian"
    job.fit(INPUTS)
    assert job.describe()["HyperParameterTuningJobStatus"] == "Completed", job.describe()
    return evidence(job.best_training_job())


@case("`HyperparameterTuner` with `FactorizationMachines`, Bayesian")
def _() -> Evidence:
    fm = factorization_machines()
    fm.feature_dim = int(HYPERPARAMETERS["feature_dim"])
    records = [
        RecordSet(f"{DATA}/{name}", 400, fm.feature_dim, s3_data_type="S3Prefix", channel=name)
        for name in ("train", "test")
    ]
    job = tuner(fm, strategy="Bayesian", max_jobs=2)
    job.fit(records, mini_batch_size=50)
    assert job.describe()["HyperParameterTuningJobStatus"] == "Completed", job.describe()
    return evidence(job.best_training_job())


@case("`HyperparameterTuner.stop_tuning_job`")
def _() -> Evidence:
    job = HyperparameterTuner(
        estimator(ENDLESS),
        "test:rmse",
        {"linear_lr": ContinuousParameter(0.001, 0.1)},
        objective_type="Minimize",
        strategy="Random",
        max_jobs=1,
        base_tuning_job_name=unique("sdk2"),
    )
    job.fit(INPUTS, wait=False)
    job.stop_tuning_job()
    status = "HyperParameterTuningJobStatus"
    eventually(lambda: job.describe()[status] not in ("InProgress", "Stopping"))
    assert job.describe()[status] == "Stopped"
    return None


@case("`ScriptProcessor.run` with a script of one's own")
def _() -> Evidence:
    needs_opt_ml()
    script = Path("copy.py").absolute()
    script.write_text(COPYING_SCRIPT)
    target = f"{DATA}/processed/{unique('sdk2')}"
    processor = ScriptProcessor(
        ROLE, IMAGE, ["python3"], **INSTANCE, base_job_name="copy", sagemaker_session=SESSION
    )
    processor.run(
        str(script),
        inputs=[ProcessingInput(f"{DATA}/unlabelled/", "/opt/ml/processing/input/data")],
        outputs=[ProcessingOutput("/opt/ml/processing/output/data", target)],
    )
    files = sorted(S3Downloader.list(target, sagemaker_session=SESSION))
    assert [file.rpartition("/")[2] for file in files] == ["chunk-0.pbr", "chunk-1.pbr"], files
    return None


@case("`TrainingJobAnalytics(...).dataframe()`")
def _() -> Evidence:
    raise NotRun("reads CloudWatch metrics, which the local endpoint does not keep")


@case("`Estimator.deploy` and `Predictor.predict` on a real endpoint")
def _() -> Evidence:
    fitted = trained()[0]
    predictor = fitted.deploy(
        1,
        "ml.m5.large",
        endpoint_name=unique("sdk2"),
        serializer=JSONLinesSerializer(),
        deserializer=JSONLinesDeserializer(),
    )
    try:
        rows = S3Downloader.read_file(f"{DATA}/lines/rows.jsonl", sagemaker_session=SESSION)
        answer = predictor.predict([json.loads(line) for line in rows.splitlines()])
        reopened = Predictor(
            predictor.endpoint_name, SESSION, JSONLinesSerializer(), JSONDeserializer()
        )
        one = reopened.predict([json.loads(rows.splitlines()[0])])
        assert one["predictions"] == answer[:1], one
    finally:
        predictor.delete_model()
        predictor.delete_endpoint()
    raises("not found", predictor.predict, [])
    return {"model": fitted.model_data, "scores": [row["score"] for row in answer]}


@case("`FactorizationMachines.deploy` and its predictor, in RecordIO")
def _() -> Evidence:
    fitted = fitted_on_arrays()
    predictor = fitted.deploy(1, "ml.m5.large", endpoint_name=unique("sdk2"))
    try:
        rows = np.eye(int(HYPERPARAMETERS["feature_dim"]), dtype=np.float32)
        records = predictor.predict(rows)
        scores = [record.label["score"].float32_tensor.values[0] for record in records]
        raises("", predictor.predict, rows[:, :-1])
    finally:
        predictor.delete_model()
        predictor.delete_endpoint()
    assert isinstance(predictor.serializer, RecordSerializer)
    return {"model": fitted.model_data, "unit_scores": scores}


if __name__ == "__main__":
    report("sagemaker", "boto3")
