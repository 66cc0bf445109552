"""From Dagster definitions to tasks.

What belongs here: which tasks an asset becomes, and what they wait for. What does not: the tasks
themselves (``graph.py``) and what an orchestrator makes of them.

- An asset, or a multi-asset as a whole, is a Python task.
- Where services do an asset's work, each piece of work is a task, followed by the Python task that
  takes in what was made.
- Outputs of a multi-asset that are alternatives are a task each, behind a task that chooses; the
  outputs that are made in any case are one task, which joins them.
- The blocking checks on an asset are a task, for which everything waits that depends on the asset.
"""

import importlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions, version
from typing import Any

from dagster import (
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Config,
    Definitions,
    Failure,
)

from recsys_assets.export.graph import (
    OUR_DEFINITIONS,
    RUN_SECTION,
    Created,
    Graph,
    GraphError,
    Kind,
    Param,
    Task,
)
from recsys_assets.export.metadata import CHOICE, OPT_IN, POOL, WORK
from recsys_assets.export.params import (
    SEPARATOR,
    ConfigError,
    config_class_of,
    params_of,
    required,
    validated,
)
from recsys_assets.export.partitions import PartitionReader
from recsys_assets.export.requests import RequestContext

_SUFFIXES = {
    Kind.TRAINING: "training",
    Kind.TUNING: "tuning",
    Kind.TRANSFORM: "transform",
    Kind.MODEL: "sagemaker_model",
    Kind.ENDPOINT_CONFIG: "config",
    Kind.ENDPOINT: "deployment",
    Kind.SPARK: "spark",
}


def load_definitions(path: str) -> Definitions:
    """Import Dagster definitions.

    Parameters
    ----------
    path
        ``module:attribute``.

    Raises
    ------
    GraphError
        If there are none.
    """
    module, _, attribute = path.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the current folder, as `python -m` would find it
    try:
        found = getattr(importlib.import_module(module), attribute or "defs")
    except (ImportError, AttributeError) as error:
        message = f"expected module:attribute of Dagster definitions, got {path}: {error}"
        raise GraphError(message) from error
    if not isinstance(found, Definitions):
        raise GraphError(f"{path} is not a dagster.Definitions but a {type(found).__name__}")
    return found


def read_graph(
    definitions: str = OUR_DEFINITIONS, run_config: Mapping[str, Any] | None = None
) -> Graph:
    """Read definitions into tasks.

    Parameters
    ----------
    definitions
        ``module:attribute``.
    run_config
        Dagster run config (``ops: {step: {config: ...}}``) whose values are the defaults of the
        exported graph's parameters, in place of the config classes' own.

    Raises
    ------
    GraphError
        If there are no such definitions, or their graph has something that no task can do.
    recsys_assets.export.params.ConfigError
        If the run config does not fit the steps.
    """
    module = definitions.partition(":")[0].partition(".")[0]
    distributions = packages_distributions().get(module)
    reader = _Reader(load_definitions(definitions), run_config or {})
    try:
        return Graph(
            definitions=definitions,
            version=version(distributions[0]) if distributions else "",
            tasks=reader.tasks(),
            params=reader.params(),
            asset_uris=reader.asset_uris(),
        )
    except Failure as error:  # as a run of the asset would fail, such as for want of a role
        raise GraphError(str(error.description)) from error


@dataclass(frozen=True)
class _Step:
    """An op and the assets that it makes."""

    name: str
    definition: AssetsDefinition
    specs: tuple[AssetSpec, ...]
    config: Config | None

    @property
    def op(self) -> Any:
        return self.definition.node_def

    @cached_property
    def alternatives(self) -> tuple[AssetSpec, ...]:
        return tuple(spec for spec in self.specs if CHOICE in spec.metadata)

    @cached_property
    def others(self) -> tuple[AssetSpec, ...]:
        """What is made in any case."""
        return tuple(spec for spec in self.specs if CHOICE not in spec.metadata)

    @property
    def optional(self) -> set[str]:
        """Assets that a run of the step may leave out."""
        if self.alternatives:
            return {_name(spec.key) for spec in self.alternatives}
        required = {output.name for output in self.op.output_defs if output.is_required}
        outputs = self.definition.keys_by_output_name
        return {_name(key) for output, key in outputs.items() if output not in required}

    @property
    def param_of_choice(self) -> str:
        """The parameter that chooses between the alternatives."""
        return SEPARATOR.join((self.name, self.field_of_choice()))

    def field_of_choice(self) -> str:
        fields = {str(spec.metadata[CHOICE]["field"]) for spec in self.alternatives}
        if len(fields) != 1:
            raise GraphError(f"{self.name}: alternatives by one field expected, got {fields}")
        return fields.pop()


class _Reader:
    """Makes the tasks of one asset graph."""

    def __init__(self, definitions: Definitions, run_config: Mapping[str, Any]) -> None:
        self._assets = definitions.resolve_asset_graph()
        self._resources = definitions.resources or {}
        self._config = _config_by_step(run_config)
        self._steps = self._read_steps()
        self._partitions = PartitionReader(self._assets, [spec.key for spec in self._specs()])
        self._step_of = {_name(s.key): step for step in self._steps for s in step.specs}
        self._spec_of = {_name(spec.key): spec for spec in self._specs()}
        self._checks = self._read_checks()
        self._referred: set[str] = set()  # parameters that requests refer to
        unknown = set(self._config) - {step.name for step in self._steps} - set(self._checkers)
        if unknown:
            known = ", ".join([step.name for step in self._steps] + sorted(self._checkers))
            raise ConfigError(f"there is no step {', '.join(sorted(unknown))}; there are {known}")

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in order."""
        tasks = [task for step in self._steps for task in self._tasks_of(step)]
        _require_unique(task.id for task in tasks)
        tasks = self._behind_opt_ins(tasks)
        if any(task.kind.remote for task in tasks):
            followed = {name for task in tasks for name in task.upstream}
            leaves = sorted(task.id for task in tasks if task.id not in followed)
            text = "Stop what the run has left running, and delete what it alone needed."
            tasks.append(Task("clean_up", Kind.CLEAN_UP, tuple(leaves), description=text))
        _require_unique(task.id for task in tasks)
        return _in_order(tasks)

    def params(self) -> tuple[Param, ...]:
        """Return the parameters of a run; the tasks are to be read before."""
        found = self._partitions.params()
        asked = [spec.metadata[OPT_IN] for spec in self._specs() if OPT_IN in spec.metadata]
        texts = {item["param"]: item["description"] for item in reversed(asked)}  # the first's
        for name in dict.fromkeys(item["param"] for item in asked):
            found.append(Param(name, {"type": "boolean"}, False, texts[name], RUN_SECTION))
        for step in self._steps:
            if step.config is not None:
                found += self._params_of(step)
            own = {spec.key for spec in step.specs}
            for name, (definition, config) in sorted(self._checkers.items()):
                checked = {check.asset_key for check in definition.check_specs}
                if config is not None and min(checked) in own:
                    found += params_of(name, config)
        self._require_clear(found)
        return tuple(found)

    def _require_clear(self, params: Sequence[Param]) -> None:
        """Refuse parameters that are not there, are there twice or could be another step's."""
        names = [param.name for param in params]
        if missing := self._needed - set(names):
            raise GraphError(
                f"there is no parameter {', '.join(sorted(missing))}: a choice or a request refers "
                "to a config field that its step does not have"
            )
        if twice := {name for name in names if names.count(name) > 1}:
            raise GraphError(f"two parameters would be named {', '.join(sorted(twice))}")
        steps = [*(step.name for step in self._steps), *self._checkers]
        for param in params:
            owners = [name for name in steps if param.name.startswith(name + SEPARATOR)]
            if param.section in owners and max(owners, key=len) != param.section:
                raise GraphError(
                    f"the parameter {param.name} of {param.section} could be one of "
                    f"{max(owners, key=len)}; rename a step or a config field"
                )

    @property
    def _needed(self) -> set[str]:
        """Parameters that tasks cannot do without."""
        return self._referred | {s.param_of_choice for s in self._steps if s.alternatives}

    def asset_uris(self) -> dict[str, str]:
        """Return where current versions are found, of those IO managers that tell."""
        found = {}
        for spec in self._specs():
            definition = self._step_of[_name(spec.key)].definition
            manager = self._resources.get(definition.get_io_manager_key_for_asset_key(spec.key))
            if manager is not None and hasattr(manager, "current_uri"):
                found[_name(spec.key)] = manager.current_uri(_name(spec.key))
        return found

    def _specs(self) -> Iterable[AssetSpec]:
        return (spec for step in self._steps for spec in step.specs)

    def _read_steps(self) -> list[_Step]:
        """Return the steps that make assets, each after those that it depends on."""
        keys_of: dict[str, list[AssetKey]] = {}
        definitions: dict[str, AssetsDefinition] = {}
        for key in self._assets.toposorted_asset_keys:
            node = self._assets.get(key)
            if node.is_materializable:
                name = node.assets_def.node_def.name
                if definitions.setdefault(name, node.assets_def) is not node.assets_def:
                    raise GraphError(f"two steps are named {name}; give each a name of its own")
                keys_of.setdefault(name, []).append(key)
        return [
            _Step(
                name,
                definitions[name],
                tuple(definitions[name].specs_by_key[key] for key in keys),
                self._config_of(name, definitions[name].node_def),
            )
            for name, keys in keys_of.items()
        ]

    def _read_checks(self) -> dict[str, list[str]]:
        """Return the blocking checks by asset, of those that are steps of their own."""
        found: dict[str, list[str]] = {}
        self._checkers: dict[str, tuple[AssetsDefinition, Config | None]] = {}
        for definition in self._assets.assets_defs:
            if definition.keys:
                continue  # checks that an asset's own step makes fail that step
            for spec in definition.check_specs:
                if spec.blocking:
                    found.setdefault(_name(spec.asset_key), []).append(spec.name)
                    name = definition.node_def.name
                    if self._checkers.get(name, (definition,))[0] is not definition:
                        raise GraphError(f"two checks are named {name}; name each on its own")
                    config = self._config_of(name, definition.node_def)
                    self._checkers[name] = (definition, config)
        return found

    def _config_of(self, step: str, op: Any) -> Config | None:
        given = self._config.get(step, {})
        config_class = config_class_of(op)
        if config_class is not None:
            return validated(step, config_class, given)
        field = getattr(op, "config_field", None)
        if field is not None and field.is_required:
            raise ConfigError(
                f"{step} needs config that is no class derived from dagster.Config, so it cannot "
                "be exported"
            )
        if given:
            raise ConfigError(f"{step} takes no config of a dagster.Config class, got {given}")
        return None

    def _params_of(self, step: _Step) -> list[Param]:
        assert step.config is not None  # noqa: S101
        params = params_of(step.name, step.config)
        if not step.alternatives:
            return params
        # What is asked for stands in the requests; what these do not refer to would be ignored.
        return [required(param) for param in params if param.name in self._needed]

    def _tasks_of(self, step: _Step) -> list[Task]:
        """Return the tasks of a step, with those of the checks on what it makes."""
        made = self._choice(step) if step.alternatives else self._plain(step)
        for asset in sorted(step.optional):
            if self._has_consumers(asset):
                if self._is_mapped(step.specs[0].key):
                    raise GraphError(
                        f"{step.name} may leave out {asset}, and a run makes all its partitions: "
                        "whether it is there would differ between these"
                    )
                made.append(
                    Task(
                        id=f"{_identifier(asset)}_made",
                        kind=Kind.MADE,
                        upstream=(self._producer(asset),),
                        group=_group(step.specs[0]),
                        description=f"Whether this run has made {asset}.",
                        optional_asset=asset,
                    )
                )
        made += [self._check(spec) for spec in step.specs if _name(spec.key) in self._checks]
        return made

    def _plain(self, step: _Step) -> list[Task]:
        name = self._producer(_name(step.specs[0].key))
        upstream = self._upstream(step)
        worker = next((spec for spec in step.specs if WORK in spec.metadata), None)
        if worker is None:
            return [self._python(step, name, step.specs, upstream)]
        if len(step.specs) > 1:
            raise GraphError(f"{step.name} makes several assets, so no service can do its work")
        remote = self._remote(step, worker, name, upstream)
        created = tuple(Created(_name(worker.key), task.kind, task.id) for task in remote)
        python = self._python(step, name, step.specs, (remote[-1].id,))
        return [*remote, replace(python, created=created)]

    def _choice(self, step: _Step) -> list[Task]:
        served = [spec for spec in step.alternatives if WORK in spec.metadata]
        if any(WORK in spec.metadata for spec in step.others):
            raise GraphError(f"{step.name}: only the work of its alternatives can be a service's")
        if served and (len(served) < len(step.alternatives) or not step.others):
            raise GraphError(
                f"{step.name}: services do the work of {_and(_name(s.key) for s in served)}, so "
                "they must do that of each alternative, and there must be an output that is made "
                "in any case, with which what they have made is taken in"
            )
        choice = Task(
            id=f"{step.name}_{step.field_of_choice()}",
            kind=Kind.CHOICE,
            upstream=self._upstream(step),
            group=_group(step.alternatives[0]),
            description=f"Which of {_and(_name(s.key) for s in step.alternatives)} is made.",
            param=step.param_of_choice,
            alternatives={
                str(spec.metadata[CHOICE]["value"]): _identifier(_name(spec.key))
                for spec in step.alternatives
            },
        )
        tasks, created = [choice], []
        for spec in step.alternatives:
            name = _identifier(_name(spec.key))
            if WORK in spec.metadata:
                (task,) = self._remote(step, spec, name, (choice.id,), only=True)
                created.append(Created(_name(spec.key), task.kind, task.id))
            else:
                task = self._python(step, name, (spec,), (choice.id,))
            tasks.append(task)
        if step.others:
            upstream = tuple(sorted(task.id for task in tasks[1:]))
            join = self._python(step, self._id_of(step.others, step), step.others, upstream)
            tasks.append(replace(join, joins=True, created=tuple(created)))
        return tasks

    def _python(
        self, step: _Step, name: str, specs: Sequence[AssetSpec], upstream: tuple[str, ...]
    ) -> Task:
        policy = getattr(step.op, "retry_policy", None)
        partitions = {self._partitions.partitions_of(spec.key) for spec in step.specs}
        if len(partitions) > 1:
            raise GraphError(f"the assets of {step.name} are not partitioned alike")
        pool = getattr(step.op, "pool", None)
        if any(spec.metadata.get(POOL) == "dagster" for spec in step.specs):
            pool = None
        whole = len(specs) > 1 and step.op.description
        return Task(
            id=name,
            kind=Kind.PYTHON,
            upstream=upstream,
            group=_group(specs[0]),
            description=whole or "\n".join(filter(None, (spec.description for spec in specs))),
            owners=tuple(dict.fromkeys(owner for spec in specs for owner in spec.owners)),
            tags=_tags(specs),
            assets=tuple(_name(spec.key) for spec in specs),
            retries=policy.max_retries if policy else None,
            retry_seconds=policy.delay if policy else None,
            pool=pool,
            partitions=partitions.pop(),
        )

    def _remote(
        self,
        step: _Step,
        spec: AssetSpec,
        name: str,
        upstream: tuple[str, ...],
        only: bool = False,
    ) -> list[Task]:
        """Return the tasks of the work that services do for an asset, each after the one before."""
        work: Mapping[str, Any] = spec.metadata[WORK]
        kinds = [kind for kind in Kind if kind.value in work["kinds"] and kind.remote]
        kinds.sort(key=lambda kind: work["kinds"].index(kind.value))
        if len(kinds) < len(work["kinds"]):
            raise GraphError(
                f"{_name(spec.key)}: expected kinds of work of recsys_assets.export.metadata, each "
                f"once, got {work['kinds']}"
            )
        if only and len(kinds) > 1:
            raise GraphError(
                f"{_name(spec.key)} is an alternative, so one kind of work is expected"
            )
        creators = {kind: name if only else f"{name}_{_SUFFIXES[kind]}" for kind in kinds}
        context = RequestContext(
            asset=_name(spec.key),
            resources=self._resources,
            config=step.config,
            step=step.name,
            producers={
                parent: self._producer(parent)
                for key in self._assets.get(spec.key).parent_keys
                if (parent := _name(key)) in self._step_of and not self._is_mapped(key)
            },
            creators=creators,
        )
        python = self._python(step, name, (spec,), ())
        if self._is_mapped(spec.key):
            raise GraphError(
                f"{context.asset} would be worked on for all its partitions at once by a service: "
                "its requests have one name a run"
            )
        requests = _requests(work["requests"], context)
        if missing := [kind.value for kind in kinds if kind.value not in requests]:
            raise GraphError(
                f"{context.asset}: {work['requests']} returns no request for {_and(missing)}"
            )
        self._referred |= context.params
        tasks = []
        for kind in kinds:
            task = replace(
                python,
                id=creators[kind],
                kind=kind,
                upstream=upstream,
                request=requests[kind.value],
                partitions=None,
            )
            tasks.append(task)
            upstream = (task.id,)
        return tasks

    def _check(self, spec: AssetSpec) -> Task:
        """Return the task of the blocking checks on an asset."""
        asset = _name(spec.key)
        inputs = {
            _name(key)
            for definition, _ in self._checkers.values()
            if any(check.asset_key == spec.key for check in definition.check_specs)
            for key in definition.keys_by_input_name.values()
        }
        partitions = self._partitions.partitions_of(spec.key)
        if partitions is not None:
            whole = [
                name
                for name, (definition, _) in sorted(self._checkers.items())
                for check in definition.check_specs
                if check.asset_key == spec.key and check.partitions_def is None
            ]
            if whole or partitions.param is None:
                raise GraphError(
                    f"the blocking checks on {asset} are done on one partition of a run, so they "
                    "need its partitions_def, and nothing may need all of them in one run"
                )
        upstream = {self._made(asset)}
        upstream |= {self._after(name) for name in inputs - {asset} if name in self._step_of}
        return Task(
            id=f"{_identifier(asset)}_checks",
            kind=Kind.CHECK,
            upstream=tuple(sorted(upstream)),
            group=_group(spec),
            description=f"Whether {asset} is good enough for what depends on it.",
            owners=tuple(spec.owners),
            assets=(asset,),
            checks=tuple(sorted(self._checks[asset])),
            partitions=partitions,
        )

    def _behind_opt_ins(self, tasks: Sequence[Task]) -> list[Task]:
        """Put the tasks that a run must ask for behind a task that looks whether it does."""
        asked: dict[str, list[str]] = {}
        for task in tasks:
            assets = task.assets or ((task.optional_asset,) if task.optional_asset else ())
            for spec in map(self._spec_of.__getitem__, assets):
                if OPT_IN in spec.metadata:
                    asked.setdefault(spec.metadata[OPT_IN]["param"], []).append(task.id)
        found = {task.id: task for task in tasks}
        for param, members in asked.items():
            if param in found or not param.isidentifier():
                raise GraphError(
                    f"expected a name for what a run must ask for that no task has, of letters, "
                    f"digits and underscores, got {param!r}"
                )
            behind = _reached(members, found)
            before = {name for member in members for name in found[member].upstream} - behind
            for member in members:
                upstream = found[member].upstream
                # What follows another member is behind the task that looks, as that one is.
                if found[member].joins or not set(upstream) & set(members):
                    names = tuple(sorted({*upstream, param}))
                    found[member] = replace(found[member], upstream=names)
            found[param] = Task(
                id=param,
                kind=Kind.OPT_IN,
                upstream=tuple(sorted(before)),
                group=found[members[0]].group,
                description=f"Whether this run was asked to {param}.",
                param=param,
            )
        return list(found.values())

    def _is_mapped(self, key: AssetKey) -> bool:
        """Whether a run makes all partitions of an asset."""
        partitions = self._partitions.partitions_of(key)
        return partitions is not None and partitions.param is None

    def _upstream(self, step: _Step) -> tuple[str, ...]:
        """Return what a step waits for."""
        own = {spec.key for spec in step.specs}
        parents = {key for spec in step.specs for key in self._assets.get(spec.key).parent_keys}
        names = {_name(key) for key in parents - own}
        return tuple(sorted({self._after(name) for name in names if name in self._step_of}))

    def _after(self, asset: str) -> str:
        """Return the task that whoever depends on an asset waits for."""
        return f"{_identifier(asset)}_checks" if asset in self._checks else self._made(asset)

    def _made(self, asset: str) -> str:
        """Return the task after which an asset is there."""
        optional = asset in self._step_of[asset].optional
        return f"{_identifier(asset)}_made" if optional else self._producer(asset)

    def _producer(self, asset: str) -> str:
        """Return the Python task that makes an asset, or takes in what was made of it."""
        step = self._step_of[asset]
        if not step.alternatives:
            return self._id_of(step.specs, step)
        served = any(WORK in spec.metadata for spec in step.alternatives)
        if asset in step.optional and not served:
            return _identifier(asset)
        return self._id_of(step.others, step)

    def _id_of(self, specs: Sequence[AssetSpec], step: _Step) -> str:
        return _identifier(_name(specs[0].key) if len(specs) == 1 else step.name)

    def _has_consumers(self, asset: str) -> bool:
        own = {spec.key for spec in self._step_of[asset].specs}
        children = self._assets.get(self._spec_of[asset].key).child_keys - own
        return asset in self._checks or bool(children)


def _in_order(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Sort tasks so that each follows its upstream ones, else as they are."""
    found = {task.id: task for task in tasks}
    place = {task.id: number for number, task in enumerate(tasks)}
    sorter = TopologicalSorter({task.id: task.upstream for task in tasks})
    try:
        sorter.prepare()
    except CycleError as error:
        raise GraphError(f"tasks would wait for each other: {', '.join(error.args[1])}") from error
    order: list[Task] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
        name = ready.pop(0)
        order.append(found[name])
        sorter.done(name)
    return tuple(order)


def _config_by_step(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of each step of Dagster run config, which may hold nothing else."""
    if others := set(run_config) - {"ops"}:
        raise ConfigError(f"expected config of steps (ops) alone, got {_and(sorted(others))}, too")
    found = {}
    for step, given in (run_config.get("ops") or {}).items():
        if not isinstance(given, Mapping) or set(given) - {"config"}:
            raise ConfigError(f"{step}: expected a mapping with config alone, got {given!r}")
        found[step] = given.get("config") or {}
    return found


def _reached(names: Iterable[str], tasks: Mapping[str, Task]) -> set[str]:
    """Return tasks and all that follow them."""
    reached = set(names)
    while more := {t.id for t in tasks.values() if reached & set(t.upstream)} - reached:
        reached |= more
    return reached


def _requests(path: str, context: RequestContext) -> Mapping[str, Any]:
    """Return the requests of an asset's work, of the function that its metadata names."""
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise GraphError(
            f"{context.asset}: expected module:function of requests, got {path}: {error}"
        ) from error
    requests: Mapping[str, Any] = function(context)
    return requests


def _require_unique(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise GraphError(f"two tasks would be named {name}")
        seen.add(name)


def _name(key: AssetKey) -> str:
    return key.to_user_string()


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name, flags=re.ASCII)


def _group(spec: AssetSpec) -> str | None:
    return None if spec.group_name in (None, "default") else spec.group_name


def _tags(specs: Iterable[AssetSpec]) -> dict[str, str]:
    """Return the tags of assets; a kind is a tag without a value."""
    found: dict[str, str] = {}
    for spec in specs:
        found |= {name.removeprefix("dagster/kind/"): text for name, text in spec.tags.items()}
    return dict(sorted(found.items()))


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
