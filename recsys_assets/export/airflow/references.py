"""What a run will know, in the Jinja that Airflow renders.

What belongs here: references (``${...}``) as templates, and the constants for what requests hold
more than once. What does not: whose requests they are.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

from recsys_assets.export.airflow.literals import Code
from recsys_assets.export.graph import REFERENCE

RUN = "{{ run_uuid(ti) }}"

_CONSTANTS = {
    "ExecutionRoleArn": "ROLE_ARN",
    "Image": "IMAGE",
    "RoleArn": "ROLE_ARN",
    "TrainingImage": "IMAGE",
}  # members whose values are long, and the same in many requests
CONSTANTS = {
    *("COMMAND", "MAX_ATTEMPTS", "PARAMS", "PARAMS_FOLDER", "PARAMS_URI"),
    *_CONSTANTS.values(),
}
"""Constants that have a meaning of their own in every file."""

_JINJA = re.compile(r"\{[{%#]")


class References:
    """Turns references into templates, and collects the constants that they become.

    Parameters
    ----------
    ids
        Ids of Airflow's tasks, with their groups, by ids of the graph's tasks.
    """

    def __init__(self, ids: Mapping[str, str]) -> None:
        self._ids = ids
        self.constants: dict[str, str] = {}

    def rendered(self, value: Any) -> Any:
        """Return a value with templates in place of references, as deep as they stand."""
        if isinstance(value, Mapping):
            return {
                key: self.constant(_CONSTANTS[key], item)
                if key in _CONSTANTS and isinstance(item, str)
                else self.rendered(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.rendered(item) for item in value]
        if not isinstance(value, str):
            return value
        whole = REFERENCE.fullmatch(value)
        if whole and whole[1].startswith("results."):
            _, _, asset, key = whole[1].split(".", 3)
            return self.constant(f"{asset}_{key}", self._template(whole[1]))
        pieces = REFERENCE.split(value)  # texts and references by turns
        return "".join(
            self._template(piece) if number % 2 else escaped(piece)
            for number, piece in enumerate(pieces)
        )

    def constant(self, name: str, value: str) -> Code:
        """Return the name of the constant of a value."""
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).upper()
        if base[0].isdigit() or (base in CONSTANTS and name not in CONSTANTS):
            base = f"ASSET_{base}"
        for number in itertools.count(1):
            name = base if number == 1 else f"{base}_{number}"
            if self.constants.setdefault(name, value) == value:
                break
        return Code(name)

    def _template(self, reference: str) -> str:
        match reference.split("."):
            case ["run", "id"]:
                return RUN
            case ["run", "short"]:
                return "{{ run_uuid(ti)[:8] }}"
            case ["params", name]:
                return f"{{{{ params.{name} }}}}"
            case ["results", task, asset, *key]:
                pulled = f"ti.xcom_pull(task_ids='{self._ids[task]}')"
                return f"{{{{ {pulled}[{asset!r}][{'.'.join(key)!r}] }}}}"
            case ["created", task]:
                return f"{{{{ created(ti, '{self._ids[task]}') }}}}"
        raise ValueError(f"${{{reference}}} is no reference that a graph may hold")


def escaped(text: str) -> str:
    """Return a text that Jinja leaves as it is."""
    return _JINJA.sub(lambda match: f"{{{{ '{match[0]}' }}}}", text)
