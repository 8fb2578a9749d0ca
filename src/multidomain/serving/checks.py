"""The checks of a feature store by name, and how one that has failed says so.

=========  ==========================================================================================  ================
name       what it finds                                                                               pipeline
=========  ==========================================================================================  ================
``views``  a view, or a feature of one, that is not registered with Feast or not in its service        both
``leak``   a feature of a training row that counts what had not happened before the impression         check_parity
``skew``   a value that is not the same online as offline                                              both
``stale``  a view whose newest value online is too old, keys that are absent there or behind           check_freshness
=========  ==========================================================================================  ================

Each message begins with the name and ends with what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..features import definitions, repository
from ..features.request_time import view_name
from ..features.views import views
from ..schema import Variant

if TYPE_CHECKING:
    from feast import FeatureStore

CHECKS = ("views", "leak", "skew", "stale")
REGISTER = "kedro run --nodes=apply_feature_repository"
LOAD = "kedro run --pipeline=materialize"
LOAD_ALL = f"{LOAD} --params=materialize.full=true"
BUILD = "kedro run --pipeline=features"


def failed(check: str, variant: Variant, what: str, lines: Sequence[str], advice: str) -> DataError:
    """The error of a check: its name, what is wrong, a line for each case, what to do."""
    assert check in CHECKS
    return DataError("\n".join([f"{check}: {variant.key}: {what}", *(f"  {line}" for line in lines), advice]))


def require_views(variant: Variant) -> list[str]:
    """The names of the variant's views, on-demand ones too, each of which is registered, whole, and in the service.

    Raises:
        DataError: ``views``, naming what is missing.
    """
    wanted = {view.name: [column.name for column in view.columns] for view in views(variant)}
    wanted |= {view_name(feature.name): [feature.name] for feature in variant.request_features}
    if not wanted:
        return []
    store = repository.store(variant)
    known: list[Any] = [*store.list_feature_views(), *store.list_on_demand_feature_views()]
    registered = {view.name: {field.name for field in view.features} for view in known}
    served = _served(store, variant)
    name = definitions.service_name(variant)
    lines = [] if served is not None else [f"there is no feature service '{name}'"]
    for view, features in wanted.items():
        lines += _missing(view, features, registered, "registered")
        if served is not None:
            lines += _missing(view, features, served, f"in feature service '{name}'")
    if lines:
        raise failed(
            "views",
            variant,
            f"Feast project '{variant.project}' in {store.config.registry.path} is not what the schema asks for:",
            lines,
            f"Register the variant again, then load what its views had online: {REGISTER}, {LOAD}.",
        )
    return list(wanted)


def _served(store: FeatureStore, variant: Variant) -> dict[str, set[str]] | None:
    """Views and features of the service; None where there is none."""
    from feast.errors import FeatureServiceNotFoundException

    try:
        service = store.get_feature_service(definitions.service_name(variant))
    except FeatureServiceNotFoundException:
        return None
    return {p.name: {field.name for field in p.features} for p in service.feature_view_projections}


def _missing(view: str, features: list[str], there: Mapping[str, set[str]], where: str) -> list[str]:
    if view not in there:
        return [f"view '{view}' is not {where}"]
    lost = [name for name in features if name not in there[view]]
    return [f"view '{view}' is {where} without {', '.join(lost)}"] if lost else []
