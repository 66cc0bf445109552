"""What a machine does when: blocks of tasks, one after the other, and on which conditions.

What belongs here: conditions and order. What does not: how either is written.

A machine runs through its blocks. The tasks of a block depend on the same conditions (checks that
have passed, what was chosen and asked for), so that one choice guards them all. Within a block,
tasks that wait for nothing of each other are a level, done side by side.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from recsys_assets.export.graph import Graph, Kind, Task

_GATES = (Kind.CHECK, Kind.CHOICE, Kind.OPT_IN, Kind.MADE)


class UnsupportedError(ValueError):
    """What the Amazon States Language cannot express; the message is one sentence."""


@dataclass(frozen=True)
class Condition:
    """What must be true for a task to be done.

    Attributes
    ----------
    gate
        The check, choice, opt-in or optional output.
    values
        Of a choice: the values of its parameter that ask for the task.
    """

    gate: str
    values: tuple[str, ...] = ()


Conditions = tuple[Condition, ...]


@dataclass(frozen=True)
class Block:
    """Levels of tasks, and the conditions of them all.

    Attributes
    ----------
    conditions
        In the graph's order.
    asked
        Those of them that are not known to be true wherever the machine may come from.
    """

    conditions: Conditions
    levels: tuple[tuple[Task, ...], ...]
    asked: Conditions = ()


@dataclass(frozen=True)
class Fork:
    """One block, or several of which at most one is done: alternatives.

    Attributes
    ----------
    blocks
        Conditions of alternatives differ in nothing but the values of the last one. All ask for
        something, or the only one for nothing.
    skips_to
        Number of the fork to go on with when no block is done.
    """

    blocks: tuple[Block, ...]
    skips_to: int


def plan(graph: Graph) -> tuple[Fork, ...]:
    """Return what a machine does, in order.

    Raises
    ------
    UnsupportedError
        If a task follows several others of which only some are done, and these are not all the
        alternatives of one choice.
    """
    conditions = _conditions(graph)
    forks = list(_forks(_blocks(graph, conditions)))
    # Of each fork, what is known when it is come to: the first one is come to without knowledge.
    ways: list[list[set[Condition]]] = [[set()], *([] for _ in forks)]
    planned = []
    for number, blocks in enumerate(forks):
        known = set.intersection(*ways[number])
        skips_to = _next_without(forks, number)
        asking = tuple(
            replace(block, asked=tuple(item for item in block.conditions if item not in known))
            for block in blocks
        )
        planned.append(Fork(asking, skips_to))
        ways[number + 1] += [set(block.conditions) for block in blocks]
        if any(block.asked for block in asking):
            ways[skips_to].append(known)
    return tuple(planned)


def _conditions(graph: Graph) -> dict[str, Conditions]:
    place = {task.id: number for number, task in enumerate(graph.tasks)}
    found: dict[str, Conditions] = {}
    for task in graph.tasks:
        ways = [
            {*found[name], *_condition(graph.task(name), task)}
            for name in task.upstream
            if task.kind is not Kind.CLEAN_UP
        ]
        wanted = _common(graph, task, ways) if task.joins else set().union(*ways)
        if len({condition.gate for condition in wanted}) < len(wanted):
            raise UnsupportedError(f"{task.id} follows two alternatives of which one is chosen.")
        found[task.id] = tuple(sorted(wanted, key=lambda condition: place[condition.gate]))
    return found


def _condition(gate: Task, task: Task) -> Conditions:
    """Return on which condition a task follows another one, none if always."""
    if gate.kind is Kind.CHOICE:
        values = tuple(value for value, name in gate.alternatives.items() if name == task.id)
        if not values:
            raise UnsupportedError(f"{task.id} follows {gate.id}, of which it is no alternative.")
        return (Condition(gate.id, values),)
    return (Condition(gate.id),) if gate.kind in _GATES else ()


def _common(graph: Graph, task: Task, ways: list[set[Condition]]) -> set[Condition]:
    """Return what all that a task joins depend on; whatever is chosen beyond, one of them is done.

    Raises
    ------
    UnsupportedError
        If it may be that none is done.
    """
    common = set.intersection(*ways)
    rest = [way - common for way in ways]
    chosen = {condition for way in rest for condition in way}
    gates = {condition.gate for condition in chosen}
    if all(rest):
        covered = {value for condition in chosen for value in condition.values}
        if len(gates) != 1 or covered != graph.task(gates.pop()).alternatives.keys():
            raise UnsupportedError(
                f"{task.id} goes on when some of {', '.join(task.upstream)} are done, and these "
                "are not all the alternatives of one choice."
            )
    return common


def _blocks(graph: Graph, conditions: dict[str, Conditions]) -> Iterator[Block]:
    waiting = {task.id: task for task in graph.tasks if task.kind is not Kind.CLEAN_UP}

    def ready() -> list[Task]:
        return [task for task in waiting.values() if not waiting.keys() & set(task.upstream)]

    while waiting:
        # What depends on least goes first, so that a failed check or what was not asked for holds
        # up nothing else.
        current = min((conditions[task.id] for task in ready()), key=len)
        levels = []
        while level := [task for task in ready() if conditions[task.id] == current]:
            for task in level:
                del waiting[task.id]
            levels.append(tuple(task for task in level if _has_states(task)))
        if any(levels):
            yield Block(current, tuple(filter(None, levels)))


def _has_states(task: Task) -> bool:
    """Tell whether a task does something; other gates only look at what is there."""
    return task.kind not in _GATES or task.kind is Kind.CHECK


def _forks(blocks: Iterable[Block]) -> Iterator[tuple[Block, ...]]:
    together: list[Block] = []
    for block in blocks:
        if together and not _alternatives(together[-1].conditions, block.conditions):
            yield tuple(together)
            together = []
        together.append(block)
    if together:
        yield tuple(together)


def _alternatives(one: Conditions, other: Conditions) -> bool:
    return (
        bool(one and other)
        and one[:-1] == other[:-1]
        and one[-1].gate == other[-1].gate
        and one[-1].values != other[-1].values
    )


def _next_without(forks: list[tuple[Block, ...]], number: int) -> int:
    """Return the next fork that does not depend on all that a fork depends on."""
    blocks = forks[number]
    shared = set.intersection(*(set(block.conditions) for block in blocks))
    for later in range(number + 1, len(forks)):
        if not all(shared <= set(block.conditions) for block in forks[later]):
            return later
    return len(forks)
