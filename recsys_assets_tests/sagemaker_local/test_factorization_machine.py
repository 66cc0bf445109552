"""The built-in algorithm end to end: real programs behind the built-in's image."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys_assets.domain.recordio import encode_recordio
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, Endpoint

IMAGE = "382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:1"
RECORDIO = "application/x-recordio-protobuf"
CUSTOMERS, VIDEOS, ROWS = 30, 20, 400

HYPERPARAMETERS = {
    "feature_dim": CUSTOMERS + VIDEOS,
    "num_factors": 4,
    "predictor_type": "regressor",
    "epochs": 3,
    "mini_batch_size": 50,
}

ALGORITHM = {"TrainingImage": IMAGE, "TrainingInputMode": "File"}


def ratings(seed: int) -> tuple[csr_matrix, np.ndarray]:
    """Return one-hot customers and videos, and stars that depend on the video."""
    generator = np.random.default_rng(seed)
    customers = generator.integers(CUSTOMERS, size=ROWS)
    videos = generator.integers(VIDEOS, size=ROWS)
    columns = np.stack([customers, CUSTOMERS + videos], axis=1).ravel()
    X = csr_matrix(
        (np.ones(2 * ROWS, dtype=np.float32), columns, np.arange(0, 2 * ROWS + 1, 2)),
        shape=(ROWS, CUSTOMERS + VIDEOS),
    )
    return X, (1 + videos % 5).astype(np.float32)


@pytest.fixture(scope="module")
def channels(endpoint: Endpoint) -> list[dict[str, Any]]:
    found = []
    for seed, name in enumerate(("train", "test")):
        endpoint.put(f"fm/{name}/part-0.pbr", encode_recordio(*ratings(seed)))
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/fm/{name}"}
        found.append(
            {
                "ChannelName": name,
                "ContentType": RECORDIO,
                "DataSource": {"S3DataSource": source},
            }
        )
    return found


def test_the_score_of_a_training_job_is_that_of_its_models_predictions(
    endpoint: Endpoint, channels: list[dict[str, Any]]
) -> None:
    endpoint.train(
        "fm", HYPERPARAMETERS, AlgorithmSpecification=ALGORITHM, InputDataConfig=channels
    )
    job = endpoint.ended_training_job("fm")
    assert job["TrainingJobStatus"] == "Completed", job
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["train:progress"] == 100

    endpoint.sagemaker.create_model(
        ModelName="fm",
        PrimaryContainer={
            "Image": IMAGE,
            "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"],
        },
    )
    X, y = ratings(seed=1)
    endpoint.put("fm/transform/chunk-0.pbr", encode_recordio(X))
    endpoint.transform(
        "fm",
        "fm",
        "fm/transform/",
        given={"ContentType": RECORDIO, "SplitType": "RecordIO"},
        wanted={"Accept": "application/jsonlines", "AssembleWith": "Line"},
        MaxPayloadInMB=1,
    )
    transform = endpoint.ended_transform_job("fm")
    assert transform["TransformJobStatus"] == "Completed", transform
    lines = endpoint.get("out/fm/chunk-0.pbr.out").splitlines()
    scores = np.array([json.loads(line)["score"] for line in lines])
    assert scores.shape == y.shape
    rmse = np.sqrt(np.mean((scores - y) ** 2))
    assert metrics["test:rmse"] == pytest.approx(rmse, rel=1e-5)
    check_joined_scores(endpoint, X, scores)


def check_joined_scores(endpoint: Endpoint, X: csr_matrix, scores: np.ndarray) -> None:
    """Check that a join gives each record of another format the score of its RecordIO twin."""
    records = []
    for number in range(ROWS):
        row = X[number]
        features = {
            "keys": row.indices.tolist(),
            "shape": [X.shape[1]],
            "values": row.data.tolist(),
        }
        records.append({"id": number, "instance": {"data": {"features": features}}})
    endpoint.put("fm/lines/in", "\n".join(map(json.dumps, records)).encode())
    lines = "application/jsonlines"
    endpoint.transform(
        "fm-joined",
        "fm",
        "fm/lines/",
        given={"ContentType": lines, "SplitType": "Line"},
        wanted={"Accept": lines, "AssembleWith": "Line"},
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=4,
        DataProcessing={
            "InputFilter": "$.instance",
            "JoinSource": "Input",
            "OutputFilter": "$['id','SageMakerOutput']",
        },
    )
    transform = endpoint.ended_transform_job("fm-joined")
    assert transform["TransformJobStatus"] == "Completed", transform
    joined = [json.loads(line) for line in endpoint.get("out/fm-joined/in.out").splitlines()]
    assert [record["id"] for record in joined] == list(range(ROWS))
    joined_scores = [record["SageMakerOutput"]["score"] for record in joined]
    assert joined_scores == pytest.approx(scores, rel=1e-6)


def test_a_search_over_the_built_in_finds_the_better_learning_rate(
    endpoint: Endpoint, channels: list[dict[str, Any]]
) -> None:
    ranges = {
        "ContinuousParameterRanges": [
            {"Name": "linear_lr", "MinValue": "0.0001", "MaxValue": "0.1"}
        ]
    }
    request = endpoint.tuning_request("fm-search", ranges, jobs=2, parallel=2, RandomSeed=1)
    request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"] = {
        "Type": "Minimize",
        "MetricName": "test:rmse",
    }
    request["TrainingJobDefinition"] |= {
        "AlgorithmSpecification": ALGORITHM,
        "InputDataConfig": channels,
        "StaticHyperParameters": {key: str(value) for key, value in HYPERPARAMETERS.items()},
    }
    endpoint.sagemaker.create_hyper_parameter_tuning_job(**request)
    job = endpoint.ended_tuning_job("fm-search")
    assert job["HyperParameterTuningJobStatus"] == "Completed", job
    # The stars depend on the videos alone, which few epochs learn only at a high rate.
    rates = [
        float(child["TunedHyperParameters"]["linear_lr"])
        for child in endpoint.children("fm-search")
    ]
    best = float(job["BestTrainingJob"]["TunedHyperParameters"]["linear_lr"])
    assert best == max(rates) > min(rates)


@pytest.mark.slow
@pytest.mark.parametrize("beyond", [{}, {"solver": "mcmc", "epochs": 22}], ids=["adam", "mcmc"])
def test_pipes_and_files_make_the_same_model(
    endpoint: Endpoint, channels: list[dict[str, Any]], beyond: dict[str, Any]
) -> None:
    scores = []
    for mode in ("File", "Pipe"):
        name = f"fm-{mode.lower()}-{len(beyond)}"
        endpoint.train(
            name,
            HYPERPARAMETERS | beyond,
            AlgorithmSpecification=ALGORITHM | {"TrainingInputMode": mode},
            InputDataConfig=channels,
        )
        job = endpoint.ended_training_job(name)
        assert job["TrainingJobStatus"] == "Completed", job
        metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
        scores.append(metrics["test:rmse"])
    assert scores[0] == scores[1]


def test_a_mistake_in_a_hyperparameter_is_the_jobs_failure_reason(
    endpoint: Endpoint, channels: list[dict[str, Any]]
) -> None:
    endpoint.train(
        "fm-mistake",
        {**HYPERPARAMETERS, "mini_batch_siz": 200},
        AlgorithmSpecification=ALGORITHM,
        InputDataConfig=channels,
    )
    reason = endpoint.ended_training_job("fm-mistake")["FailureReason"]
    assert "mini_batch_siz" in reason
    assert reason.startswith("ClientError: ")
