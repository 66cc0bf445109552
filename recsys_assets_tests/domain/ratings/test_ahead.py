"""Items made ahead of their use."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from recsys_assets.domain.ratings.ahead import Ahead, Sized, several_ahead


def sized(count: int, size: int = 1, made: list[int] | None = None) -> Iterator[Sized[int]]:
    for number in range(count):
        if made is not None:
            made.append(number)
        yield Sized(size, number)


def comes_true(condition: Callable[[], bool]) -> bool:
    """Wait for what another thread does."""
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_items_come_in_their_order() -> None:
    with Ahead(lambda: sized(1000), 10) as ahead:
        assert list(ahead) == list(range(1000))


def test_no_more_waits_than_the_limit_and_one_item() -> None:
    made: list[int] = []
    with Ahead(lambda: sized(100, 3, made), 10) as ahead:
        # Four wait, as the limit is not reached before; a fifth is made and has no room.
        assert comes_true(lambda: len(made) == 5)
        items = iter(ahead)
        assert next(items) == 0
        assert comes_true(lambda: len(made) == 6)
        assert list(items) == list(range(1, 100))


def test_an_item_larger_than_the_limit_passes() -> None:
    with Ahead(lambda: sized(5, 100), 10) as ahead:
        assert list(ahead) == [0, 1, 2, 3, 4]


def test_an_error_comes_where_the_item_would_have() -> None:
    def breaking() -> Iterator[Sized[int]]:
        yield from sized(3)
        raise ValueError("the fourth")

    with Ahead(breaking, 10) as ahead:
        items = iter(ahead)
        assert [next(items), next(items), next(items)] == [0, 1, 2]
        with pytest.raises(ValueError, match="the fourth"):
            next(items)


def test_the_thread_ends_when_nobody_wants_more() -> None:
    before = threading.active_count()
    closed = []

    def endless() -> Iterator[Sized[int]]:
        try:
            while True:
                yield Sized(1, 0)
        finally:
            closed.append(True)

    with Ahead(endless, 10) as ahead:
        assert next(iter(ahead)) == 0
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert closed == [True], "what it iterates over is closed, in its thread"


def test_several_are_made_at_once_and_come_in_their_order() -> None:
    together = threading.Barrier(3, timeout=30)

    def meeting(first: int) -> Iterator[Sized[int]]:
        together.wait()  # for two others
        yield Sized(1, first)
        yield Sized(1, first + 1)

    makes = [lambda first=first: meeting(first) for first in (0, 10, 20)]
    got = [list(ahead) for ahead in several_ahead(makes, at_once=3, limit=30)]
    assert got == [[0, 1], [10, 11], [20, 21]]


def test_no_more_are_started_than_are_to_be_at_once() -> None:
    started = []

    def starting(number: int) -> Iterator[Sized[int]]:
        started.append(number)
        yield Sized(1, number)

    makes = [lambda number=number: starting(number) for number in range(10)]
    for number, ahead in enumerate(several_ahead(makes, at_once=2, limit=30)):
        assert list(ahead) == [number]
        assert comes_true(lambda number=number: len(started) >= min(number + 2, 10))
        assert len(started) <= number + 2


def test_all_end_when_the_first_is_given_up() -> None:
    before = threading.active_count()
    makes = [lambda: sized(1000)] * 5
    several = several_ahead(makes, at_once=3, limit=9)
    assert next(iter(next(several))) == 0
    several.close()
    assert threading.active_count() == before
