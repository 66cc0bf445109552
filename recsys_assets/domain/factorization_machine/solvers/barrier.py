"""A barrier for two threads of compiled code.

What belongs here: waiting for each other without Python in between, some microseconds a time. What
does not: what the threads do.

It is made of two POSIX semaphores. A thread looks for the other's signal for a while before it goes
to sleep, so that on an idle machine none has to be woken, and on a busy one none wastes the other's
time: there the kernel soon runs whoever has slept.
"""

import ctypes
import sys

import numba
import numpy as np
import numpy.typing as npt
from numba import types

_AVAILABLE = sys.platform.startswith("linux")  # other systems' semaphores need a name

Signals = npt.NDArray[np.uint8]

_BYTES = 128  # of one semaphore: more than sem_t, so that no cache line holds both
_LOOKS = 2000  # some 20 microseconds

_Signature = types.int32(types.intp)
_post = types.ExternalFunction("sem_post", _Signature)
_wait = types.ExternalFunction("sem_wait", _Signature)
_try_wait = types.ExternalFunction("sem_trywait", _Signature)


def workers(threads: int) -> list[tuple[int, int]]:
    """Share the parts 0 and 1 of some work out to as many threads, of which two can be used.

    Returns for each worker the range of its parts: the first and the one behind the last.
    """
    return [(0, 1), (1, 2)] if threads > 1 and _AVAILABLE else [(0, 2)]


def signals() -> Signals:
    """Return what the threads 0 and 1 need to meet each other with :func:`meet`."""
    semaphores = np.zeros((2, _BYTES), dtype=np.uint8)
    if not _AVAILABLE:
        return semaphores
    libc = ctypes.CDLL(None, use_errno=True)
    for semaphore in semaphores:
        if libc.sem_init(ctypes.c_void_p(semaphore.ctypes.data), 0, 0):
            raise OSError(ctypes.get_errno(), "sem_init failed")
    return semaphores


@numba.njit(cache=True, nogil=True)
def meet(semaphores: Signals, thread: int) -> None:
    """Return once both threads have come here; each calls it with its own number."""
    own = semaphores[thread].ctypes.data
    _post(semaphores[1 - thread].ctypes.data)
    for _ in range(_LOOKS):
        if _try_wait(own) == 0:
            return
    while _wait(own) != 0:  # interrupted by a signal
        pass
