"""Trains a gradient-boosted regressor, as a script of a SageMaker training job.

Reads CSV files without a header, the label in the first column, from the channels `train` and
`validation`; writes the model as JSON. The validation error of each round is logged for SageMaker
to read, and to MLflow where MLFLOW_TRACKING_URI says so.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xgboost


def main() -> None:
    """Train on what the environment describes, as script mode has it."""
    options = parse_arguments()
    train = read_channel("train")
    validation = read_channel("validation")
    parameters = {
        "objective": "reg:squarederror",
        "eval_metric": "rmse",
        "max_depth": options.max_depth,
        "eta": options.eta,
        "subsample": options.subsample,
        "seed": options.seed,
        "nthread": int(os.environ["SM_NUM_CPUS"]),
    }
    with tracked_run({**parameters, "num_round": options.num_round}):
        booster = xgboost.train(
            parameters,
            train,
            options.num_round,
            evals=[(train, "train"), (validation, "validation")],
            verbose_eval=False,
            callbacks=[RoundLog()],
        )
    booster.save_model(Path(os.environ["SM_MODEL_DIR"], "model.json"))


def parse_arguments() -> argparse.Namespace:
    """Read the hyperparameters, which script mode passes as arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_round", type=int, default=50)
    parser.add_argument("--max_depth", type=int, default=6)
    parser.add_argument("--eta", type=float, default=0.3)
    parser.add_argument("--subsample", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_channel(name: str) -> xgboost.DMatrix:
    """Read all files of a channel into one matrix."""
    folder = Path(os.environ[f"SM_CHANNEL_{name.upper()}"])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = np.vstack([np.loadtxt(path, delimiter=",", ndmin=2) for path in files])
    return xgboost.DMatrix(rows[:, 1:], label=rows[:, 0])


class RoundLog(xgboost.callback.TrainingCallback):
    """Writes each round's errors, such as `[3] train-rmse=0.5 validation-rmse=0.75`."""

    def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: dict) -> bool:
        """Write the errors of the round that has ended; training goes on."""
        metrics = {f"{data}-rmse": values["rmse"][-1] for data, values in evals_log.items()}
        words = " ".join(f"{name}={value:.6f}" for name, value in metrics.items())
        sys.stdout.write(f"[{epoch}] {words}\n")
        log_metrics(metrics, epoch)
        return False


@contextmanager
def tracked_run(parameters: dict[str, object]) -> Iterator[None]:
    """Keep a run in MLflow, named as the training job, if there is an MLflow server or file."""
    if "MLFLOW_TRACKING_URI" not in os.environ:
        yield
        return
    import mlflow  # takes seconds, and is of no use otherwise

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "xgboost-regressor"))
    with mlflow.start_run(run_name=os.environ["TRAINING_JOB_NAME"]):
        mlflow.log_params(parameters)
        yield


def log_metrics(metrics: dict[str, float], epoch: int) -> None:
    """Add a round's errors to the run in MLflow, if there is one."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        import mlflow

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
