"""Delete the files of one variant, after showing what goes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from ...io.atomic import remove
from ...io.output_store import OutputStore
from ...schema import Variant
from ...space import size

logger = logging.getLogger(__name__)
LAYERS = ("03_primary", "04_feature", "05_model_input", "06_models", "07_model_output", "08_reporting")
MODELS = ("keep", "delete")


def delete(variant: Variant, confirm: Any, registered_models: str, output_store: str | None = None) -> None:
    """Delete everything that was prepared, trained and reported for a variant, here and in the output store.

    What every variant of the data set shares (raw files, ingested and validated tables) and other variants stay. The
    registered models are named, and stay too unless ``registered_models`` is ``delete``: a package scores without any
    of these files.

    Args:
        variant: whose files go.
        confirm: ``yes`` (or true) deletes; anything else lists alone.
        registered_models: ``keep`` or ``delete``.
        output_store: its address, if there is one.

    Raises:
        ConfigurationError: not confirmed, after the list; or an option that is not allowed.
    """
    from ... import tracking
    from ...packaging import registry

    if registered_models not in MODELS:
        raise ConfigurationError(f"registered_models must be one of {', '.join(MODELS)}, got {registered_models!r}.")
    data = tracking.data_folder()
    found = {folder: size(folder) for folder in folders(data, variant)}
    store = OutputStore(address=output_store, data=data) if output_store else None
    copies = {place: count for place in places(data, variant) if store and (count := store.count(place))}
    models = registry.of_variant(variant.key)
    _show(variant, found, models, registered_models)
    for place, count in copies.items():
        logger.info("%s/%s: %s objects", output_store, place.relative_to(data).as_posix(), f"{count:,}")
    if not found and not copies and not (models and registered_models == "delete"):
        return
    total = sum(found.values())
    if confirm is not True and str(confirm).lower() != "yes":
        raise ConfigurationError(
            f"Nothing was deleted. {len(found)} folders of {variant.key} with {total:,} bytes would be, see above"
            f"{f', and {sum(copies.values()):,} objects in the output store' if copies else ''}. "
            "Repeat with confirm=yes among --params to delete them."
        )
    _forget_features(variant, data)
    for folder in found:
        remove(folder)
        _remove_empty(folder.parent)
    for place in copies:
        assert store is not None
        store.forget(place)
    if registered_models == "delete":
        for name in models:
            registry.delete(name)
            logger.info("deleted the registered model %s", name)
    logger.info("deleted %s bytes of %s", f"{total:,}", variant.key)


def folders(data: Path, variant: Variant) -> list[Path]:
    """The folders of a variant, one in each layer that has one; they hold its files and no other's."""
    return [place for place in places(data, variant) if place.exists() or place.is_symlink()]


def places(data: Path, variant: Variant) -> list[Path]:
    """Where folders of a variant may be."""
    return [data / layer / variant.schema.name / variant.name for layer in LAYERS]


def _show(variant: Variant, found: dict[Path, int], models: dict[str, int], registered_models: str) -> None:
    if not found:
        logger.info("%s: there are no files", variant.key)
    for folder, held in found.items():
        files = 1 if not folder.is_dir() else sum(1 for path in folder.rglob("*") if path.is_file())
        logger.info("%s: %s files, %s bytes", folder, f"{files:,}", f"{held:,}")
    for name, versions in models.items():
        stays = "stays (registered_models=delete takes it away, too)" if registered_models == "keep" else "goes, too"
        logger.info("registered model %s, %d versions: %s", name, versions, stays)


def _forget_features(variant: Variant, data: Path) -> None:
    """The variant's project in Feast's registry, and its values in the online store; both hold other variants', too."""
    if (data / "04_feature" / variant.schema.name / variant.name / "feature_store.yaml").is_file():
        from ...features import repository

        repository.forget(variant)


def _remove_empty(folder: Path) -> None:
    """A data set's folder in a layer, once its last variant is gone."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
