"""Feature views, their registration with Feast, and the point-in-time join that makes the training frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...features import repository, views
from ...features.frame import TrainingFrame
from ...schema import Variant

if TYPE_CHECKING:
    import ibis.expr.types as ir


def build_feature_views(
    variant: Variant, partitioned: ir.Table, users: ir.Table, items: ir.Table
) -> Callable[[Path], dict[str, Any]]:
    """A writer of the folder of view tables, one Parquet file each; see :mod:`multidomain.features.views`."""

    def write(folder: Path) -> dict[str, Any]:
        return views.write(variant, partitioned, users, items, folder)

    return write


def apply_feature_repository(variant: Variant, feature_views: Path) -> dict[str, Any]:
    """Register the views with Feast; what was registered, for people and for the join."""
    return repository.apply(variant, feature_views)


def join_training_frame(
    variant: Variant, partitioned: ir.Table, impressions: ir.Table, feature_repository: dict[str, Any]
) -> Callable[[Path], dict[str, Any]]:
    """A writer of the training frame. ``feature_repository`` is asked for so that registration comes first."""
    del feature_repository
    return TrainingFrame(variant, partitioned, impressions)
