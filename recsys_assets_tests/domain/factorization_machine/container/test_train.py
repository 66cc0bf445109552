"""The training program: what it reads, logs and leaves, and how it fails."""

import json
import re
import signal
import time

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array, vstack

from recsys_assets.domain.factorization_machine.artefact import read_model
from recsys_assets.domain.factorization_machine.container.layout import ClientError, Layout
from recsys_assets.domain.factorization_machine.container.train import run
from recsys_assets.domain.factorization_machine.hyperparameters import (
    HyperparameterError,
    Hyperparameters,
)
from recsys_assets.domain.factorization_machine.training import train
from recsys_assets_tests.domain.factorization_machine.container.conftest import Container

X = csr_matrix(random_array((1100, 12), density=0.3, rng=0, dtype=np.float32))
STARS = np.random.default_rng(0).integers(1, 6, 1100).astype(np.float32)
LIKED = (STARS > 2).astype(np.float32)
REGRESSOR = {
    "feature_dim": "12",
    "num_factors": "4",
    "predictor_type": "regressor",
    "epochs": "2",
    "mini_batch_size": "2",
}

# The metric definitions that SageMaker attaches to jobs of the built-in.
METRICS = {
    "test:rmse": r"#quality_metric: host=\S+, test rmse <loss>=(\S+)",
    "train:rmse:epoch": r"#quality_metric: host=\S+, epoch=\S+, train rmse <loss>=(\S+)",
    "train:rmse:batch": r"#quality_metric: host=\S+, epoch=\S+, batch=\S+ train rmse <loss>=(\S+)",
    "train:progress": r"#progress_metric: host=\S+, completed (\S+) %",
    "train:throughput": r"#throughput_metric: host=\S+, train throughput=(\S+) records/second",
    "test:accuracy": r"host=\S+, test binary_classification_accuracy <score>=(\S+)",
    "test:cross_entropy": r"host=\S+, test binary_classification_cross_entropy <loss>=(\S+)",
    "test:binary_f_beta": r"host=\S+, test binary_f_\S+ <score>=(\S+)",
}


def values(metric: str, output: str) -> list[float]:
    return [float(found) for found in re.findall(METRICS[metric], output)]


def test_a_job_logs_the_built_ins_lines_and_leaves_the_model(container: Container) -> None:
    for part in (3, 0, 4, 1, 2):  # to be read in the order of their names
        rows = slice(220 * part, 220 * (part + 1))
        container.add_file("train", f"part-{part}", X[rows], STARS[rows])
    container.add_file("test", "test.protobuf", X[:50], STARS[:50])
    code, output = container.train(REGRESSOR)
    assert code == 0, output

    expected = train(X, STARS, Hyperparameters.from_strings(REGRESSOR))
    model = read_model(container.base / "model" / "model_algo-1")
    np.testing.assert_array_equal(model.factors, expected.factors)
    np.testing.assert_array_equal(model.linear, expected.linear)
    assert model.bias == expected.bias
    assert [path.name for path in (container.base / "model").iterdir()] == ["model_algo-1"]
    assert not (container.base / "output" / "failure").exists()

    rmse = float(np.sqrt(np.mean((expected.predict(X[:50]) - STARS[:50]) ** 2)))
    assert values("test:rmse", output) == pytest.approx([rmse])
    assert len(values("train:rmse:epoch", output)) == 2
    assert len(values("train:rmse:batch", output)) == 4  # batches 0 and 500 of each epoch
    assert values("train:progress", output) == [50.0, 100.0]
    assert all(speed > 0 for speed in values("train:throughput", output))
    lines = output.splitlines()
    clock = r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d INFO \d+\] "
    assert all(re.match(clock, line) or line.startswith("#metrics {") for line in lines)
    assert re.search(rf"{clock}#test_score \(algo-1\) : \('rmse', \d\.\d+\)", output)
    timings = [json.loads(line[9:]) for line in lines if line.startswith("#metrics ")]
    assert {name for line in timings for name in line["Metrics"]} == {
        "update.time",
        "setuptime",
        "totaltime",
    }
    assert "Merging with provided configuration from" in output


def test_a_classifier_logs_accuracy_cross_entropy_and_f1(container: Container) -> None:
    container.add_file("train", "a", X, LIKED)
    container.add_file("test", "a", X, LIKED)
    code, output = container.train(REGRESSOR | {"predictor_type": "binary_classifier"})
    assert code == 0, output
    for metric in ("test:accuracy", "test:cross_entropy", "test:binary_f_beta"):
        (value,) = values(metric, output)
        assert 0 < value < 1
    for line in (
        "host=algo-1, epoch=0, batch=0 train binary_classification_accuracy <score>=",
        "host=algo-1, epoch=1, batch=500 train binary_f_1.000 <score>=",
        "host=algo-1, epoch=1, train binary_classification_cross_entropy <loss>=",
        "host=algo-1, train binary_classification_cross_entropy <loss>=",
        "#test_score (algo-1) : ('binary_f_1.000', 0.",
    ):
        assert line in output
    assert read_model(container.base / "model" / "model_algo-1").predictor_type == (
        "binary_classifier"
    )


def test_without_a_test_channel_there_is_no_test_metric(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    code, output = container.train(REGRESSOR)
    assert code == 0, output
    assert "#test_score" not in output
    assert values("test:rmse", output) == []


def test_the_same_job_leaves_the_same_bytes(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    artefact = container.base / "model" / "model_algo-1"
    written = []
    for _ in range(2):
        assert container.train(REGRESSOR)[0] == 0
        written.append(artefact.read_bytes())
        artefact.unlink()
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"mini_batch_siz": "3"},
            r"ClientError: Additional properties are not allowed \('mini_batch_siz' was unexpected",
        ),
        ({"feature_dim": "abc"}, "ClientError: 'abc' is not valid under any of the given schemas"),
        (
            {"feature_dim": "13"},
            r"ClientError: channel 'train': expected records of 13 features .*, got 12",
        ),
        ({"factors_lr": "1e30"}, r"ClientError: training diverged in epoch 0.*factors_lr \(1e\+30"),
        ({"num_factors": "1000000000000"}, "AlgorithmError: .*Memory"),
    ],
)
def test_a_job_that_cannot_be_done_fails_with_the_reason(
    container: Container, changes: dict[str, object], reason: str
) -> None:
    container.add_file("train", "a", X, STARS)
    code, output = container.train(REGRESSOR | changes)
    assert code == 1
    assert re.match(reason, container.failure)
    assert container.failure in output
    assert list((container.base / "model").iterdir()) == []


def failure_of(container: Container, **changes: object) -> str:
    """Run a job in this process and return why it failed."""
    container.configure("hyperparameters", REGRESSOR | changes)
    with pytest.raises((ClientError, HyperparameterError)) as caught:
        run(Layout(container.base))
    return str(caught.value)


def test_channels_that_cannot_be_used_are_refused(container: Container) -> None:
    assert failure_of(container) == "'train' is a required property of the input channels"
    container.configure("inputdataconfig", {"train": {}})
    assert failure_of(container) == "channel 'train': expected records with labels, found 0 without"
    container.add_file("train", "a", X, None)
    assert "channel 'train': expected records with labels, found 1100" in failure_of(container)
    container.add_file("train", "a", X, STARS, ContentType="text/csv")
    assert "channel 'train': expected ContentType application/x-reco" in failure_of(container)
    container.add_file("train", "a", X, STARS)
    assert "expected labels 0 or 1" in failure_of(container, predictor_type="binary_classifier")
    container.add_file("validation", "a", X, STARS)
    assert "not allowed ('validation' was unexpected)" in failure_of(container)


def test_a_damaged_file_is_named(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    path = container.base / "input" / "data" / "train" / "a"
    path.write_bytes(path.read_bytes()[:-5])
    assert re.match(r"channel 'train': a: byte \d+: a record of", failure_of(container))


def test_configuration_that_cannot_be_used_is_refused(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    assert failure_of(container, epochs=3) == (
        "expected hyperparameter 'epochs' to be a string, got 3"
    )
    container.configure("resourceconfig", {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]})
    assert failure_of(container) == "expected InstanceCount 1, got the hosts algo-1, algo-2"
    (container.base / "input" / "config" / "resourceconfig.json").unlink()
    assert "cannot read resourceconfig.json" in failure_of(container)


def test_sigterm_ends_training_at_once_and_leaves_no_model(container: Container) -> None:
    container.add_file("train", "a", vstack([X] * 100, format="csr"), np.tile(STARS, 100))
    container.configure("hyperparameters", REGRESSOR | {"epochs": "1000000"})
    process = container.start("train")
    assert process.stdout is not None
    for line in process.stdout:
        if "#progress_metric" in line:
            break
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert time.monotonic() - asked < 30  # of the hours that the job would take
    assert list((container.base / "model").iterdir()) == []
