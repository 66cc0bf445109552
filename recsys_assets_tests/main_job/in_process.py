"""The platform in this process, with real services and a prefix of a test's own.

What belongs here: running the main job and reading what it has stored. What does not: what is
expected of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import AssetKey, DagsterInstance

from recsys_assets.definitions import MAIN_JOB, build_defs, build_resources
from recsys_assets.resources.object_store import ObjectStore
from recsys_assets.settings import Settings

Config = Mapping[str, Mapping[str, Any]]  # of each step, by its name


class Platform:
    """The platform, and its object store."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self.store = store
        self._defs = build_defs(settings)

    def run(self, config: Config, assets: Sequence[str] | None = None) -> None:
        """Run the main job, or those of its steps that make some assets."""
        with DagsterInstance.ephemeral() as instance:
            result = self._defs.resolve_job_def(MAIN_JOB).execute_in_process(
                run_config={"ops": {name: {"config": content} for name, content in config.items()}},
                asset_selection=[AssetKey(name) for name in assets] if assets else None,
                instance=instance,
            )
        assert result.success

    def files(self, asset: str, folder: Path) -> list[Path]:
        """Download the files of the current version of an asset, in their order."""
        folder.mkdir(parents=True, exist_ok=True)
        version = self.store.require(asset)
        self.store.fetch(version, folder)
        return [folder / file.name for file in version.files]


@contextmanager
def platform(settings: Settings, prefix: str) -> Iterator[Platform]:
    """The platform with everything that it stores below a prefix."""
    own = Settings(**{**vars(settings), "prefix": prefix})
    with build_resources(own)["store"].process_config_and_initialize_cm() as store:
        yield Platform(own, store)
