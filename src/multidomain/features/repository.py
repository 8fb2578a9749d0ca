"""The Feast store of a variant: where its files are, what is registered there, and how it is opened.

All data sets and variants share one registry, each as a Feast project of its own. Feast is imported inside the
functions: it takes seconds to load.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .. import schema as schemas
from ..errors import ConfigurationError, DataError, unknown_key
from ..resolvers import data
from ..schema import Schema, Variant
from .definitions import objects, service_name
from .views import read_manifest, views

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

LAYER = "04_feature"
DUMMY = "__dummy_id"  # the key of Feast's own entity of views without one


# --- where things are --------------------------------------------------------------------------------------------


def data_root() -> Path:
    """``$MULTIDOMAIN_DATA``, or ``data/`` of the project."""
    return Path(data("data")).resolve()


def views_folder(variant: Variant) -> Path:
    """Where the ``features`` pipeline leaves the Parquet files of a variant's views."""
    return data_root() / LAYER / variant.key / "views"


def configuration(variant: Variant) -> Path:
    """The ``feature_store.yaml`` of a variant with all paths absolute, for Feast's own command line."""
    return data_root() / LAYER / variant.key / "feature_store.yaml"


def chosen() -> Variant:
    """The variant that ``$MULTIDOMAIN_DATASET`` and ``$MULTIDOMAIN_VARIANT`` name: movielens, its default variant.

    Raises:
        ConfigurationError: the variant is not ``<domain>-<split>-<features>-<label>``, or there is no such choice.
    """
    schema = schemas.load(os.environ.get("MULTIDOMAIN_DATASET") or "movielens")
    name = os.environ.get("MULTIDOMAIN_VARIANT")
    return variant_named(schema, name) if name else schema.variant()


def variant_named(schema: Schema, name: str) -> Variant:
    """``age-user_time-full-click`` -> the variant."""
    parts = name.split("-")
    if len(parts) != 4:
        raise ConfigurationError(
            f"variant '{name}' of data set '{schema.name}': expected <domain>-<split>-<features>-<label>, "
            f"such as {schema.variant().name}."
        )
    return schema.variant(domain=parts[0], split=parts[1], features=parts[2], label=parts[3])


# --- the store ---------------------------------------------------------------------------------------------------


def store(variant: Variant) -> FeatureStore:
    """Feast's store for a variant: ``feature_repo/feature_store.yaml`` with its project and absolute paths.

    The registry and the online store lie in ``04_feature/`` of :func:`data_root`, under the names the file gives them.
    """
    from feast import FeatureStore, RepoConfig

    repo = schemas.project_root() / "feature_repo"
    settings = _settings(variant)
    with _locked(Path(settings["registry"]["path"])):
        opened = FeatureStore(config=RepoConfig(**settings, repo_path=repo))
        opened.registry  # noqa: B018  reads the file while nobody writes it
    return opened


@contextlib.contextmanager
def scratch(variant: Variant, folder: Path) -> Iterator[FeatureStore]:
    """A store with what is registered of the variant and nothing online; its project goes at the end.

    Raises:
        DataError: the variant was never registered.
    """
    from feast import FeatureStore, RepoConfig

    registered, asked = service(variant)
    settings = _settings(variant) | {"project": f"{variant.project}__{uuid.uuid4().hex}"}
    settings["registry"]["path"] = str(folder / "registry.db")
    if "path" in settings["online_store"]:
        settings["online_store"]["path"] = str(folder / "online_store.db")
    opened = FeatureStore(config=RepoConfig(**settings, repo_path=schemas.project_root() / "feature_repo"))
    planned = registered.list_feature_views()
    for view in planned:
        view.materialization_intervals = []
    entities = [entity for entity in registered.list_entities() if entity.join_key != DUMMY]
    everything: list[Any] = [*entities, *planned, *registered.list_on_demand_feature_views(), asked]
    opened.apply(everything)
    try:
        yield opened
    finally:
        opened.teardown()  # type: ignore[no-untyped-call]


def service(variant: Variant) -> tuple[FeatureStore, Any]:
    """The store and the feature service registered in it.

    Raises:
        DataError: the variant was never registered, or its registration is gone.
    """
    from feast.errors import FeatureServiceNotFoundException

    opened = store(variant)
    try:
        return opened, opened.get_feature_service(service_name(variant))
    except FeatureServiceNotFoundException as error:
        raise DataError(
            f"Feast project '{variant.project}' has no service '{service_name(variant)}' in "
            f"{opened.config.registry.path}. Run its node again: kedro run --nodes=apply_feature_repository."
        ) from error


def apply(variant: Variant, folder: Path) -> dict[str, Any]:
    """Register the variant's objects, and remove what it no longer has; nothing is written where nothing changed.

    Returns:
        project, service, registry, online_store, configuration, and the views with keys, features and rows.
    """
    from feast.diff.property_diff import TransitionType

    settings = _settings(variant)
    wanted = objects(variant, folder, spark=on_spark())
    opened = store(variant)
    with _locked(Path(settings["registry"]["path"])):
        opened.refresh_registry()  # type: ignore[no-untyped-call]
        diffs = opened.plan(_contents(wanted))[0].feast_object_diffs
        gone: list[Any] = [d.current_feast_object for d in diffs if d.transition_type == TransitionType.DELETE]
        if any(d.transition_type != TransitionType.UNCHANGED for d in diffs):
            opened.apply(wanted, objects_to_delete=gone, partial=False)
    _write_configuration(variant, _settings(variant, expanded=False))
    manifest = read_manifest(folder)
    return {
        "project": variant.project,
        "service": service_name(variant) if views(variant) or variant.request_features else None,
        "registry": settings["registry"]["path"],
        "online_store": _online_place(settings),
        "configuration": str(configuration(variant)),
        "prior": manifest.get("prior"),
        "views": {
            view.name: {
                "keys": list(view.keys),
                "features": [column.name for column in view.columns],
                "rows": manifest.get("views", {}).get(view.name, {}).get("rows"),
            }
            for view in views(variant)
        },
    }


def forget(variant: Variant) -> None:
    """Take the variant's project out of the registry, and what it has online out of the online store."""
    opened = store(variant)
    with _locked(Path(_settings(variant)["registry"]["path"])):
        opened.refresh_registry()  # type: ignore[no-untyped-call]
        if variant.project not in {project.name for project in opened.list_projects()}:
            return
        entities = [entity for entity in opened.list_entities() if entity.join_key != DUMMY]
        planned = [*opened.list_on_demand_feature_views(), *opened.list_feature_views()]
        gone: list[Any] = [*opened.list_feature_services(), *planned, *entities, *opened.list_data_sources()]
        opened.apply([], objects_to_delete=gone, partial=False)
        opened.registry.delete_project(variant.project, commit=True)


def _contents(wanted: list[Any]) -> Any:
    from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView, Project
    from feast.feature_view import DUMMY_ENTITY
    from feast.repo_contents import RepoContents

    def of(kind: type) -> list[Any]:
        return [thing for thing in wanted if isinstance(thing, kind)]

    return RepoContents(
        projects=of(Project),
        entities=[*of(Entity), DUMMY_ENTITY],
        feature_views=of(FeatureView),
        feature_services=of(FeatureService),
        data_sources=[
            *(source for view in of(FeatureView) for source in _sources(view)),
            *{s.name: s for view in of(OnDemandFeatureView) for s in view.source_request_sources.values()}.values(),
        ],
        on_demand_feature_views=of(OnDemandFeatureView),
        stream_feature_views=[],
        label_views=[],
        permissions=[],
    )


def _sources(view: FeatureView) -> list[Any]:
    return [source for source in (view.batch_source, view.stream_source) if source is not None]


def feature_store_file() -> Path:
    """Which stores Feast uses: the project's ``feature_repo/feature_store.yaml``, or ``$MULTIDOMAIN_FEATURE_STORE``."""
    return schemas.project_root() / (os.environ.get("MULTIDOMAIN_FEATURE_STORE") or "feature_repo/feature_store.yaml")


def on_spark() -> bool:
    """Whether the offline store is one of Spark's."""
    text = yaml.safe_load(feature_store_file().read_text(encoding="utf-8"))
    kind = str((text.get("offline_store") or {}).get("type", ""))
    return "spark" in kind.lower()


def online_place(variant: Variant) -> str:
    """Where the variant's online store is, without its password."""
    return _online_place(_settings(variant))


def _settings(variant: Variant, *, expanded: bool = True) -> dict[str, Any]:
    """:func:`feature_store_file` for a variant: its project, files below the data root, the environment's variables."""
    path = feature_store_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing: it says which offline and online store Feast uses.") from error
    settings: dict[str, Any] = yaml.safe_load(_expanded(text, path) if expanded else text)
    for name in ("registry", "online_store"):
        if name not in settings:
            raise ConfigurationError(f"{path}: the key '{name}' is missing.")
    if "path" not in settings["registry"]:
        raise ConfigurationError(f"{path}: registry: {unknown_key('path', settings['registry'])}")
    if not {"path", "connection_string"} & set(settings["online_store"]):
        raise ConfigurationError(f"{path}: online_store: {unknown_key('path', settings['online_store'])}")
    for name in ("registry", "online_store"):
        if "path" in settings[name]:
            settings[name]["path"] = str(data_root() / LAYER / Path(settings[name]["path"]).name)
    return {**settings, "project": variant.project}


def _expanded(text: str, path: Path) -> str:
    """With ``$NAME`` and ``${NAME}`` of the environment in their places, comments left as they are."""
    lines = [line.split(" #")[0] if not line.lstrip().startswith("#") else "" for line in text.splitlines()]
    found = os.path.expandvars("\n".join(lines))
    if unset := re.search(r"\$\{?\w+", found):
        raise ConfigurationError(f"{path} needs the environment variable {unset[0].strip('${')}, which is not set.")
    return found


def _online_place(settings: dict[str, Any]) -> str:
    """Where the online store is, without its password."""
    online = settings["online_store"]
    return str(online["path"] if "path" in online else online["connection_string"].split(",")[0])


def _write_configuration(variant: Variant, settings: dict[str, Any]) -> None:
    path = configuration(variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(settings, sort_keys=False)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


@contextlib.contextmanager
def _locked(registry: Path) -> Iterator[None]:
    """One process at a time: Feast rewrites the whole registry file in place."""
    registry.parent.mkdir(parents=True, exist_ok=True)
    with open(registry.with_name(f".{registry.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
