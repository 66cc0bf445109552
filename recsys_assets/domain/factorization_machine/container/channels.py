"""The records of a job's input channels, whole or in chunks.

What belongs here: which files or pipes a channel's records come from, and naming the channel in
what is wrong with them. What does not: the bytes of records (``recordio``) and learning from them.

In Pipe mode SageMaker makes a new pipe for each pass over the data: ``<channel>_0``,
``<channel>_1`` and so on. Each is read to its end before the next; with a ShuffleConfig the
objects come in another order from each.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import cast

from scipy.sparse import csr_matrix

from recsys_assets.domain.factorization_machine.container.layout import ClientError, Layout
from recsys_assets.domain.factorization_machine.hyperparameters import Hyperparameters
from recsys_assets.domain.factorization_machine.model import DataError
from recsys_assets.domain.factorization_machine.solvers.common import (
    Floats,
    Records,
    check_records,
)
from recsys_assets.domain.recordio import RecordIOError, iterate_recordio, read_recordio

MAX_BYTES_IN_MEMORY = 1 << 30
"""Of a channel's files; two-hot records take half of that, and once more while they are read."""

SECONDS_FOR_A_PIPE = 60.0
"""How long to wait for the pipe of an epoch after the last one's end."""


class Channel:
    """One input channel.

    Parameters
    ----------
    name
        "train" or "test".
    input_mode
        "File", "FastFile" or "Pipe".
    layout
        Where its files or pipes are.
    hyperparameters
        What its records must fit.

    Attributes
    ----------
    records
        How many there are, once they have been read to their end.
    """

    records = 0

    def __init__(
        self, name: str, input_mode: str, layout: Layout, hyperparameters: Hyperparameters
    ) -> None:
        self._name = name
        self._is_pipe = input_mode == "Pipe"
        self._layout = layout
        self._hyperparameters = hyperparameters
        self._passes = count()

    @property
    def may_be_large(self) -> bool:
        """Whether to keep it out of memory: more than `MAX_BYTES_IN_MEMORY`, or no end in sight."""
        if self._is_pipe:
            return True
        files = self._layout.channel_files(self._name)
        return sum(path.stat().st_size for path in files) > MAX_BYTES_IN_MEMORY

    def read(self) -> Records:
        """Return all records.

        Raises
        ------
        ClientError
            If there are none, they cannot be read, or they do not fit the hyperparameters.
        """
        with self.named():
            X, y = read_recordio(self._sources())
            check_records(X, y, self._hyperparameters)
        self.records = X.shape[0]
        return X, cast("Floats", y)

    def chunks(self) -> Iterator[tuple[csr_matrix, Floats | None]]:
        """Pass over the records, some at a time; whoever takes them has to check them.

        Raises
        ------
        ClientError
            If they cannot be read.
        """
        passed = 0
        with self.named():
            for X, y in iterate_recordio(self._sources()):
                passed += X.shape[0]
                yield X, y
        self.records = passed

    @contextmanager
    def named(self) -> Iterator[None]:
        """Name this channel in what is wrong with its records: a ClientError."""
        try:
            yield
        except (RecordIOError, DataError) as error:
            raise ClientError(f"channel {self._name!r}: {error}") from None

    def _sources(self) -> list[Path]:
        if not self._is_pipe:
            return self._layout.channel_files(self._name)
        pipe = self._layout.pipe(self._name, next(self._passes))
        deadline = time.monotonic() + SECONDS_FOR_A_PIPE
        while not pipe.exists():
            if time.monotonic() > deadline:
                raise ClientError(f"channel {self._name!r}: expected a pipe, {pipe.name}")
            time.sleep(0.01)
        return [pipe]
