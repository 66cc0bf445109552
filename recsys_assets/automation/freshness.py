"""How fresh each asset is to be.

What belongs here: the freshness policy of every group of assets. What does not: making assets fresh
(``conditions.py``, ``schedules.py``) and how old they may become (``config.py``).
"""

from collections.abc import Iterable
from datetime import timedelta

from dagster import (
    AssetsDefinition,
    AssetSpec,
    FreshnessPolicy,
    map_asset_specs,
)

from recsys_assets.automation.config import FreshnessConfig

_OF_DATA = ("ratings", "features")
_OF_MODELS = ("models", "predictions", "serving")


def with_freshness(
    assets: Iterable[AssetsDefinition], config: FreshnessConfig
) -> list[AssetsDefinition]:
    """Return assets with the freshness policy of their group.

    Raises
    ------
    ValueError
        If an asset is in a group that there is no policy for.
    """
    data = _policy(config.data_warn_hours, config.data_fail_hours)
    model = _policy(config.model_warn_hours, config.model_fail_hours)
    of_group = {**dict.fromkeys(_OF_DATA, data), **dict.fromkeys(_OF_MODELS, model)}

    def with_policy(spec: AssetSpec) -> AssetSpec:
        policy = of_group.get(spec.group_name or "")
        if policy is None:
            raise ValueError(
                f"expected {spec.key.to_user_string()} to be in one of the groups "
                f"{', '.join(of_group)}, got {spec.group_name}"
            )
        return spec.replace_attributes(freshness_policy=policy)

    return [*map_asset_specs(with_policy, assets)]


def _policy(warn_hours: float, fail_hours: float) -> FreshnessPolicy:
    return FreshnessPolicy.time_window(
        warn_window=timedelta(hours=warn_hours), fail_window=timedelta(hours=fail_hours)
    )
