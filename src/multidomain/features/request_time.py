"""Features of the moment of a request, as Feast's on-demand views: computed when they are asked for, never stored.

The same function makes them for training rows, by way of the point-in-time join, and for requests. Feast keeps its
source text in the registry and runs that, so a function here stands alone: it uses nothing from outside itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..schema import Variant
from .times import microseconds

if TYPE_CHECKING:
    from feast import FeatureStore, OnDemandFeatureView

SOURCE = "request"  # what a request tells of itself
TIME = "request_time"  # microseconds since 1970, UTC


def hour(inputs: dict[str, list[int]]) -> dict[str, list[int]]:
    """0 to 23."""
    return {"hour": [time // 3_600_000_000 % 24 for time in inputs["request_time"]]}


def weekday(inputs: dict[str, list[int]]) -> dict[str, list[int]]:
    """0 is Monday; 1970 began on a Thursday."""
    return {"weekday": [(time // 86_400_000_000 + 3) % 7 for time in inputs["request_time"]]}


MADE: Mapping[str, Any] = {"hour": hour, "weekday": weekday}


def view_name(feature: str) -> str:
    """One on-demand view per feature: ``request_hour``."""
    return f"{SOURCE}_{feature}"


def on_demand_views(variant: Variant, *, tags: Mapping[str, str], owner: str) -> list[OnDemandFeatureView]:
    """One for each of the variant's request features; Feast is loaded only where there is one."""
    if not variant.request_features:
        return []
    from feast import Field, OnDemandFeatureView, RequestSource
    from feast.types import Int64

    schema = [Field(name=TIME, dtype=Int64, description="microseconds since 1970, UTC")]
    request = RequestSource(name=SOURCE, schema=schema, description="What a request tells of itself.", owner=owner)
    return [
        OnDemandFeatureView(
            name=view_name(feature.name),
            sources=[request],
            schema=[Field(name=feature.name, dtype=Int64)],  # Feast compares it with what the function returns
            udf=MADE[feature.name],
            udf_string=inspect.getsource(MADE[feature.name]),
            mode="python",
            description=f"Made of the request's time when it is asked for: {feature.description}.",
            tags={**tags, "kind": "on demand", "event_time": "the request's own"},
            owner=owner,
        )
        for feature in variant.request_features
    ]


class RequestTime:
    """What a request's time makes of these features, by the functions that are registered.

    Raises:
        DataError: a feature's view is not registered.
    """

    def __init__(self, *, store: FeatureStore, features: Iterable[str]) -> None:
        self._views = {name: _registered(store, name) for name in features}

    def at(self, moment: datetime | None) -> dict[str, Any]:
        """The value of each feature at a moment: now, where none is given; one without a zone is UTC."""
        time = microseconds(moment or datetime.now(UTC))
        return {name: view.transform_dict({TIME: [time]})[name][0] for name, view in self._views.items()}


def _registered(store: FeatureStore, feature: str) -> OnDemandFeatureView:
    from feast.errors import OnDemandFeatureViewNotFoundException

    try:
        return store.get_on_demand_feature_view(view_name(feature))
    except OnDemandFeatureViewNotFoundException as error:
        raise DataError(
            f"Feast project '{store.project}' has no on-demand view '{view_name(feature)}'. "
            "Register what the schema says now: kedro run --nodes=apply_feature_repository."
        ) from error
