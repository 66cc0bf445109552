"""Runs DAGs in Airflow's interpreter: a request a line on stdin, its answer a line on stdout.

What belongs here: loading a DAG file and running it by ``dag.test()``, in Airflow 2 and 3. What
does not: which DAGs, and what is expected of them (the tests, in the project's interpreter).
"""

import importlib.util
import inspect
import json
import os
import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

# What programs and Airflow print is not the answer.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def load(path: str) -> Any:
    """Return the DAG of a file."""
    spec = importlib.util.spec_from_file_location("loaded", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag


def parse(path: str) -> dict[str, Any]:
    """Return what Airflow makes of a DAG file, and how long the file itself took."""
    import airflow.providers.amazon.aws.operators.sagemaker
    import airflow.providers.amazon.aws.triggers.sagemaker  # noqa: F401

    start = time.perf_counter()
    dag = load(path)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "tasks": {
            task.task_id: {
                "upstream": sorted(task.upstream_task_ids),
                "operator": task.operator_name,
                "rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
                "teardown": task.is_teardown,
            }
            for task in dag.tasks
        },
        "params": {name: dag.params[name] for name in dag.params},
        "section": {name: dag.params.get_param(name).schema.get("section") for name in dag.params},
        "tags": sorted(dag.tags),
    }


def run(path: str, date: str, conf: dict[str, Any]) -> dict[str, Any]:
    """Run a DAG; the same date is the same run, whose tasks are done again."""
    dag = load(path)
    # Airflow 3 names a run after run_after, which 2 does not know.
    names = inspect.signature(dag.test).parameters.keys()
    names &= {"execution_date", "logical_date", "run_after"}
    dag_run = dag.test(**dict.fromkeys(names, datetime.fromisoformat(date)), run_conf=conf)
    states: dict[str, list[str]] = {}
    tries: dict[str, int] = {}
    results: dict[str, Any] = {}
    for instance in dag_run.get_task_instances():
        states.setdefault(instance.task_id, []).append(str(instance.state))
        tries[instance.task_id] = instance.try_number
        results[instance.task_id] = instance.xcom_pull(task_ids=instance.task_id)
    return {
        "state": str(getattr(dag_run.state, "value", dag_run.state)),
        "run_id": dag_run.run_id,
        "states": {task: sorted(set(found)) for task, found in states.items()},
        "tries": tries,
        "results": json.loads(json.dumps(results, default=list)),
    }


if __name__ == "__main__":
    with suppress(ImportError):  # Airflow 2 deletes the earlier run, for which it needs its users
        import airflow.providers.fab.auth_manager.models  # noqa: F401
    for line in sys.stdin:
        request = json.loads(line)
        os.environ.update(request.pop("environment", {}))
        action = {"parse": parse, "run": run}[request.pop("action")]
        ANSWERS.write(json.dumps(action(**request)) + "\n")
        ANSWERS.flush()
