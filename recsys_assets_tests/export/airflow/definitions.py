"""Graphs that are not the platform's, stored where tasks with folders of their own find it."""

import os
from typing import Any

from dagster import Config, Definitions, Failure, FilesystemIOManager, asset

from recsys_assets.export.metadata import opt_in
from recsys_assets_tests.export import foreign


class BreakConfig(Config):
    """What goes wrong."""

    text: str = "a text; $(exit 9) \"'`"
    broken: bool = False
    for_good: bool = False


@asset
def breakable(config: BreakConfig) -> str:
    if config.broken:
        raise Failure("broken", allow_retries=not config.for_good)
    return config.text


@asset(metadata=opt_in("publish", "Publish it."))
def published(breakable: str) -> str:
    return breakable


def _definitions(*assets: Any, checks: Any = ()) -> Definitions:
    stored = FilesystemIOManager(base_dir=os.environ.get("TEST_STORED", "stored"))
    return Definitions(assets=assets, asset_checks=checks, resources={"io_manager": stored})


diamond = _definitions(foreign.numbers, foreign.evens, foreign.odds, foreign.together)
optional = _definitions(
    foreign.sizes, foreign.after_large, foreign.after_small, foreign.after_counted
)
regions = _definitions(foreign.regional, foreign.regional_again, foreign.everywhere)
days = _definitions(foreign.daily)
checked = _definitions(foreign.numbers, foreign.evens, checks=[foreign.enough])
risky = _definitions(breakable, published)
