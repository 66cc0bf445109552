"""What a job leaves in S3: folders of its program, as an archive or file by file.

Which folders, where to and when is told by each kind of job; archives are made by
``containers.archives``.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from recsys_assets.sagemaker_local.containers.archives import pack
from recsys_assets.sagemaker_local.jobs.background import Background
from recsys_assets.sagemaker_local.jobs.run import JobFailed
from recsys_assets.sagemaker_local.s3 import TRANSFER_ERRORS, ObjectStore, S3Uri, path_below

_INTERVAL_SECONDS = 1.0
"""How often to look for changed files while the program runs."""


def upload_archive(objects: ObjectStore, folder: Path, target: S3Uri) -> None:
    """Write a folder to one ``tar.gz`` object.

    Raises
    ------
    JobFailed
        When it cannot be stored.
    """
    archive = folder.with_suffix(".tar.gz")
    pack(folder, archive)
    with _failing(target):
        objects.upload(archive, target)


class FolderMirror(Background):
    """A prefix in S3 that follows a folder while a program writes to it.

    What is new or changed is uploaded, again and again; nothing is deleted in S3, as on AWS.

    Parameters
    ----------
    objects
        The store.
    folder
        The folder; created if there is none.
    target
        The prefix.
    """

    def __init__(self, objects: ObjectStore, folder: Path, target: S3Uri) -> None:
        super().__init__()
        self._objects = objects
        self._folder = folder
        self._target = target
        self._uploaded: dict[Path, tuple[int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def restore(self, check: Callable[[], None]) -> None:
        """Fetch what the prefix holds, calling ``check`` before each object.

        Raises
        ------
        JobFailed
            When an object cannot be fetched or leads out of the folder.
        """
        # Under a prefix that is no folder other names would begin alike.
        prefix = self._target.child("")
        try:
            for key in self._objects.keys(prefix):
                check()
                path = path_below(self._folder, prefix.relative(key))
                self._objects.download(S3Uri(prefix.bucket, key), path)
                self._uploaded[path] = _version(path)
        except (*TRANSFER_ERRORS, OSError, ValueError) as error:
            raise JobFailed(f"ClientError: Data download failed: {prefix}: {error}") from error

    def upload(self) -> None:
        """Upload what is new or changed.

        Raises
        ------
        JobFailed
            When a file cannot be stored.
        """
        for path in sorted(self._files()):
            # A program may rename or remove a file at any moment.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and self._uploaded.get(path) != (version := _version(path)):
                    target = self._target.child(path.relative_to(self._folder).as_posix())
                    with _failing(target):
                        self._objects.upload(path, target)
                    self._uploaded[path] = version

    def finish(self) -> None:
        """Upload what is left once the program has ended.

        Raises
        ------
        JobFailed
            When a file cannot be stored, now or earlier.
        """
        # An upload under way would end after those to come, and leave an older version in S3.
        self.end(patient=True)
        self.check()
        self.upload()

    def _files(self) -> Iterator[Path]:
        # Other than rglob, walk passes over a folder that is removed meanwhile.
        for folder, _, names in os.walk(self._folder):
            yield from (Path(folder, name) for name in names)

    def _work(self) -> None:
        while not self._ending.wait(_INTERVAL_SECONDS):
            self.upload()


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@contextlib.contextmanager
def _failing(target: S3Uri) -> Iterator[None]:
    try:
        yield
    except TRANSFER_ERRORS as error:
        raise JobFailed(f"ClientError: Artifact upload failed: {target}: {error}") from error
