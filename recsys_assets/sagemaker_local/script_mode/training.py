"""Training in script mode: hyperparameters to arguments, the contract to SM_ variables.

What the SageMaker training toolkit does between ``train`` and a user's script; nothing of it
depends on what the script does.

Source: the documentation and the public behaviour of the SageMaker training toolkit.
"""

import collections
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.containers.container import ContainerFolder
from recsys_assets.sagemaker_local.script_mode.source import SourceError, fetch_source

_KEPT_LINES = 30
"""Last lines of a script's standard error that its failure's reason tells."""

_NO_VARIABLES = (
    "additional_framework_parameters",
    "channel_input_dirs",
    "hyperparameters",
    "job_name",
)
"""Members of SM_TRAINING_ENV that have no variable of their own, or one of another name."""


def run(folder: ContainerFolder, python: str) -> int:
    """Run the script that the hyperparameters name; return its exit code.

    Parameters
    ----------
    folder
        The container's ``/opt/ml``.
    python
        The Python that it runs in.

    Raises
    ------
    SourceError
        When there is no script to run.
    """
    settings, hyperparameters = _split(_read_config(folder, "hyperparameters"))
    for name in ("sagemaker_program", "sagemaker_submit_directory"):
        if not isinstance(settings.get(name), str):
            raise SourceError(
                f"Script mode needs the hyperparameter {name}, got {settings.get(name)!r}"
            )
    for name, value in settings.items():
        if name.endswith("_enabled") and value:  # sagemaker_mpi_enabled and the like
            raise SourceError(f"The local SageMaker endpoint does not support {name}")
    program = settings["sagemaker_program"]
    code = fetch_source(settings["sagemaker_submit_directory"], program, folder, python)
    arguments = command_line_arguments(hyperparameters)
    command = _command(python, code, program, arguments)
    environment = {
        **_variables(folder, settings, hyperparameters, code, arguments),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")])),
    }
    sys.stdout.writelines(f"{name}={value}\n" for name, value in sorted(environment.items()))
    sys.stdout.write(f"Invoking script with the following command: {shlex.join(command)}\n")
    sys.stdout.flush()
    return _run_script(command, code, environment, folder)


def command_line_arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return hyperparameters as ``--name value`` (``-n value`` for a name of one letter), sorted.

    A mapping becomes ``key=value,key=value``, null an empty word and anything else what Python
    writes for it.
    """
    arguments = []
    for name, value in sorted(hyperparameters.items()):
        if isinstance(value, Mapping):
            text = ",".join(f"{key}={item}" for key, item in sorted(value.items()))
        else:
            text = "" if value is None else str(value)
        arguments += [f"--{name}" if len(name) > 1 else f"-{name}", text]
    return arguments


def _split(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Decode hyperparameters; return the toolkit's own and those of the script."""
    settings: dict[str, Any] = {}
    hyperparameters: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text  # written by a client that does not encode them
        own = name.startswith("sagemaker_") or name == "_tuning_objective_metric"
        (settings if own else hyperparameters)[name] = value
    return settings, hyperparameters


def _command(python: str, code: Path, program: str, arguments: list[str]) -> list[str]:
    if program.endswith(".py"):
        return [python, program, *arguments]
    if program.endswith(".sh"):
        return ["/bin/sh", program, *arguments]
    raise SourceError(f"Expected a script that ends in .py or .sh, got {program!r}")


def _variables(
    folder: ContainerFolder,
    settings: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
    code: Path,
    arguments: list[str],
) -> dict[str, str]:
    resources = _read_config(folder, "resourceconfig")
    inputs = _read_config(folder, "inputdataconfig")
    channels = {name: str(folder.channel(name)) for name in sorted(inputs)}
    values: dict[str, Any] = {
        "channel_input_dirs": channels,
        "current_host": resources["current_host"],
        "current_instance_type": resources["current_instance_type"],
        "current_instance_group": resources["current_group_name"],
        "additional_framework_parameters": {},
        "hosts": resources["hosts"],
        "hyperparameters": hyperparameters,
        "input_config_dir": str(folder.config),
        "input_data_config": inputs,
        "input_dir": str(folder.root / "input"),
        "job_name": os.environ.get("TRAINING_JOB_NAME", ""),
        "log_level": settings.get("sagemaker_container_log_level", 20),
        "model_dir": str(folder.model),
        "module_dir": str(code),
        "module_name": Path(settings["sagemaker_program"]).stem,
        "network_interface_name": resources["network_interface_name"],
        "num_cpus": os.cpu_count() or 1,
        "num_gpus": _count_gpus(),
        "num_neurons": 0,
        "output_data_dir": str(folder.output / "data"),
        "output_dir": str(folder.output),
        "resource_config": resources,
        "user_entry_point": settings["sagemaker_program"],
    }
    variables = {
        **{name: value for name, value in values.items() if name not in _NO_VARIABLES},
        "framework_params": {},
        "hps": hyperparameters,
        "channels": list(channels),
        "user_args": arguments,
        "training_env": values,
        **{f"channel_{name}": path for name, path in channels.items()},
        **{f"hp_{name}": value for name, value in hyperparameters.items()},
    }
    return {
        f"SM_{name.upper().replace('-', '_')}": _text(value) for name, value in variables.items()
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _count_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def _read_config(folder: ContainerFolder, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder.config / f"{name}.json").read_bytes())
    return content


def _run_script(
    command: list[str], code: Path, environment: Mapping[str, str], folder: ContainerFolder
) -> int:
    """Run a script to its end, passing on signals and output; note why it failed."""
    script = subprocess.Popen(
        command,
        cwd=code,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    signal.signal(signal.SIGTERM, lambda *_: script.terminate())
    last: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
    assert script.stderr is not None  # noqa: S101 - opened as a pipe
    for line in script.stderr:
        sys.stderr.write(line)
        last.append(line)
    status = script.wait()
    if status < 0:
        status = 128 - status
    if status != 0 and not folder.failure():
        folder.write_failure(
            f"AlgorithmError: ExecuteUserScriptError:\nExitCode {status}\n"
            f'ErrorMessage "{"".join(last).strip()[-700:]}"\nCommand "{shlex.join(command)}"'
        )
    return status
