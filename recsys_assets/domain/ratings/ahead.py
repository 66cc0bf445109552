"""Work that is done before its result is asked for.

What belongs here: iterating in threads of their own, within a limit on what waits, and in the same
order as without them. What does not: what is iterated over.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

Item = TypeVar("Item")


class Sized(NamedTuple, Generic[Item]):
    """An item, and about how many bytes of memory it takes while it waits."""

    size: int
    item: Item


class Ahead(Generic[Item]):
    """An iterator over items that a thread of its own makes ahead of their use.

    What is raised in the thread is raised where the item that did not come would have been.

    Parameters
    ----------
    make
        Called in the thread; gives the items.
    limit
        Bytes that may wait. An item beyond it waits alone.
    """

    def __init__(self, make: Callable[[], Iterable[Sized[Item]]], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._waiting: deque[Sized[Item]] = deque()
        self._size = 0
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ratings-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                size, item = self._waiting.popleft()
                self._size -= size
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for sized in self._make():
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._closed:
                        break
                    self._waiting.append(sized)
                    self._size += sized.size
                    self._changed.notify_all()
        except BaseException as error:  # told to whoever iterates
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._closed or not self._waiting or self._size < self._limit


def several_ahead(
    makes: Iterable[Callable[[], Iterable[Sized[Item]]]], *, at_once: int, limit: int
) -> Generator[Ahead[Item], None, None]:
    """Yield an :class:`Ahead` for each of several, in their order, the next ones started too.

    Each is to be used up before the next is asked for.

    Parameters
    ----------
    makes
        As of :class:`Ahead`.
    at_once
        How many are started, the one in use included.
    limit
        Bytes that may wait in all of them.
    """
    started: deque[Ahead[Item]] = deque()
    remaining = iter(makes)
    try:
        while True:
            for make in islice(remaining, at_once - len(started)):
                started.append(Ahead(make, limit // at_once))
            if not started:
                return
            with started.popleft() as ahead:
                yield ahead
    finally:
        for ahead in started:
            ahead.close()
