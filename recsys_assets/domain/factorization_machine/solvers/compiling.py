"""How the solvers' loops are compiled.

What belongs here: numba's options, the same for all. What does not: the loops.

Sums over columns may be added in any order, or they would be added one by one; unlike full fastmath
this keeps numbers that are not finite, by which divergence is noticed. What order it is must not
depend on chance, though: a function that others call would be there twice, by itself and within its
caller, each optimised in its own way, and which of them runs depends on whether this process has
compiled it or found it in numba's cache. So such functions are compiled into their callers alone.
"""

from functools import partial

import numba

_njit = partial(
    numba.njit,
    cache=True,
    nogil=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "nsz"},
)

compiled = _njit()
"""Compile a function that Python calls."""

compiled_into_callers = _njit(forceinline=True)
"""Compile a function that compiled ones call."""
