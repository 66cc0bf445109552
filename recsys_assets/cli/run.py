"""`recsys-assets run`: the main job in this process, and its report.

What belongs here: run config from options, executing the job, collecting what came out. What does
not: what the job does (``recsys_assets.definitions``) and how the report reads (``report.py``).
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil
import yaml

from recsys_assets.cli.state import (
    UserError,
    interruptible,
    only_one_command,
    running_services,
    settings_of,
)
from recsys_assets.failures import failed_steps

if TYPE_CHECKING:
    from dagster import ExecuteJobResult

_INNER_TYPE = re.compile(r"\{[^{}]*\}")


def run_main_job(
    ratings: str | None,
    ratings_format: str | None,
    state: Path,
    config: Path | None,
    summary: Path | None,
) -> None:
    """Run the main job on a state folder and print its report.

    Raises
    ------
    UserError
        If the run did not make every asset; the message says which step failed and why.
    """
    settings = settings_of(state)
    if summary is not None:
        summary.parent.mkdir(parents=True, exist_ok=True)
    run_config = _run_config(ratings, ratings_format, config)
    with interruptible(), only_one_command(state), running_services(settings):
        began_work = time.time()
        click.echo(f"{began_work - psutil.Process().create_time():.1f} s to start up")
        collected = _execute(run_config)
        collected["state"] = str(state)
        if summary is not None:
            summary.write_text(json.dumps(collected, indent=1) + "\n")
        from recsys_assets.cli.report import print_report

        print_report(collected, settings)


def _run_config(
    ratings: str | None, ratings_format: str | None, config: Path | None
) -> dict[str, Any]:
    """Return the file's run config with the options put in their places."""
    content = read_run_config(config) if config is not None else {}
    source = ratings
    if source is not None and not source.startswith("s3://"):
        path = Path(source)
        if not path.exists():
            raise UserError(f"there is no file or folder {source}")
        source = str(path.absolute())
    given = {"source": source, "format": ratings_format}
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        _config_of(content, "raw_ratings", config).update(given)
    # What a run makes does not depend on the model that an earlier one has left.
    _config_of(content, "model_training", config).setdefault("select", "new")
    content.setdefault("loggers", {"progress": {}})
    return content


def _config_of(content: dict[str, Any], step: str, file: Path | None) -> dict[str, Any]:
    """Return the config of a step within run config, which is added if it is not there."""
    for key in ("ops", step, "config"):
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise UserError(f"{file}: expected a mapping as value of `{key}`, got {content!r}")
    return content


def read_run_config(config: Path) -> dict[str, Any]:
    """Return what a file of run config holds; keys are strings, as in JSON."""
    try:
        content = json.loads(json.dumps(yaml.safe_load(config.read_bytes())))
    except yaml.YAMLError as error:
        raise UserError(f"{config} is not YAML: {' '.join(str(error).split())}") from error
    except TypeError as error:
        raise UserError(f"{config} holds something that is no config: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{config}: expected a mapping such as `ops: ...`, got {content!r}")
    return content


def _execute(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Execute the main job and return what its summary holds."""
    from dagster import (
        DagsterExecutionInterruptedError,
        DagsterInstance,
        DagsterInvalidConfigError,
        execute_job,
    )
    from dagster._core.definitions.reconstruct import ReconstructableRepository

    from recsys_assets.automation.run_launcher import worker_tags
    from recsys_assets.definitions import MAIN_JOB, defs

    # An interrupt that falls into SQLAlchemy's closing of a connection is logged with its traceback
    # before it goes on.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    # Through the repository, so that the UI knows the run's code location and can launch it again.
    repository = ReconstructableRepository.for_module("recsys_assets.definitions", "defs")
    with DagsterInstance.get() as instance:
        try:
            result = execute_job(
                repository.get_reconstructable_job(MAIN_JOB),
                instance=instance,
                run_config=dict(run_config),
                tags=worker_tags(),
            )
        except DagsterInvalidConfigError as error:
            problems = "; ".join(_problem(e.message) for e in error.errors)
            raise UserError(f"the config does not fit: {problems}") from error
        except (DagsterExecutionInterruptedError, KeyboardInterrupt):
            raise UserError("interrupted") from None
        with result:
            _require_everything(result, defs)
            return _summary(result)


def _problem(message: str) -> str:
    """Return a config error in one line; of the type of a whole mapping only the keys are kept."""
    text, _, expected = " ".join(message.split()).partition('"{ ')
    if not expected:
        return text
    while _INNER_TYPE.search(expected):
        expected = _INNER_TYPE.sub("", expected)
    return text + ", ".join(re.findall(r"(\w+)\??:", expected))


def _require_everything(result: "ExecuteJobResult", defs: Any) -> None:
    """Raise unless every asset that the mode calls for has been materialized."""
    from recsys_assets.assets.models import ASSET_OF_MODE
    from recsys_assets.definitions import MAIN_JOB

    for step, reason in failed_steps(result.all_events).items():
        if "DagsterExecutionInterruptedError" in reason:
            raise UserError("interrupted")
        raise UserError(f"{step} failed: {reason}")
    made = set(_materializations(result))
    alternatives = set(ASSET_OF_MODE.values())
    keys = defs.resolve_job_def(MAIN_JOB).asset_layer.executable_asset_keys
    expected = {key.to_user_string() for key in keys} - alternatives
    missing = sorted(expected - made) + ([] if made & alternatives else ["fm_model or tuned_model"])
    if not result.success or missing:
        raise UserError(f"the run has not made {', '.join(missing) or 'everything'}")


def _materializations(result: "ExecuteJobResult") -> dict[str, dict[str, Any]]:
    """Return the metadata values of each asset that was made, by its name."""
    from dagster import DagsterEventType

    found: dict[str, dict[str, Any]] = {}
    for event in result.all_events:
        if event.event_type is not DagsterEventType.ASSET_MATERIALIZATION:
            continue
        materialization = event.step_materialization_data.materialization
        values = {name: value.value for name, value in materialization.metadata.items()}
        found[materialization.asset_key.to_user_string()] = {**values, "step": event.step_key}
    return found


def _summary(result: "ExecuteJobResult") -> dict[str, Any]:
    from recsys_assets.assets.models import ASSET_OF_MODE

    made = _materializations(result)
    steps = {
        str(event.step_key): event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.is_step_success
    }
    total = time.time() - psutil.Process().create_time()
    raw, filtered = made["raw_ratings"], made["filtered_ratings"]
    evaluation, selected = made["model_evaluation"], made["selected_model"]
    mode = {asset: mode for mode, asset in ASSET_OF_MODE.items()}[selected["selected"]]
    return {
        "run_id": result.run_id,
        "rows_read": raw["rows_read"],
        "rows_rejected": raw["rows_rejected"],
        "rows_kept": filtered["rows_kept"],
        "customers": filtered["customers"],
        "videos": filtered["videos"],
        "mode": mode,
        **{name: evaluation[name] for name in ("test_rmse", "mean_rmse", "bias_rmse")},
        "validate_rmse": selected["validate_rmse"],
        "hyperparameters": selected["hyperparameters"],
        "seconds": {name: round(steps[meta["step"]], 3) for name, meta in made.items()},
        "check_seconds": round(sum(s for name, s in steps.items() if name.endswith("_checks")), 3),
        "total_seconds": round(total, 3),
        "overhead_seconds": round(total - sum(steps.values()), 3),
        "recommendations": made["recommendations"]["dagster/uri"],
    }
