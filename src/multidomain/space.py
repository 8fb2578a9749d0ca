"""Room on the disk, looked for before a stage begins and not when it has worked for an hour.

What a stage writes is estimated from the size of what it reads. The factors were measured on MovieLens-1M and rounded
up; a stage that knows its size exactly (``encode``, checkpoints) looks for it itself, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

from .errors import DataError
from .io.datasets import place_of

# stage -> bytes written for each byte of these inputs, what it needs on the way included
FACTORS: Mapping[str, Mapping[str, float]] = {
    "read_log": {"raw_files": 1.0},
    "validate": {"ingested_impressions": 1.1, "ingested_users": 1.1, "ingested_items": 1.1},
    "assign_domains_and_splits": {"valid_impressions": 1.5},
    "build_feature_views": {"partitioned": 3.0},
    "join_training_frame": {"partitioned": 8.0},
    "encode": {"training_frame": 4.0},
    "package": {"model": 3.0, "encoder": 1.0},
}
LEAST = 64 << 20  # bytes, for what is written beside: reports, digests, MLflow's tables


class SpaceHooks:
    """Before each stage: is there room for what it will write?"""

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> None:
        """Refuse a stage that would fill the disk."""
        factors = FACTORS.get(node.short_name)
        if factors is None:
            return
        needed = estimate(factors, {name.rpartition(".")[2]: _paths(name, catalog, inputs) for name in node.inputs})
        for folder in {place.parent for name in node.outputs for place in _paths(name, catalog, {})}:
            require(folder, needed, node.short_name.replace("_", " "))


def estimate(factors: Mapping[str, float], places: Mapping[str, Iterable[Path]]) -> int:
    """Bytes a stage may write, from the files and folders that its inputs are kept in."""
    sizes = (factor * sum(size(place) for place in places.get(name, ())) for name, factor in factors.items())
    return LEAST + int(sum(sizes))


def require(folder: Path, needed: int, stage: str) -> None:
    """Raise where the disk of a folder, which may not be there yet, has fewer bytes left than a stage needs.

    Raises:
        DataError: names the stage, the bytes needed and free, and what to do.
    """
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"The stage '{stage}' was not begun: it needs about {needed:,} bytes in {folder}, {free:,} are free there. "
            "Free some space (kedro run --pipeline=delete takes a variant's files away), or point $MULTIDOMAIN_DATA at "
            "a larger disk."
        )


def size(place: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 for what is not there. A link counts as itself."""
    if place.is_dir() and not place.is_symlink():
        return sum(size(part) for part in place.iterdir())
    return place.lstat().st_size if place.exists() or place.is_symlink() else 0


def _paths(name: str, catalog: DataCatalog, inputs: Mapping[str, Any]) -> list[Path]:
    """Where a dataset is kept: its own file or folder, or the files that a node handed on by their paths."""
    place = place_of(catalog, name)
    if place is not None:
        return [place]
    value = inputs.get(name)
    return [path for path in value.values() if isinstance(path, Path)] if isinstance(value, dict) else []
