"""Interrupts that Python throws away.

What belongs here: noticing one, and making it anew. What does not: what an interrupt does.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SECONDS_UNTIL_REPEATED = 0.05


@contextmanager
def lost_interrupts_repeated() -> Iterator[None]:
    """Interrupt this process again when Python has thrown an interrupt away.

    The handler of a signal raises wherever the program stands. Where that is in the callback of a
    weak reference or in ``__del__``, which are frequent while modules are imported, Python prints
    the exception and goes on (https://docs.python.org/3/library/sys.html#sys.unraisablehook): a run
    that was cancelled would go on for hours, and its job on SageMaker with it.
    """
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs", /) -> None:
        if unraisable.exc_value is None or isinstance(unraisable.exc_value, Exception):
            before(unraisable)
            return
        # Later, since here too it would be thrown away.
        again = threading.Timer(_SECONDS_UNTIL_REPEATED, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
