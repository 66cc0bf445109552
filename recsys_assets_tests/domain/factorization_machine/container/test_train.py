"""The training program: what it reads, logs and leaves, and how it fails."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy.sparse import csr_matrix, random_array, vstack

from recsys_assets.domain.factorization_machine.artefact import read_model
from recsys_assets.domain.factorization_machine.container import channels
from recsys_assets.domain.factorization_machine.container.layout import ClientError, Layout
from recsys_assets.domain.factorization_machine.container.train import run
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.hyperparameters import HyperparameterError
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.factorization_machine.solvers.adam import train
from recsys_assets.domain.recordio import encode_recordio
from recsys_assets.sagemaker_local.images import BUILT_IN
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

    expected = train(X, STARS, ExtendedHyperparameters.from_strings(REGRESSOR))
    model = read_model(container.base / "model" / "model_algo-1")
    np.testing.assert_array_equal(model.factors, expected.factors)
    np.testing.assert_array_equal(model.linear, expected.linear)
    assert model.bias == expected.bias
    assert [path.name for path in (container.base / "model").iterdir()] == ["model_algo-1"]
    assert not (container.base / "output" / "failure").exists()

    rmse = float(np.sqrt(np.mean((expected.predict(X[:50]) - STARS[:50]) ** 2)))
    assert values("test:rmse", output) == pytest.approx([rmse])
    assert len(values("train:rmse:epoch", output)) == 2
    assert "validation" not in output  # which nobody has asked for
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


def run_with(container: Container, seed: str = "0", **changes: object) -> None:
    """Run a job in this process."""
    container.configure("hyperparameters", REGRESSOR | changes)
    run(Layout(container.base), seed)


def failure_of(container: Container, **changes: object) -> str:
    """Run a job in this process and return why it failed."""
    with pytest.raises((ClientError, HyperparameterError)) as caught:
        run_with(container, **changes)
    return str(caught.value)


def model_of(container: Container) -> FactorizationMachine:
    return read_model(container.base / "model" / "model_algo-1")


def artefact_of(container: Container) -> bytes:
    return (container.base / "model" / "model_algo-1").read_bytes()


def test_channels_that_cannot_be_used_are_refused(container: Container) -> None:
    assert failure_of(container) == "'train' is a required property of the input channels"
    container.configure("inputdataconfig", {"train": {}})
    assert failure_of(container) == "channel 'train': expected at least one record, got none"
    container.add_file("train", "a", X, None)
    assert failure_of(container) == "channel 'train': expected records with labels, got none"
    container.add_file("train", "a", X, STARS, ContentType="text/csv")
    assert "channel 'train': expected ContentType application/x-reco" in failure_of(container)
    container.add_file("train", "a", X, STARS)
    assert "expected labels 0 or 1" in failure_of(container, predictor_type="binary_classifier")
    container.add_file("validation", "a", X, STARS)
    assert "not allowed ('validation' was unexpected)" in failure_of(container)


def changed(X: csr_matrix, index: int | None = None, value: float = 1) -> csr_matrix:
    """Return records, in the eleventh of which one entry is another."""
    X = X.copy()
    entry = X.indptr[10]
    X.data[entry] = value
    if index is not None:
        X.indices[entry] = index
    return X


@pytest.mark.parametrize("channel", ["train", "test"])
@pytest.mark.parametrize(
    ("records", "labels", "reason"),
    [
        (changed(X, value=np.nan), STARS, r"expected finite values, got nan of .* in record 10"),
        (changed(X, value=-np.inf), STARS, r"expected finite values, got -inf of .* in record 10"),
        (changed(X, index=12), STARS, r"a: byte \d+: record 10 has key 12, outside 12 columns"),
        (X, np.where(np.arange(1100) == 10, np.inf, STARS), "finite labels, got inf in record 10"),
        (X[:0], STARS[:0], "expected at least one record, got none"),
        (X[:, :11], STARS, r"expected records of 12 features \(feature_dim\), got 11"),
    ],
    ids=["nan", "infinite", "out-of-range", "label", "empty", "width"],
)
@pytest.mark.parametrize("mode", ["in memory", "streamed"])
def test_records_that_nothing_can_be_learned_from_fail_the_job(
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    channel: str,
    records: csr_matrix,
    labels: np.ndarray,
    reason: str,
    mode: str,
) -> None:
    if mode == "streamed":
        monkeypatch.setattr(channels, "MAX_BYTES_IN_MEMORY", 0)
    for name in ("train", "test"):
        container.add_file(name, "a", X, STARS)
    container.add_file(channel, "a", records, labels.astype(np.float32))
    assert re.match(rf"channel '{channel}': .*{reason}", failure_of(container))
    assert list((container.base / "model").iterdir()) == []


def test_a_single_record_is_learned_from(container: Container) -> None:
    container.add_file("train", "a", X[:1], STARS[:1])
    run_with(container)
    assert model_of(container).predict(X[:1]) != 0


def test_a_damaged_file_is_named(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    path = container.base / "input" / "data" / "train" / "a"
    path.write_bytes(path.read_bytes()[:-5])
    assert re.match(r"channel 'train': a: .*byte \d+: a record of", failure_of(container))


def test_configuration_that_cannot_be_used_is_refused(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    assert failure_of(container, epochs=3) == (
        "expected hyperparameter 'epochs' to be a string, got 3"
    )
    container.configure("resourceconfig", {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]})
    assert failure_of(container) == "expected InstanceCount 1, got the hosts algo-1, algo-2"
    (container.base / "input" / "config" / "resourceconfig.json").unlink()
    assert "cannot read resourceconfig.json" in failure_of(container)


@pytest.mark.parametrize("solver", ["adam", "sgd", "mcmc"])
def test_every_solver_leaves_a_model_that_has_learned(
    container: Container, capsys: pytest.CaptureFixture[str], solver: str
) -> None:
    y = np.asarray(X @ np.arange(12, dtype=np.float32) / 4).astype(np.float32)
    container.add_file("train", "a", X, y)
    container.add_file("test", "a", X, y)
    run_with(container, solver=solver, epochs="30", linear_lr="0.05", linear_wd="0")
    (rmse,) = values("test:rmse", capsys.readouterr().out)
    assert rmse < 0.2 * y.std()
    errors = model_of(container).predict(X) - y
    assert rmse == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)


def test_early_stopping_keeps_the_best_epoch_and_says_so(
    container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(1).normal(3, 1, 1100).astype(np.float32)
    container.add_file("train", "a", X[:50], noise[:50])  # few and random: soon learned by heart
    container.add_file("test", "a", X[50:], noise[50:])
    rates = {"factors_lr": "0.05", "mini_batch_size": "50", "epochs": "200"}
    run_with(container, early_stopping_patience="5", **rates)
    output = capsys.readouterr().out
    found = re.findall(r"epoch=(\d+), validation rmse <loss>=(\S+)", output)
    losses = [float(loss) for _, loss in found]
    best = int(np.argmin(losses))
    assert [int(epoch) for epoch, _ in found] == list(range(best + 6))
    assert 0 < best < 190
    assert "Early stopping: 5 epochs have not improved" in output
    assert values("test:rmse", output) == pytest.approx([losses[best]])
    assert len(values("train:rmse:epoch", output)) == len(losses)

    container.configure("inputdataconfig", {"train": {}})
    assert failure_of(container, early_stopping_patience="5") == (
        "'test' is a required property of the input channels when 'early_stopping_patience' is "
        "given"
    )


def test_validation_is_no_metric_of_the_built_in() -> None:
    line = "#quality_metric: host=algo-1, epoch=3, validation rmse <loss>=0.5"
    built_in = BUILT_IN["factorization-machines"].metric_definitions
    assert built_in
    assert [metric["Name"] for metric in built_in if re.search(metric["Regex"], line)] == []


def test_a_channel_too_large_for_memory_is_streamed_to_the_same_model(
    container: Container, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, rows in enumerate((slice(0, 301), slice(301, 302), slice(302, None))):
        container.add_file("train", f"part-{part}", X[rows], STARS[rows])
    hyperparameters = {"mini_batch_size": "7", "epochs": "3"}
    run_with(container, **hyperparameters)
    in_memory, output = artefact_of(container), capsys.readouterr().out
    size = sum(path.stat().st_size for path in (container.base / "input/data/train").iterdir())
    monkeypatch.setattr(channels, "MAX_BYTES_IN_MEMORY", size - 1)
    monkeypatch.setattr(channels, "read_recordio", None)  # which would read it whole
    run_with(container, **hyperparameters)
    assert artefact_of(container) == in_memory
    streamed = capsys.readouterr().out
    for metric in ("train:rmse:epoch", "train:rmse:batch", "train:progress"):
        assert values(metric, streamed) == values(metric, output)
    assert all(speed > 0 for speed in values("train:throughput", streamed))


def test_in_pipe_mode_each_epoch_has_a_pipe_of_its_own(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    run_with(container, epochs="3")
    from_files = artefact_of(container)
    container.add_file("train", "a", X, STARS, TrainingInputMode="Pipe")
    data = container.base / "input" / "data"
    content = encode_recordio(X, STARS)

    def feed() -> None:  # as SageMaker does: a pipe comes when the last one has been read
        for epoch in range(3):
            pipe = data / f"train_{epoch}"
            os.mkfifo(pipe)
            with pipe.open("wb") as writer:
                writer.write(content)
            pipe.unlink()

    feeder = threading.Thread(target=feed)
    feeder.start()
    run_with(container, epochs="3")
    feeder.join()
    assert artefact_of(container) == from_files


def test_a_solver_that_needs_all_records_reads_one_pipe(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    run_with(container, solver="sgd")
    from_files = artefact_of(container)
    container.add_file("train", "a", X, STARS, TrainingInputMode="Pipe")
    pipe = container.base / "input" / "data" / "train_0"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(encode_recordio(X, STARS)))
    feeder.start()
    run_with(container, solver="sgd")
    feeder.join()
    assert artefact_of(container) == from_files


def test_a_pipe_that_does_not_come_is_named(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "SECONDS_FOR_A_PIPE", 0.1)
    container.configure("inputdataconfig", {"train": {"TrainingInputMode": "Pipe"}})
    assert failure_of(container) == "channel 'train': expected a pipe, train_0"


def test_the_models_folder_may_be_a_volume_of_its_own(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", rename)
    container.add_file("train", "a", X, STARS)
    run_with(container)
    assert model_of(container).feature_dim == 12
    assert {path.name for path in container.base.iterdir()} == {"input", "model", "output"}


def test_the_seed_comes_from_the_environment(container: Container) -> None:
    container.add_file("train", "a", X, STARS)
    written = []
    for seed in ("0", "0", "1"):
        run_with(container, seed)
        written.append(artefact_of(container))
    assert written[0] == written[1] != written[2]
    container.configure("hyperparameters", REGRESSOR)
    process = container.start("train", FACTORIZATION_MACHINE_SEED="one")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert container.failure == (
        "ClientError: expected FACTORIZATION_MACHINE_SEED to be a whole number from 0, got 'one'"
    )


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


def test_sigterm_ends_training_as_a_containers_first_process(container: Container) -> None:
    first = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*first, "true"]).returncode != 0:
        pytest.skip("needs a machine that gives processes namespaces of their own (unshare)")
    container.add_file("train", "a", vstack([X] * 100, format="csr"), np.tile(STARS, 100))
    container.configure("hyperparameters", REGRESSOR | {"epochs": "1000000"})
    process = container.start("train", before=first)
    assert process.stdout is not None
    for line in process.stdout:
        if "#progress_metric" in line:
            break
    (program,) = psutil.Process(process.pid).children()
    program.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
