"""What all IO managers share: a value is a folder of files, published as one version.

What belongs here: the steps between Dagster and the object store. What does not: any format.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dagster import ConfigurableIOManager, InputContext, MetadataValue, OutputContext, TableSchema

from recsys_assets.io_managers.lineage import made_from, versions_read
from recsys_assets.resources.object_store import Head, MissingObjectError, ObjectStore, Version
from recsys_assets.resources.retries import retried

MADE_FROM = "made_from"
"""Metadata of a materialization: the inputs of its version."""


@dataclass(frozen=True)
class Written:
    """What an IO manager tells of the files that it wrote.

    Attributes
    ----------
    row_count
        Number of rows, where that means something.
    schema
        Columns of the main table, where there is one.
    facts
        JSON values to keep in the manifest.
    inputs
        What the version was made from, where that is not what its step has read.
    head
        The head that the value grew out of, where it did.
    """

    row_count: int | None = None
    schema: TableSchema | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] | None = None
    head: Head | None = None


class VersionedIOManager(ConfigurableIOManager):
    """Stores each materialization as a new version; reads the one that ``lineage.py`` says.

    A version that is missing or unreadable fails the step for good (no retry) and names the object.
    What passes by itself has the step tried again (``recsys_assets.resources.retries``).
    """

    store: ObjectStore

    @abstractmethod
    def write(self, value: Any, folder: Path) -> Written:
        """Write a value as files into an empty folder."""

    @abstractmethod
    def load(self, version: Version, wanted: type) -> Any:
        """Return a version as a value of type `wanted`."""

    @contextmanager
    def fetched(self, version: Version) -> Iterator[Path]:
        """Fetch a version's files into a folder that lasts for the ``with`` block."""
        with TemporaryDirectory(prefix="recsys-") as name:
            self.store.fetch(version, Path(name))
            yield Path(name)

    def current_uri(self, asset: str) -> str:
        """Return the URI of the object that every materialization of an asset replaces."""
        return self.store.uri(asset, "current.json")

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Publish a value as the current version of its asset.

        Raises
        ------
        ConflictError
            If the value grew out of a head that another run has replaced, again and again.
        """
        with retried(context.step_context):
            self._publish(context, obj)

    def load_input(self, context: InputContext) -> Any:
        """Load the version of an asset that belongs to the reading run."""
        with retried(context.step_context):
            return self._load(context)

    def _publish(self, context: OutputContext, obj: Any) -> None:
        inputs = made_from(versions_read(self.store, context.step_context).values())
        with TemporaryDirectory() as name:
            folder = Path(name)
            written = self.write(obj, folder)
            version = self.store.publish(
                asset_name(context),
                context.run_id,
                folder,
                row_count=written.row_count,
                facts=written.facts,
                inputs=inputs if written.inputs is None else written.inputs,
                head=written.head,
            )
        metadata: dict[str, Any] = {
            "dagster/uri": version.uri,
            "content_hash": version.content_hash,
            "bytes": sum(file.bytes for file in version.files),
            "files": len(version.files),
            MADE_FROM: MetadataValue.json(version.inputs),
        }
        if written.row_count is not None:
            metadata["dagster/row_count"] = written.row_count
        if written.schema is not None:
            metadata["dagster/column_schema"] = MetadataValue.table_schema(written.schema)
        context.add_output_metadata(metadata)

    def _load(self, context: InputContext) -> Any:
        asset = asset_name(context)
        version = versions_read(self.store, context.step_context).get(asset)
        if version is None:
            version = self.store.require(asset)
        try:
            return self.load(version, context.dagster_type.typing_type)
        except (KeyError, OSError, ValueError) as error:
            raise MissingObjectError(
                f"{version.uri} cannot be read: {error}. Materialize {version.asset} again.",
                version.uri,
            ) from error


def asset_name(context: InputContext | OutputContext) -> str:
    """Return the name under which an asset's versions are stored."""
    return "/".join(context.asset_key.path)
