"""The training program: ``python -m recsys_assets.domain.factorization_machine.container.train``.

What belongs here: one training job from its configuration to ``model_algo-1``, told in the
built-in's log lines. What does not: the training itself.

A job's records are held in memory, unless its solver is "adam" and the ``train`` channel is larger
than ``channels.MAX_BYTES_IN_MEMORY`` or in Pipe mode: then they are read anew in each epoch, which
gives the same model. The ``test`` channel is scored at the end; with early_stopping_patience it is
the validation data too, and is scored after each epoch.

The built-in has no hyperparameter for a seed, so the environment variable
FACTORIZATION_MACHINE_SEED (0 if not set; a job's Environment in the SageMaker API) is where another
one comes from.

The program exits with 0, or with 1 and the reason in ``output/failure``. SIGTERM, with which
SageMaker stops a job, ends it at once; nothing is in ``model/`` before the model is whole.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

from recsys_assets.domain.factorization_machine.artefact import MODEL_FILE, write_model
from recsys_assets.domain.factorization_machine.container.channels import Channel
from recsys_assets.domain.factorization_machine.container.layout import ClientError, Layout
from recsys_assets.domain.factorization_machine.container.log import TrainingLog, write_error
from recsys_assets.domain.factorization_machine.estimator import FactorizationMachineEstimator
from recsys_assets.domain.factorization_machine.extensions import ExtendedHyperparameters
from recsys_assets.domain.factorization_machine.hyperparameters import HyperparameterError
from recsys_assets.domain.factorization_machine.metrics import quality
from recsys_assets.domain.factorization_machine.model import FactorizationMachine
from recsys_assets.domain.factorization_machine.payloads import RECORDIO, media_type
from recsys_assets.domain.factorization_machine.solvers.common import (
    DivergenceError,
    Progress,
    Records,
)

CHANNELS = ("train", "test")
SEED_VARIABLE = "FACTORIZATION_MACHINE_SEED"


def main() -> int:
    """Run the training job that the environment describes; return the exit code."""
    if os.getpid() == 1:  # the kernel keeps from it, in a container, what it has no handler for
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    layout = Layout.from_environment()
    try:
        run(layout, os.environ.get(SEED_VARIABLE, "0"))
    except (ClientError, HyperparameterError, DivergenceError) as error:
        return _fail(layout, f"ClientError: {error}")
    except Exception as error:  # whatever it is, SageMaker is to be told the reason
        traceback.print_exc()
        return _fail(layout, f"AlgorithmError: {type(error).__name__}: {error}")
    return 0


def run(layout: Layout, seed: str = "0") -> None:
    """Train on the `train` channel, score the `test` channel if there is one, write the model.

    Raises
    ------
    ClientError, HyperparameterError, DivergenceError
        If the job cannot be done as its caller wants it.
    """
    start = time.time()
    log = TrainingLog(_only_host(layout))
    if not (seed.isascii() and seed.isdecimal()):
        raise ClientError(f"expected {SEED_VARIABLE} to be a whole number from 0, got {seed!r}")
    hyperparameters = _read_hyperparameters(layout, log)
    channels = _channels(layout, hyperparameters)
    test = channels["test"].read() if "test" in channels else None
    estimator = FactorizationMachineEstimator(hyperparameters, random_state=int(seed))
    fit = _with_records(estimator, channels["train"])
    ready = time.time()
    with channels["train"].named():
        _fit(fit, channels["train"], test, hyperparameters, log)
    model = estimator.model_
    if test is not None:
        X, y = test
        metrics = quality(hyperparameters.predictor_type, model.predict(X), y)
        log.test_scores(metrics)
        log.quality(metrics, "test")
    _write_whole(layout, model)
    end = time.time()
    log.timings(
        start, end, {"setuptime": 1000 * (ready - start), "totaltime": 1000 * (end - start)}
    )


def _read_hyperparameters(layout: Layout, log: TrainingLog) -> ExtendedHyperparameters:
    defaults = ExtendedHyperparameters.defaults()
    provided = layout.read_hyperparameters()
    log.info(f"Reading default configuration: {defaults}")
    log.info(f"Merging with provided configuration from {layout.hyperparameters_file}: {provided}")
    log.info(f"Final configuration: {defaults | provided}")
    return ExtendedHyperparameters.from_strings(provided)


def _only_host(layout: Layout) -> str:
    host, hosts = layout.read_host()
    if len(hosts) != 1:
        raise ClientError(f"expected InstanceCount 1, got the hosts {', '.join(hosts)}")
    return host


def _channels(layout: Layout, hyperparameters: ExtendedHyperparameters) -> dict[str, Channel]:
    """Return the job's channels once their configuration is known to be good."""
    configs = layout.read_channels()
    if "train" not in configs:
        raise ClientError("'train' is a required property of the input channels")
    if "test" not in configs and hyperparameters.early_stopping_patience is not None:
        raise ClientError(
            "'test' is a required property of the input channels when 'early_stopping_patience' "
            "is given"
        )
    for name, config in configs.items():
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
    return {
        name: Channel(name, config.get("TrainingInputMode", "File"), layout, hyperparameters)
        for name, config in configs.items()
    }


def _with_records(
    estimator: FactorizationMachineEstimator, train: Channel
) -> Callable[..., FactorizationMachineEstimator]:
    """Return the fitting of an estimator, with its records at hand or to be read as it goes."""
    if estimator.hyperparameters.solver == "adam" and train.may_be_large:
        return partial(estimator.fit_stream, train.chunks)
    return partial(estimator.fit, *train.read())


def _fit(
    fit: Callable[..., FactorizationMachineEstimator],
    train: Channel,
    test: Records | None,
    hyperparameters: ExtendedHyperparameters,
    log: TrainingLog,
) -> None:
    """Fit the model, and log what each epoch has come to."""
    patience = hyperparameters.early_stopping_patience
    epochs: list[Progress] = []
    epoch_start = time.time()

    def report(progress: Progress) -> None:
        nonlocal epoch_start
        if progress.batch is not None:
            log.quality(progress.metrics, f"epoch={progress.epoch}, batch={progress.batch} train")
            return
        epochs.append(progress)
        log.quality(progress.metrics, f"epoch={progress.epoch}, train")
        log.quality(progress.validation, f"epoch={progress.epoch}, validation")
        end = time.time()
        log.timings(epoch_start, end, {"update.time": 1000 * (end - epoch_start)})
        log.progress(100 * len(epochs) / hyperparameters.epochs)
        log.throughput(train.records / max(end - epoch_start, 1e-9))
        epoch_start = end

    fit(validation=None if patience is None else test, report=report)
    if len(epochs) < hyperparameters.epochs:
        log.info(
            f"Early stopping: {patience} epochs have not improved the validation loss; the model "
            "is that of the epoch before them"
        )
    log.quality(epochs[-1].metrics, "train")


def _write_whole(layout: Layout, model: FactorizationMachine) -> None:
    """Write the model aside, then move it to where SageMaker looks even if the job is stopped."""
    layout.model.mkdir(parents=True, exist_ok=True)
    unfinished = layout.base / f"{MODEL_FILE}.unfinished"
    write_model(unfinished, model)
    shutil.move(unfinished, layout.model / MODEL_FILE)  # which may be on another volume


def _fail(layout: Layout, reason: str) -> int:
    write_error(reason)
    layout.failure.parent.mkdir(parents=True, exist_ok=True)
    layout.failure.write_text(reason, encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main())
