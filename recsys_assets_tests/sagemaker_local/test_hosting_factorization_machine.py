"""The built-in algorithm behind an endpoint: trained, hosted and asked in each of its formats."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys_assets.domain.recordio import encode_recordio
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, Endpoint
from recsys_assets_tests.sagemaker_local.test_factorization_machine import (
    ALGORITHM,
    HYPERPARAMETERS,
    IMAGE,
    RECORDIO,
    ratings,
)

ASKED = 5


@pytest.fixture(scope="module")
def hosted(endpoint: Endpoint) -> Iterator[str]:
    endpoint.put("fm-hosted/train/part-0.pbr", encode_recordio(*ratings(seed=0)))
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/fm-hosted/train"}
    endpoint.train(
        "fm-hosted",
        HYPERPARAMETERS,
        AlgorithmSpecification=ALGORITHM,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "ContentType": RECORDIO,
                "DataSource": {"S3DataSource": source},
            }
        ],
    )
    job = endpoint.ended_training_job("fm-hosted")
    artefact = job["ModelArtifacts"]["S3ModelArtifacts"]
    endpoint.sagemaker.create_model(
        ModelName="fm-hosted", PrimaryContainer={"Image": IMAGE, "ModelDataUrl": artefact}
    )
    endpoint.host("fm-hosted", {"ModelName": "fm-hosted"})
    description = endpoint.settled_endpoint("fm-hosted")
    assert description["EndpointStatus"] == "InService", description
    yield "fm-hosted"
    endpoint.sagemaker.delete_endpoint(EndpointName="fm-hosted")


def ask(endpoint: Endpoint, name: str, body: bytes, content_type: str, accept: str) -> bytes:
    response = endpoint.invoke(name, Body=body, ContentType=content_type, Accept=accept)
    assert response["ContentType"].split(";")[0] == accept
    answer: bytes = response["Body"].read()
    return answer


def test_the_model_gives_the_same_scores_in_every_format(endpoint: Endpoint, hosted: str) -> None:
    X: csr_matrix = ratings(seed=1)[0][:ASKED]
    instances = [
        {
            "data": {
                "features": {
                    "keys": row.indices.tolist(),
                    "shape": [row.shape[1]],
                    "values": row.data.tolist(),
                }
            }
        }
        for row in (X[number] for number in range(ASKED))
    ]
    answer = ask(
        endpoint,
        hosted,
        json.dumps({"instances": instances}).encode(),
        "application/json",
        "application/json",
    )
    scores = [prediction["score"] for prediction in json.loads(answer)["predictions"]]
    assert len(set(scores)) > 1

    lines = "\n".join(json.dumps(instance) for instance in instances).encode()
    answer = ask(endpoint, hosted, lines, "application/jsonlines", "application/jsonlines")
    assert [json.loads(line)["score"] for line in answer.splitlines()] == scores

    answer = ask(endpoint, hosted, encode_recordio(X), RECORDIO, "application/jsonlines")
    assert [json.loads(line)["score"] for line in answer.splitlines()] == scores

    answer = ask(endpoint, hosted, encode_recordio(X), RECORDIO, RECORDIO)
    packed = b"".join(np.float32(score).tobytes() for score in scores)
    assert all(packed[at : at + 4] in answer for at in range(0, len(packed), 4))


def test_what_the_model_refuses_is_a_client_error(endpoint: Endpoint, hosted: str) -> None:
    with pytest.raises(endpoint.runtime.exceptions.ModelError) as caught:
        ask(endpoint, hosted, b"1,2", "text/csv", "application/json")
    assert caught.value.response["OriginalStatusCode"] == 415
