"""A user's source: fetched, unpacked and checked before any of it runs."""

import json
import subprocess
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from recsys_assets.sagemaker_local.containers.archives import unpack
from recsys_assets.sagemaker_local.containers.container import ContainerFolder
from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.s3 import TRANSFER_ERRORS, ObjectStore, S3Uri, path_below

_LIST_INSTALLED = """
import importlib.metadata, json
print(json.dumps({each.name: each.version for each in importlib.metadata.distributions()}))
"""


class SourceError(ValueError):
    """The source cannot be run, by a fault of whoever submitted it."""


def fetch_source(location: str, program: str, folder: ContainerFolder, python: str) -> Path:
    """Return the folder of a user's source.

    Parameters
    ----------
    location
        ``s3://bucket/key`` of a ``tar.gz``, or the path of such a file or of a folder below
        ``/opt/ml``.
    program
        The script of it that will be run.
    folder
        The container's ``/opt/ml``.
    python
        The Python that the source will run in.

    Raises
    ------
    SourceError
        When there is no such source, it is no archive, lacks the script, or has a
        ``requirements.txt`` that the Python does not meet. Nothing is installed.
    """
    try:
        code = _fetched(location, folder)
        script = path_below(code, program)
    except (ServiceError, *TRANSFER_ERRORS, OSError, ValueError) as error:
        raise SourceError(f"Cannot fetch the source {location}: {error}") from error
    if not script.is_file():
        raise SourceError(f"There is no script {program!r} in the source {location}")
    _check_requirements(code / "requirements.txt", python)
    return code


def _fetched(location: str, folder: ContainerFolder) -> Path:
    code = folder.root / "code"
    if location.startswith("s3://"):
        archive = folder.root / "sourcedir.tar.gz"
        ObjectStore().download(S3Uri.parse(location, "sagemaker_submit_directory"), archive)
    else:
        archive = folder.path(location)
        if archive.is_dir():
            return archive
    unpack(archive, code)
    return code


def _check_requirements(file: Path, python: str) -> None:
    if not file.exists():
        return
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    installed = _installed(python)
    for line in filter(None, lines):
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise SourceError(
                f"requirements.txt: expected a package and its versions, got {line!r}: {error}"
            ) from error
        version = installed.get(canonicalize_name(requirement.name))
        needed = requirement.marker is None or requirement.marker.evaluate()
        if needed and (version is None or not requirement.specifier.contains(version, True)):
            raise SourceError(
                f"requirements.txt asks for {line}, and {python} has"
                f" {f'version {version}' if version else 'none'}. The local SageMaker endpoint"
                " installs nothing: install it there, or map the image to another Python."
            )


def _installed(python: str) -> dict[str, str]:
    found = subprocess.run([python, "-c", _LIST_INSTALLED], capture_output=True, check=True).stdout
    return {canonicalize_name(name): version for name, version in json.loads(found).items()}
