"""Work that goes on beside a running program, in a thread of its own.

How it is started, watched and ended; what is done stands in ``inputs`` and ``outputs``.
"""

import abc
import threading
from types import TracebackType
from typing import Self

_PATIENCE_SECONDS = 5.0
"""How long to wait at the end for a thread that is in the middle of a transfer."""


class Background(abc.ABC):
    """Work in a thread that begins and ends with a ``with`` block."""

    def __init__(self) -> None:
        self._ending = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self, *, patient: bool = False) -> None:
        """End the work, if it was begun, without its errors. May be called repeatedly.

        Parameters
        ----------
        patient
            Whether to wait for whatever transfer it is in the middle of, however long that takes.
        """
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(None if patient else _PATIENCE_SECONDS)

    def check(self) -> None:
        """Raise what the work failed with, if it failed."""
        if self._error is not None:
            raise self._error

    @abc.abstractmethod
    def _work(self) -> None:
        """Work until done or until ``_ending`` is set."""

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self._error = error
