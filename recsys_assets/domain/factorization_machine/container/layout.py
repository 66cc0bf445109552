"""Where SageMaker puts a container's files, and what its configuration says.

What belongs here: paths under ``/opt/ml`` and reading the JSON files among them. What does not:
what the configuration means to the algorithm.

Sources: "How Amazon SageMaker Provides Training Information" and "Use Your Own Inference Code with
Hosting Services" in the Amazon SageMaker developer guide; SAGEMAKER_BASE_DIR is a variable of the
SageMaker training toolkit.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_BASE = "/opt/ml"


class ClientError(ValueError):
    """A fault of whoever started the job, in SageMaker's word for it."""


@dataclass(frozen=True)
class Layout:
    """The folder tree of one container."""

    base: Path

    @classmethod
    def from_environment(cls) -> "Layout":
        """Take the tree's root from SAGEMAKER_BASE_DIR, else ``/opt/ml``."""
        return cls(Path(os.environ.get("SAGEMAKER_BASE_DIR", DEFAULT_BASE)))

    @property
    def model(self) -> Path:
        """The folder whose content becomes, and comes from, ``model.tar.gz``."""
        return self.base / "model"

    @property
    def failure(self) -> Path:
        """The file whose text becomes the job's FailureReason."""
        return self.base / "output" / "failure"

    @property
    def hyperparameters_file(self) -> Path:
        """The JSON file of the hyperparameters."""
        return self.base / "input" / "config" / "hyperparameters.json"

    def read_hyperparameters(self) -> dict[str, str]:
        """Read the names and texts that the job was created with."""
        values = self._read_config("hyperparameters")
        for name, value in values.items():
            if not isinstance(value, str):
                raise ClientError(f"expected hyperparameter {name!r} to be a string, got {value!r}")
        return values

    def read_channels(self) -> dict[str, dict[str, Any]]:
        """Read the configuration of the input channels, by name."""
        return self._read_config("inputdataconfig")

    def read_host(self) -> tuple[str, list[str]]:
        """Read this container's host name and those of all of the job."""
        config = self._read_config("resourceconfig")
        return config["current_host"], config["hosts"]

    def channel_files(self, channel: str) -> list[Path]:
        """Return the files of a channel, in the order of its objects' keys in S3."""
        folder = self._data / channel
        files = (path for path in folder.rglob("*") if path.is_file())
        return sorted(files, key=lambda path: path.relative_to(folder).as_posix())

    def pipe(self, channel: str, epoch: int) -> Path:
        """Return the named pipe from which a channel in Pipe mode is read in an epoch, from 0."""
        return self._data / f"{channel}_{epoch}"

    @property
    def _data(self) -> Path:
        return self.base / "input" / "data"

    def _read_config(self, name: str) -> dict[str, Any]:
        path = self.base / "input" / "config" / f"{name}.json"
        try:
            config = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ClientError(f"cannot read {path.name}: {error}") from None
        if not isinstance(config, dict):
            raise ClientError(f"{path.name}: expected a JSON object, got {config!r}")
        return config
