"""What an asset is given to say what it asks other services for, before there is a run.

What belongs here: references to what a run will know (``graph.py`` lists their forms). What does
not: the requests, which the assets make themselves.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys_assets.export.graph import GraphError, Kind

_NAME = re.compile(r"[\w/-]+")  # of an asset, such that a reference may hold it


@dataclass
class RequestContext:
    """Given to the function that :func:`recsys_assets.export.metadata.remote_work` names.

    Attributes
    ----------
    asset
        The asset whose work is asked for.
    resources
        Those of the definitions, by key.
    config
        The config of the asset's step (an instance of its config class) with which the graph is
        exported; None where the step takes none.
    step
        Name of that step.
    producers
        Of each asset that this one depends on, the task that tells of it.
    creators
        The tasks that create something for this asset, by kind.
    params
        Collects the parameters that were referred to.
    """

    asset: str
    resources: Mapping[str, Any]
    config: Any
    step: str
    producers: Mapping[str, str]
    creators: Mapping[Kind, str]
    params: set[str] = field(default_factory=set)

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return "${run.id}"

    def result(self, asset: str, key: str) -> str:
        """Return a reference to what a run tells of an asset that this one depends on.

        Parameters
        ----------
        asset
            The other asset.
        key
            ``uri``, ``content_hash``, ``rows`` or a key of its metadata.

        Raises
        ------
        GraphError
            If the asset does not depend on the other, a run makes several partitions of the other,
            or its name cannot be referred to.
        """
        if asset not in self.producers:
            known = ", ".join(sorted(self.producers)) or "nothing"
            raise GraphError(
                f"{self.asset} refers to {asset}; it depends, but for assets of which a run makes "
                f"several partitions, on {known}"
            )
        if not _NAME.fullmatch(asset):
            raise GraphError(
                f"{self.asset} refers to {asset}, whose name has other characters than letters, "
                "digits, '_', '-' and '/'"
            )
        return f"${{results.{self.producers[asset]}.{asset}.{key}}}"

    def param(self, *path: str) -> str:
        """Return a reference to a field of the step's config, which a run may set anew.

        Parameters
        ----------
        path
            Names of the field and of fields within it.
        """
        name = "__".join((self.step, *path))
        self.params.add(name)
        return f"${{params.{name}}}"

    def created(self, kind: str) -> str:
        """Return a reference to the name of what was created before for the same asset.

        Parameters
        ----------
        kind
            One of the kinds of ``metadata.py``, earlier in the order of the asset's work.

        Raises
        ------
        GraphError
            If nothing of this kind is created for the asset.
        """
        creators = {found.value: task for found, task in self.creators.items()}
        if kind not in creators:
            raise GraphError(
                f"{self.asset} refers to its {kind}, but its work is {', '.join(creators)}"
            )
        return f"${{created.{creators[kind]}}}"
