"""What a job reads from S3, brought to where its program looks: files in a folder, or pipes.

Which data and where to is told by each kind of job; how an S3 key becomes a path, by ``s3``.

Sources: "Access Training Data" and "How Amazon SageMaker Provides Training Information" in the
Amazon SageMaker developer guide.
"""

import contextlib
import errno
import gzip
import itertools
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from recsys_assets.sagemaker_local.jobs.background import Background
from recsys_assets.sagemaker_local.jobs.run import JobFailed
from recsys_assets.sagemaker_local.s3 import (
    TRANSFER_ERRORS,
    ObjectStore,
    S3Uri,
    no_objects,
    path_below,
)

_POLL_SECONDS = 0.02
"""How often to look whether the program has opened a pipe."""


def download(
    objects: ObjectStore, data: Mapping[str, Any], folder: Path, check: Callable[[], None]
) -> None:
    """Write the objects of a data source to files (File mode).

    Parameters
    ----------
    objects
        The store.
    data
        ``S3Uri`` and ``S3DataType``.
    folder
        Where to; created if there is none.
    check
        Called before each object; what it raises ends the download.

    Raises
    ------
    JobFailed
        When there is nothing, or an object cannot be fetched or leads out of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = False
    with _failing(data):
        for name, uri in objects.sources(data):
            check()
            objects.download(uri, path_below(folder, name))
            found = True
    if not found:
        raise _nothing(data)


class PipeFeed(Background):
    """A channel in Pipe mode: one named pipe an epoch, each fed from S3 as it is read.

    The pipe of an epoch is at ``<folder>/<channel>_<epoch>``, counted from 0. It is there before
    the last one ends, and is gone once it is read to its end or closed early.

    Parameters
    ----------
    objects
        The store.
    channel
        An item of InputDataConfig. Its objects follow each other without anything between them,
        decompressed if CompressionType is ``Gzip``. With a ShuffleConfig their order is another one
        every epoch, and the same for the same Seed.
    folder
        Where the pipes are made.

    Raises
    ------
    JobFailed
        When there are no objects.
    """

    def __init__(self, objects: ObjectStore, channel: Mapping[str, Any], folder: Path) -> None:
        super().__init__()
        self._objects = objects
        self._channel = channel
        self._data: Mapping[str, Any] = channel["DataSource"]["S3DataSource"]
        self._folder = folder
        with _failing(self._data):
            if next(objects.sources(self._data), None) is None:
                raise _nothing(self._data)
            self._first = self._make_pipe(0)

    def _work(self) -> None:
        pipe = self._first
        for epoch in itertools.count():
            writer = self._opened(pipe)
            if writer is None:
                return
            following = self._make_pipe(epoch + 1)
            # A program may close a pipe before its end.
            with contextlib.suppress(BrokenPipeError), writer, _failing(self._data):
                self._feed(writer, epoch)
            pipe.unlink()
            pipe = following

    def _make_pipe(self, epoch: int) -> Path:
        pipe = self._folder / f"{self._channel['ChannelName']}_{epoch}"
        os.mkfifo(pipe, 0o600)
        return pipe

    def _opened(self, pipe: Path) -> BinaryIO | None:
        """Return the pipe once the program has opened it to read, or None at the end."""
        while not self._ending.wait(_POLL_SECONDS):
            try:
                descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads
                    raise
            else:
                os.set_blocking(descriptor, True)
                return os.fdopen(descriptor, "wb")
        return None

    def _feed(self, writer: BinaryIO, epoch: int) -> None:
        for uri in self._order(epoch):
            with self._objects.open(uri) as stream:
                if self._channel.get("CompressionType") == "Gzip":
                    with gzip.GzipFile(fileobj=stream) as content:
                        shutil.copyfileobj(content, writer)
                else:
                    shutil.copyfileobj(stream, writer)

    def _order(self, epoch: int) -> Iterator[S3Uri]:
        uris = (uri for _, uri in self._objects.sources(self._data))
        if "ShuffleConfig" not in self._channel:
            return uris
        shuffled = list(uris)
        random.Random(f"{self._channel['ShuffleConfig']['Seed']}/{epoch}").shuffle(shuffled)  # noqa: S311 - an order, no secret
        return iter(shuffled)


@contextlib.contextmanager
def _failing(data: Mapping[str, Any]) -> Iterator[None]:
    """Tell what goes wrong with data as the job's failure; a closed pipe is nothing wrong."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (*TRANSFER_ERRORS, OSError, EOFError, zlib.error, ValueError) as error:
        raise JobFailed(f"ClientError: Data download failed: {data['S3Uri']}: {error}") from error


def _nothing(data: Mapping[str, Any]) -> JobFailed:
    return JobFailed(f"ClientError: {no_objects(S3Uri.parse(data['S3Uri'], 'S3Uri'))}")
