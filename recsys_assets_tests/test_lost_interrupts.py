"""Interrupts that fall where Python throws exceptions away."""

import contextlib
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from dagster import DagsterExecutionInterruptedError
from dagster._core.errors import raise_execution_interrupts

from recsys_assets.lost_interrupts import lost_interrupts_repeated


class Thing:
    """Something to refer to."""


@pytest.fixture(autouse=True)
def silent_hook(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect what Python cannot raise; pytest's own hook would make it a warning."""
    collected: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: collected.append(it.exc_value))
    return collected


def interrupt_where_it_is_thrown_away(seconds_after: float) -> None:
    """Interrupt this process in the callback of a weak reference, and go on for a time."""
    thing = Thing()
    referred = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing
    assert referred() is None
    time.sleep(seconds_after)


def test_python_throws_an_interrupt_away_in_the_callback_of_a_weak_reference(
    silent_hook: list[object],
) -> None:
    with raise_execution_interrupts():
        interrupt_where_it_is_thrown_away(seconds_after=0.3)
    assert [type(error) for error in silent_hook] == [DagsterExecutionInterruptedError]


@pytest.mark.parametrize(
    ("handled", "interrupt"),
    [
        (raise_execution_interrupts, DagsterExecutionInterruptedError),
        (contextlib.nullcontext, KeyboardInterrupt),
    ],
)
def test_an_interrupt_that_is_thrown_away_comes_again(
    handled: Callable[[], AbstractContextManager[None]], interrupt: type[BaseException]
) -> None:
    with pytest.raises(interrupt), lost_interrupts_repeated(), handled():
        interrupt_where_it_is_thrown_away(seconds_after=30)


def test_an_error_that_cannot_be_raised_is_only_told(silent_hook: list[object]) -> None:
    error = OSError("the disk is full")

    def fail(_: object) -> None:
        raise error

    with lost_interrupts_repeated():
        thing = Thing()
        referred = weakref.ref(thing, fail)
        del thing
        time.sleep(0.3)
    assert referred() is None
    assert silent_hook == [error]
