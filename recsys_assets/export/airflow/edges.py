"""What waits for what, as statements.

What belongs here: edges within groups and between them, and what a run waits for at its end. What
does not: the tasks (``operators.py``).
"""

from collections.abc import Callable, Iterable
from functools import cached_property

from recsys_assets.export.graph import Graph, Kind, Task

_GATES = (Kind.CHECK, Kind.CHOICE, Kind.OPT_IN, Kind.MADE)

Names = tuple[str, ...]


def statements(edges: Iterable[tuple[str, str]]) -> list[str]:
    """Return statements with ``>>`` for edges between variables, chained where that reads well."""
    upstream: dict[str, list[str]] = {}
    for before, after in edges:
        upstream.setdefault(after, []).append(before)
    downstream: dict[Names, list[str]] = {}
    for after, befores in upstream.items():
        downstream.setdefault(tuple(befores), []).append(after)
    chains: list[list[Names]] = []
    for left, afters in downstream.items():
        # A list cannot be put before a list.
        for right in [tuple(afters)] if len(left) == 1 else [(after,) for after in afters]:
            chain = next((chain for chain in chains if chain[-1] == left), None)
            if chain is None:
                chains.append([left, right])
            else:
                chain.append(right)
    return [" >> ".join(map(_side, chain)) for chain in chains]


def _side(names: Names) -> str:
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


class Ends:
    """What a run's end has to look at.

    A task that is done says nothing of one that it did not wait for, and a task that was skipped
    hides that another of those before it has failed. So the end of a run, and cleaning up after it,
    wait for more than the last tasks.

    Parameters
    ----------
    graph
        The tasks.
    is_remote
        Tells of a task whether something is left running when it is killed.
    """

    def __init__(self, graph: Graph, is_remote: Callable[[Task], bool]) -> None:
        self._is_remote = is_remote
        self._tasks = {task.id: task for task in graph.tasks if task.kind is not Kind.CLEAN_UP}

    @cached_property
    def hidden(self) -> list[Task]:
        """The tasks that may fail without a sign, as all that follows them may have been skipped.

        Gates are left out: whatever follows a gate directly is skipped by it.
        """
        return [
            task
            for task in self._tasks.values()
            if task.kind not in _GATES
            and (after := self._after(task))
            and not any(self._shows(other, task) for other in after)
        ]

    @cached_property
    def unfinished(self) -> list[Task]:
        """The tasks that may be at work when all others have ended, of those with remote work."""
        return [
            task
            for task in self._tasks.values()
            if not (after := self._after(task))
            or (self._is_remote(task) and not any(self._outlasts(o, task) for o in after))
        ]

    def _shows(self, after: Task, task: Task) -> bool:
        """Whether what follows a task cannot be skipped unless the task was."""
        return self._gates(after) <= self._before(task) | {task.id}

    def _gates(self, task: Task) -> set[str]:
        """Return the gates that may skip a task."""
        found: set[str] = set()
        for name in task.upstream:
            before = self._tasks[name]
            found |= self._gates(before) | ({name} if before.kind in _GATES else set())
        if task.joins:  # whichever alternative was chosen
            found = {name for name in found if self._tasks[name].kind is not Kind.CHOICE}
        return found

    def _outlasts(self, after: Task, task: Task) -> bool:
        """Whether what follows a task cannot have ended before it."""
        return after.joins or set(after.upstream) <= self._before(task) | {task.id}

    def _after(self, task: Task) -> list[Task]:
        return [other for other in self._tasks.values() if task.id in other.upstream]

    def _before(self, task: Task) -> set[str]:
        found: set[str] = set()
        for name in task.upstream:
            found |= {name} | self._before(self._tasks[name])
        return found
