"""What Feast is told of a variant: entities, views and the feature service, named and described from its schema.

Feast is imported inside the functions: it takes seconds to load.
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..schema import Variant
from .request_time import on_demand_views
from .views import TIME, WEIGHT, Column, View, counted_key, read_manifest, training_only, views

if TYPE_CHECKING:
    from feast import Entity, FeatureView

OWNER = "multidomain"
PUSHED = ("history", "instant")  # kinds of views that an impression changes at once


def objects(variant: Variant, folder: Path, *, spark: bool = False) -> list[Any]:
    """Everything Feast is to know of a variant: the project, entities, feature and on-demand views, a feature service.

    ``folder`` holds the views' Parquet files (see :func:`multidomain.features.views.write`); ``spark``: the offline
    store reads them by Spark, and asks for sources of its own kind.

    Raises:
        ConfigurationError: a feature has a name that the join needs for itself.
    """
    from feast import FeatureService, Project

    tags = _tags(variant)
    planned = views(variant)
    entities = _entities(variant, planned)
    made: list[Any] = [_view(variant, view, entities, folder, spark) for view in planned]
    made += on_demand_views(variant, tags=tags, owner=OWNER)
    project = Project(name=variant.project, description=_about(variant), tags=tags, owner=OWNER)
    service = FeatureService(
        name=service_name(variant),
        features=[*made],
        tags=tags,
        owner=OWNER,
        description=f"All features of feature set '{variant.feature_set.name}', as models of {variant.key} see them.",
    )
    return [project, *entities.values(), *made, *([service] if made else [])]


def service_name(variant: Variant) -> str:
    """One service per project, named after its feature set."""
    return variant.feature_set.name


def push_source(view: View) -> str:
    """The name of the push source of a view that an impression changes at once."""
    return f"{view.name}_push"


def _entities(variant: Variant, planned: tuple[View, ...]) -> dict[str, Entity]:
    from feast import Entity, ValueType

    roles = variant.schema.roles
    texts = {
        "user": f"Who saw the impression (column '{roles.user}').",
        "item": f"What was shown (column '{roles.item}').",
        "domain": f"Where: domain '{variant.domain.name}', formed of {', '.join(variant.domain.columns)}.",
    }
    needed = dict.fromkeys(key for view in planned for key in view.keys)
    return {
        key: Entity(
            name=key,
            join_keys=[key],
            value_type=ValueType.STRING,
            description=texts[key],
            tags=_tags(variant),
            owner=OWNER,
        )
        for key in needed
    }


def _view(variant: Variant, view: View, entities: dict[str, Entity], folder: Path, spark: bool) -> FeatureView:
    from feast import FeatureView, Field, PushSource

    tags = {**_tags(variant), "kind": view.kind, "event_time": _EVENT_TIME[view.kind]}
    if key := counted_key(view):
        prior = read_manifest(folder).get("prior")
        tags |= {"prior": "" if prior is None else repr(float(prior)), "prior_weight": f"{WEIGHT:g}"}
        tags["rows"] = "train" if training_only(variant, key) else "all"
        tags["window"] = _window(variant, view)
    for column in view.columns:
        if column.name in (TIME, *view.keys):
            raise ConfigurationError(
                f"feature '{column.name}' of data set '{variant.schema.name}' has a name the feature join needs; "
                f"call it something else and name its column: my_{column.name}: {{column: {column.name}}}."
            )
    source: Any = _source(view, str((folder / view.file).resolve()), tags, spark)
    if view.kind in PUSHED:
        text = f"What changes {view.name} as it happens: see multidomain.serving.events."
        source = PushSource(name=push_source(view), batch_source=source, description=text, tags=tags, owner=OWNER)
    return FeatureView(
        name=view.name,
        entities=[entities[key] for key in view.keys],
        ttl=timedelta(0),  # all time: what is known of a key stays known
        schema=[
            *(Field(name=key, dtype=_type(Column(name=key, type="string"))) for key in view.keys),
            *(Field(name=c.name, dtype=_type(c), description=c.description) for c in view.columns),
        ],
        source=source,
        description=view.description,
        tags=tags,
        owner=OWNER,
    )


def _source(view: View, path: str, tags: dict[str, str], spark: bool) -> Any:
    """The view's Parquet as the offline store wants it described."""
    from feast import FileSource
    from feast.data_format import ParquetFormat

    about: dict[str, Any] = {"timestamp_field": TIME, "description": view.description, "tags": tags, "owner": OWNER}
    name = f"{view.name}_source"
    if not spark:
        return FileSource(name=name, path=path, file_format=ParquetFormat(), **about)
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # every Spark source says it is experimental
        return SparkSource(name=name, path=path, file_format="parquet", **about)


def _window(variant: Variant, view: View) -> str:
    """Over which time a view counts."""
    if view.name.endswith("_windows"):
        return f"the {', '.join(map(str, variant.windows))} UTC days before the impression's"
    return "all days before the impression's (UTC)" if view.kind == "daily" else "all time before the impression"


_EVENT_TIME = {
    "profile": "constant",
    "history": "instant + 1 microsecond",
    "instant": "instant + 1 microsecond",
    "daily": "next midnight UTC",
}


def _type(column: Column) -> Any:
    from feast import types

    single = {"string": types.String, "int": types.Int64, "float": types.Float64}[column.type]
    return types.Array(single) if column.list else single


def _tags(variant: Variant) -> dict[str, str]:
    return {"dataset": variant.schema.name, "variant": variant.name}


def _about(variant: Variant) -> str:
    text = variant.schema.description or variant.schema.name
    return f"{text} Domain {variant.domain.name}, split {variant.split.name}, label {variant.label.name}."
