"""The training program: ``python -m recsys_assets.domain.factorization_machine.container.train``.

What belongs here: one training job from its configuration to ``model_algo-1``, told in the
built-in's log lines. What does not: the training itself.

A channel in Pipe mode is read from its first pipe and kept in memory for all epochs, as one in
File mode is, so that both give the same model.

The program exits with 0, or with 1 and the reason in ``output/failure``. SIGTERM, with which
SageMaker stops a job, ends it at once; nothing is in ``model/`` before the model is whole.
"""

import sys
import time
import traceback

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.artefact import MODEL_FILE, write_model
from recsys_assets.domain.factorization_machine.container.layout import ClientError, Layout
from recsys_assets.domain.factorization_machine.container.log import TrainingLog, write_error
from recsys_assets.domain.factorization_machine.hyperparameters import (
    HyperparameterError,
    Hyperparameters,
)
from recsys_assets.domain.factorization_machine.metrics import quality
from recsys_assets.domain.factorization_machine.model import DataError, FactorizationMachine
from recsys_assets.domain.factorization_machine.payloads import RECORDIO, media_type
from recsys_assets.domain.factorization_machine.training import (
    DivergenceError,
    Progress,
    check_records,
    train,
)
from recsys_assets.domain.recordio import RecordIOError, read_recordio

CHANNELS = ("train", "test")

Records = tuple[csr_matrix, npt.NDArray[np.float32]]


def main() -> int:
    """Run the training job that the environment describes; return the exit code."""
    layout = Layout.from_environment()
    try:
        run(layout)
    except (ClientError, HyperparameterError, DataError, RecordIOError, DivergenceError) as error:
        return _fail(layout, f"ClientError: {error}")
    except Exception as error:  # whatever it is, SageMaker is to be told the reason
        traceback.print_exc()
        return _fail(layout, f"AlgorithmError: {type(error).__name__}: {error}")
    return 0


def run(layout: Layout) -> None:
    """Train on the `train` channel, score the `test` channel if there is one, write the model.

    Raises
    ------
    ClientError, HyperparameterError, DataError, RecordIOError, DivergenceError
        If the job cannot be done as its caller wants it.
    """
    start = time.time()
    log = TrainingLog(_only_host(layout))
    hyperparameters = _read_hyperparameters(layout, log)
    data = {
        name: _read_channel(layout, name, input_mode, hyperparameters)
        for name, input_mode in _channels(layout).items()
    }
    ready = time.time()
    model = _train(*data["train"], hyperparameters, log)
    if "test" in data:
        X, y = data["test"]
        metrics = quality(hyperparameters.predictor_type, model.predict(X), y)
        log.test_scores(metrics)
        log.quality(metrics, "test")
    _write_whole(layout, model)
    end = time.time()
    log.timings(
        start, end, {"setuptime": 1000 * (ready - start), "totaltime": 1000 * (end - start)}
    )


def _read_hyperparameters(layout: Layout, log: TrainingLog) -> Hyperparameters:
    defaults = Hyperparameters.defaults()
    provided = layout.read_hyperparameters()
    log.info(f"Reading default configuration: {defaults}")
    log.info(f"Merging with provided configuration from {layout.hyperparameters_file}: {provided}")
    log.info(f"Final configuration: {defaults | provided}")
    return Hyperparameters.from_strings(provided)


def _only_host(layout: Layout) -> str:
    host, hosts = layout.read_host()
    if len(hosts) != 1:
        raise ClientError(f"expected InstanceCount 1, got the hosts {', '.join(hosts)}")
    return host


def _channels(layout: Layout) -> dict[str, str]:
    """Return the input modes of the job's channels once their configuration is known to be good."""
    channels = layout.read_channels()
    if "train" not in channels:
        raise ClientError("'train' is a required property of the input channels")
    for name, config in channels.items():
        if name not in CHANNELS:
            raise ClientError(
                f"Additional properties are not allowed ({name!r} was unexpected): expected the "
                f"input channels {' and '.join(CHANNELS)}"
            )
        content_type = config.get("ContentType") or RECORDIO
        if media_type(content_type) != RECORDIO:
            raise ClientError(
                f"channel {name!r}: expected ContentType {RECORDIO}, got {content_type}"
            )
    return {name: config.get("TrainingInputMode", "File") for name, config in channels.items()}


def _read_channel(
    layout: Layout, name: str, input_mode: str, hyperparameters: Hyperparameters
) -> Records:
    try:
        X, y = read_recordio(layout.channel_files(name, input_mode))
        if y is None:
            raise DataError(f"expected records with labels, found {X.shape[0]} without")
        check_records(X, y, hyperparameters)
    except (RecordIOError, DataError) as error:
        raise ClientError(f"channel {name!r}: {error}") from None
    return X, y


def _train(
    X: csr_matrix, y: npt.NDArray[np.float32], hyperparameters: Hyperparameters, log: TrainingLog
) -> FactorizationMachine:
    epoch_start = time.time()

    def report(progress: Progress) -> None:
        nonlocal epoch_start
        if progress.batch is not None:
            log.quality(progress.metrics, f"epoch={progress.epoch}, batch={progress.batch} train")
            return
        log.quality(progress.metrics, f"epoch={progress.epoch}, train")
        done = progress.epoch + 1
        if done == hyperparameters.epochs:
            log.quality(progress.metrics, "train")
        end = time.time()
        log.timings(epoch_start, end, {"update.time": 1000 * (end - epoch_start)})
        log.progress(100 * done / hyperparameters.epochs)
        log.throughput(X.shape[0] / max(end - epoch_start, 1e-9))
        epoch_start = end

    return train(X, y, hyperparameters, report=report)


def _write_whole(layout: Layout, model: FactorizationMachine) -> None:
    """Write the model aside, then move it to where SageMaker looks even if the job is stopped."""
    layout.model.mkdir(parents=True, exist_ok=True)
    partial = layout.base / f"{MODEL_FILE}.partial"
    write_model(partial, model)
    partial.replace(layout.model / MODEL_FILE)


def _fail(layout: Layout, reason: str) -> int:
    write_error(reason)
    layout.failure.parent.mkdir(parents=True, exist_ok=True)
    layout.failure.write_text(reason, encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main())
