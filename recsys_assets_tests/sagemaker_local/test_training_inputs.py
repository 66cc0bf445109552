"""What training jobs read and leave beyond files and an archive: pipes, manifests, checkpoints."""

import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from recsys_assets.domain.recordio import encode_recordio
from recsys_assets.sagemaker_local.containers.container import Container, ContainerFolder
from recsys_assets.sagemaker_local.containers.private_mount import private_mounts_work
from recsys_assets.sagemaker_local.context import Context
from recsys_assets.sagemaker_local.images import Images
from recsys_assets.sagemaker_local.jobs.background import Background
from recsys_assets.sagemaker_local.jobs.run import JobFailed
from recsys_assets.sagemaker_local.jobs.training import TrainingRun
from recsys_assets.sagemaker_local.s3 import ObjectStore
from recsys_assets.sagemaker_local.store import Store
from recsys_assets_tests.sagemaker_local.endpoint import BUCKET, Endpoint, eventually
from recsys_assets_tests.sagemaker_local.test_training import FM_IMAGE, algorithm, channel, md5

needs_private_mounts = pytest.mark.skipif(
    not private_mounts_work(), reason="needs Linux with user namespaces"
)


def manifest(name: str, key: str) -> dict[str, Any]:
    source = {"S3DataType": "ManifestFile", "S3Uri": f"s3://{BUCKET}/{key}"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def seen(endpoint: Endpoint, name: str) -> dict[str, Any]:
    """Return what the stand-in program of a completed job has noted."""
    job = endpoint.ended_training_job(name)
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    noted: dict[str, Any] = json.loads(
        endpoint.archive(job["ModelArtifacts"]["S3ModelArtifacts"])["seen.json"]
    )
    return noted


def test_a_pipe_is_fed_from_s3_again_in_every_epoch(endpoint: Endpoint) -> None:
    endpoint.put("pipes/train/part-1", b"one ")
    endpoint.put("pipes/train/part-2", b"two ")
    endpoint.put("pipes/test/zipped-1", gzip.compress(b"three ") + gzip.compress(b"four "))
    endpoint.put("pipes/test/zipped-2", gzip.compress(b"five"))
    endpoint.put("pipes/files/six", b"six")
    endpoint.train(
        "pipes",
        {"epochs": 3},
        AlgorithmSpecification=algorithm(TrainingInputMode="Pipe"),
        InputDataConfig=[
            channel("train", "pipes/train"),
            channel("test", "pipes/test", CompressionType="Gzip"),
            channel("files", "pipes/files", InputMode="FastFile"),
        ],
    )
    noted = seen(endpoint, "pipes")
    assert noted["pipes"] == {"train": ["one two "] * 3, "test": ["three four five"] * 3}
    assert noted["files"] == {"files/six": md5(b"six")}
    modes = {name: item["TrainingInputMode"] for name, item in noted["inputdataconfig"].items()}
    assert modes == {"train": "Pipe", "test": "Pipe", "files": "FastFile"}


def test_a_pipe_may_be_closed_early_or_never_opened(endpoint: Endpoint) -> None:
    endpoint.put("early/in/large", b"x" * (1 << 20))  # more than a pipe holds
    specification = algorithm(TrainingInputMode="Pipe")
    channels = [channel("train", "early/in")]
    changes = {"AlgorithmSpecification": specification, "InputDataConfig": channels}
    endpoint.train("early", {"epochs": 2, "early_close": 1}, **changes)
    endpoint.train("unopened", **changes)
    assert seen(endpoint, "early")["pipes"] == {"train": ["x", "x"]}
    assert seen(endpoint, "unopened")["pipes"] == {"train": []}


def test_shuffling_gives_each_epoch_an_order_that_the_seed_decides(endpoint: Endpoint) -> None:
    letters = "abcdefghij"
    for letter in letters:
        endpoint.put(f"shuffled/in/{letter}", letter.encode())
    for name, seed in (("shuffled-1", 7), ("shuffled-2", 7), ("shuffled-3", 8)):
        endpoint.train(
            name,
            {"epochs": 2},
            AlgorithmSpecification=algorithm(TrainingInputMode="Pipe"),
            InputDataConfig=[channel("train", "shuffled/in", ShuffleConfig={"Seed": seed})],
        )
    first, again, other = (
        seen(endpoint, f"shuffled-{number}")["pipes"]["train"] for number in (1, 2, 3)
    )
    assert all(sorted(epoch) == list(letters) for epoch in first)
    assert len({letters, *first, *other}) == 5
    assert first == again


@needs_private_mounts
def test_data_that_cannot_be_streamed_fails_the_job_though_its_program_ends_well(
    endpoint: Endpoint,
) -> None:
    endpoint.put("broken/in/1", b"no gzip")
    endpoint.train(
        "broken",
        AlgorithmSpecification=algorithm(
            TrainingInputMode="Pipe", ContainerEntrypoint=["cat", "/opt/ml/input/data/train_0"]
        ),
        InputDataConfig=[channel("train", "broken/in", CompressionType="Gzip")],
    )
    job = endpoint.ended_training_job("broken")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        f"ClientError: Data download failed: s3://{BUCKET}/broken/in: Not a gzipped file"
    )


class FailsAtTheEnd(Background):
    """Work that fails when the program has ended."""

    def _work(self) -> None:
        self._ending.wait()
        raise JobFailed("late")


def test_work_that_fails_as_the_program_ends_fails_the_job(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    folder = ContainerFolder(tmp_path / "job" / "ml")
    folder.create()
    run = TrainingRun(Context(store, ObjectStore(), Images(), tmp_path, lock=1), "late")
    container = Container(["true"], folder, {}, lambda lines: None, lock=1)
    with pytest.raises(JobFailed, match="late"):
        run._await_end(container, 60, [FailsAtTheEnd()])
    store.close()


def test_a_stopped_job_leaves_its_pipes_at_once(endpoint: Endpoint) -> None:
    endpoint.put("hung/in/large", b"x" * (1 << 20))
    endpoint.train(
        "hung",
        {"seconds": 600},
        AlgorithmSpecification=algorithm(TrainingInputMode="Pipe"),
        InputDataConfig=[channel("train", "hung/in")],
    )
    eventually(lambda: "started" in endpoint.log_lines("Training", "hung"))
    endpoint.sagemaker.stop_training_job(TrainingJobName="hung")
    assert endpoint.ended_training_job("hung")["TrainingJobStatus"] == "Stopped"
    eventually(lambda: not list(endpoint.state.glob("jobs/*/hung")))


def test_a_manifest_names_the_objects_of_a_channel(endpoint: Endpoint) -> None:
    for name in ("1", "deep/2", "3"):
        endpoint.put(f"listed/in/{name}", name.encode())
    endpoint.put(
        "listed/manifest",
        json.dumps([{"prefix": f"s3://{BUCKET}/listed/in/"}, "deep/2", "1"]).encode(),
    )
    endpoint.train("listed", InputDataConfig=[manifest("train", "listed/manifest")])
    assert seen(endpoint, "listed")["files"] == {
        "train/1": md5(b"1"),
        "train/deep/2": md5(b"deep/2"),
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("shape", '["a", "b"]', "is not a manifest: expected"),
        ("json", "a,b", "Data download failed: .*Expecting value"),
        ("leading-out", '[{"prefix": "s3://b/"}, "../a"]', "'../a' does not name a file below"),
        ("nothing", '[{"prefix": "s3://b/"}]', "No S3 objects found under S3 URL"),
        ("elsewhere", '[{"prefix": "https://b/"}, "a"]', "must be of the form s3://bucket/key"),
        ("absent", f'[{{"prefix": "s3://{BUCKET}/absent/"}}, "a"]', "Data download failed: .*404"),
    ],
)
def test_a_manifest_that_cannot_be_followed_fails_the_job(
    endpoint: Endpoint, name: str, content: str, reason: str
) -> None:
    endpoint.put(f"manifests/{name}", content.encode())
    endpoint.train(f"manifest-{name}", InputDataConfig=[manifest("train", f"manifests/{name}")])
    job = endpoint.ended_training_job(f"manifest-{name}")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: ")
    with pytest.raises(AssertionError, match=reason):
        seen(endpoint, f"manifest-{name}")


def test_checkpoints_are_kept_in_s3_and_found_by_the_next_job(endpoint: Endpoint) -> None:
    checkpoints = {"S3Uri": f"s3://{BUCKET}/checkpoints/kept"}
    endpoint.put("checkpoints/kept-by-another/runs", b"100")
    for name in ("kept-1", "kept-2"):
        endpoint.train(name, {"checkpoint": 1}, CheckpointConfig=checkpoints)
        seen(endpoint, name)
    job = endpoint.training_job("kept-2")
    assert job["CheckpointConfig"] == {**checkpoints, "LocalPath": "/opt/ml/checkpoints"}
    assert endpoint.get("checkpoints/kept/runs") == b"2"
    log = endpoint.log_lines("Training", "kept-2")
    assert "run 2, found ['runs']" in log  # and nothing of the prefix that begins alike
    assert sorted(endpoint.keys("checkpoints/kept")) == [
        "checkpoints/kept-by-another/runs",
        "checkpoints/kept/runs",
    ]


def test_a_job_that_lost_its_endpoint_goes_on_from_its_checkpoint(own_endpoint: Endpoint) -> None:
    own_endpoint.start()
    own_endpoint.train(
        "lost",
        {"checkpoint": 1, "seconds": 600},
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/lost/"},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 700},
    )
    eventually(lambda: own_endpoint.keys("checkpoints/lost/"))  # uploaded while it runs
    own_endpoint.signal(signal.SIGKILL)
    own_endpoint.start()
    eventually(lambda: "run 2, found ['runs']" in own_endpoint.log_lines("Training", "lost"))
    own_endpoint.sagemaker.stop_training_job(TrainingJobName="lost")
    job = own_endpoint.ended_training_job("lost")
    assert job["TrainingJobStatus"] == "Stopped"
    assert own_endpoint.get("checkpoints/lost/runs") == b"2"
    assert "Interrupted" in [step["Status"] for step in job["SecondaryStatusTransitions"]]


def test_an_uncompressed_model_is_left_file_by_file(endpoint: Endpoint) -> None:
    endpoint.train(
        "uncompressed",
        {"output_data": "notes"},
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/plain", "CompressionType": "NONE"},
    )
    job = endpoint.ended_training_job("uncompressed")
    assert job["ModelArtifacts"] == {
        "S3ModelArtifacts": f"s3://{BUCKET}/plain/uncompressed/output/model/"
    }
    assert endpoint.keys("plain/") == [
        "plain/uncompressed/output/data/notes.txt",
        "plain/uncompressed/output/model/seen.json",
    ]


@needs_private_mounts
def test_an_entrypoint_of_the_request_finds_its_job_at_opt_ml(endpoint: Endpoint) -> None:
    endpoint.put("own/in/a.txt", b"content")
    script = (
        "set -e; cd /opt/ml; cp input/data/train/a.txt model/copy.txt;"
        ' echo "$@" > model/arguments.txt; id -u > model/user.txt;'
        " python -c 'import recsys_assets; print(recsys_assets.__name__)'"
    )
    endpoint.train(
        "own",
        InputDataConfig=[channel("train", "own/in")],
        AlgorithmSpecification=algorithm(
            ContainerEntrypoint=["/bin/sh", "-c", script], ContainerArguments=["sh", "a b", "c"]
        ),
    )
    job = endpoint.ended_training_job("own")
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    files = endpoint.archive(job["ModelArtifacts"]["S3ModelArtifacts"])
    assert files["copy.txt"] == b"content"
    assert files["arguments.txt"] == b"a b c\n"
    assert int(files["user.txt"]) == os.getuid()
    assert "recsys_assets" in endpoint.log_lines("Training", "own")  # the endpoint's own Python


def test_arguments_of_the_request_go_to_the_images_program(endpoint: Endpoint) -> None:
    endpoint.train(
        "arguments", AlgorithmSpecification=algorithm(ContainerArguments=["train", "--deep", "3"])
    )
    assert seen(endpoint, "arguments")["arguments"] == ["--deep", "3"]


def test_the_built_in_makes_the_same_model_of_pipes_as_of_files(endpoint: Endpoint) -> None:
    X = csr_matrix(random_array((300, 6), density=0.5, rng=0, dtype=np.float32))
    stars = np.random.default_rng(0).integers(1, 6, 300).astype(np.float32)
    # Their numbers have another order than their keys.
    for part, rows in (("a/2", slice(100)), ("a/10", slice(100, 200)), ("b", slice(200, 300))):
        endpoint.put(f"modes/train/{part}", encode_recordio(X[rows], stars[rows]))
    endpoint.put("modes/test", encode_recordio(X[:50], stars[:50]))
    hyperparameters = {
        "feature_dim": 6,
        "num_factors": 2,
        "predictor_type": "regressor",
        "epochs": 3,
        "mini_batch_size": 20,  # so that the order of the rows matters
    }
    models = []
    for mode in ("File", "Pipe"):
        endpoint.train(
            f"mode-{mode}",
            hyperparameters,
            AlgorithmSpecification=algorithm(TrainingImage=FM_IMAGE, TrainingInputMode=mode),
            InputDataConfig=[channel("train", "modes/train"), channel("test", "modes/test")],
        )
    for mode in ("File", "Pipe"):
        job = endpoint.ended_training_job(f"mode-{mode}")
        assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
        models.append(endpoint.archive(job["ModelArtifacts"]["S3ModelArtifacts"])["model_algo-1"])
    assert models[0] == models[1]
