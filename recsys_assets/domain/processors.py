"""How many processors there are to share work out to.

What belongs here: that number. What does not: how work is shared out.
"""

import os


def processors() -> int:
    """Return how many processors this process may use: the number of threads if none is given."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
