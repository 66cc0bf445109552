"""Settings that are too many for the environment: YAML files that it names.

What belongs here: reading such a file, and saying what does not fit in it. What does not: what may
stand in one (the modules ``config`` of ``recsys_assets.automation``, and of ``sagemaker`` and
``spark`` in ``recsys_assets.resources``).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recsys_assets.settings import SettingsError


def read_settings_file(path: Path, variable: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; an empty file is an empty one.

    Parameters
    ----------
    path
        The file.
    variable
        The environment variable that names it, for the message.

    Raises
    ------
    SettingsError
        If it is not there, is not YAML or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{variable}: cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise SettingsError(f"{path}: expected a mapping such as `name: ...`, got {content!r}")
    return dict(content)


@contextmanager
def settings_of(path: Path | None) -> Iterator[None]:
    """Tell what does not fit in what a file holds as a SettingsError, each problem with its key."""
    try:
        yield
    except ValidationError as error:
        raise SettingsError(f"{path}: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
        + (f", got {item['input']!r}" if item["loc"] and item["type"] != "value_error" else "")
        for item in error.errors()
    )
