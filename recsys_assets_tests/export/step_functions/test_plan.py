"""The plan of any graph does what the graph says, whatever the gates turn out to be."""

from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.export.graph import Graph, Kind, Task
from recsys_assets.export.step_functions.plan import Condition, plan
from recsys_assets_tests.export.step_functions.graphs import graph_of


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Make a graph of work, gates, and choices with a join behind them."""
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 12))):
        name = f"t{number}"
        free = [task.id for task in tasks if task.kind is not Kind.CHOICE]
        upstream = tuple(sorted(draw(st.sets(st.sampled_from(free), max_size=3)) if free else ()))
        kind = draw(
            st.sampled_from([Kind.PYTHON, Kind.PYTHON, Kind.CHECK, Kind.OPT_IN, Kind.CHOICE])
        )
        if kind is not Kind.CHOICE:
            tasks.append(Task(name, kind, upstream))
            continue
        ways = {value: f"{name}_{value}" for value in ("a", "b", "c")}
        tasks.append(Task(name, kind, upstream, alternatives=ways))
        tasks += [Task(way, Kind.PYTHON, (name,)) for way in ways.values()]
        tasks.append(Task(f"{name}_join", Kind.PYTHON, tuple(ways.values()), joins=True))
    # A task behind two alternatives of one choice can never be done, and is refused.
    kept = [task for task in tasks if not _is_behind_two(task, tasks)]
    return graph_of(*kept)


def _is_behind_two(task: Task, tasks: list[Task]) -> bool:
    by_name = {item.id: item for item in tasks}

    def chosen(item: Task) -> set[str]:
        if item.joins:
            return chosen(by_name[item.upstream[0].rpartition("_")[0]])
        own = {item.id} if "_" in item.id else set()
        return own.union(*(chosen(by_name[name]) for name in item.upstream))

    if any(_is_behind_two(by_name[name], tasks) for name in task.upstream):
        return True
    found = [name.partition("_")[0] for name in chosen(task)]
    return len(found) != len(set(found))


def should_be_done(graph: Graph, passing: dict[str, str]) -> set[str]:
    """Return what is done: a task whose upstream is, and lets it; a join, if any of it is."""
    done: set[str] = set()
    for task in graph.tasks:
        ways = []
        for name in task.upstream:
            gate = graph.task(name)
            lets = {
                Kind.PYTHON: True,
                Kind.CHOICE: gate.alternatives.get(passing[name]) == task.id,
            }.get(gate.kind, passing[name] != "a")
            ways.append(name in done and lets)
        if any(ways) if task.joins else all(ways):
            done.add(task.id)
    return done


@given(graphs(), st.data())
def test_a_plan_does_what_the_graph_says_and_each_task_after_what_it_follows(
    graph: Graph, data: st.DataObject
) -> None:
    passing = {task.id: data.draw(st.sampled_from("abc")) for task in graph.tasks}

    def holds(condition: Condition) -> bool:
        if condition.values:
            return passing[condition.gate] in condition.values
        return passing[condition.gate] != "a"

    expected = should_be_done(graph, passing)
    forks = plan(graph)
    done: list[str] = []
    number = 0
    while number < len(forks):
        fork = forks[number]
        block = next((item for item in fork.blocks if all(map(holds, item.asked))), None)
        if block is None:
            number = fork.skips_to
            continue
        for level in block.levels:
            for task in level:
                assert all(
                    name in done or graph.task(name).kind in (Kind.CHOICE, Kind.OPT_IN)
                    for name in task.upstream
                    if name in expected
                )
            done += [task.id for task in level]
        number += 1
    states = {task.id for task in graph.tasks if task.kind in (Kind.PYTHON, Kind.CHECK)}
    assert len(done) == len(set(done))
    assert set(done) == expected & states
