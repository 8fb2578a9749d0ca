"""What a click changes at once: the user's history and counts, for the next request.

The rows pushed are those that the feature stage would write for the same events (see
:mod:`multidomain.features.views`), stamped one microsecond after them. Daily counts change at the next materialization.

An event that is older than the user's latest one does not change what is online: the store keeps the newer row. The
history lacks the late event until the next materialization, which reads it at its place from the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..features.definitions import PUSHED, push_source
from ..features.views import MISSING, TIME, WEIGHT, View, views
from ..schema import Variant

if TYPE_CHECKING:
    from feast import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Event:
    """An impression and what came of it.

    Attributes:
        user: as in the log.
        item: as in the log.
        label: 1 for a click, 0 for none.
        at: when; a time without a zone is UTC.
        fields: of the item, what histories hold and no online view has, such as the field the domain is made of.
    """

    user: str
    item: str
    label: int
    at: datetime
    fields: Mapping[str, Any] = field(default_factory=dict)


def record(variant: Variant, store: FeatureStore, event: Event) -> tuple[str, ...]:
    """Push what an event changes; the names of the views that were written.

    Raises:
        DataError: the label is neither 0 nor 1, or a field of the history is neither online nor given.
    """
    import pandas as pd

    if event.label not in (0, 1):
        raise DataError(f"An event of user '{event.user}' has the label {event.label!r}; it is 0 or 1.")
    at = event.at if event.at.tzinfo else event.at.replace(tzinfo=UTC)
    written: list[str] = []
    for view in views(variant):
        if view.kind not in PUSHED or (view.kind == "history" and not event.label):
            continue
        there = _online(store, view, {"user": event.user})
        row = _history(variant, store, event, there) if view.kind == "history" else _counts(store, view, event, there)
        stamped = {"user": event.user, **row, TIME: at + timedelta(microseconds=1)}
        store.push(push_source(view), pd.DataFrame({name: [value] for name, value in stamped.items()}))
        written.append(view.name)
    return tuple(written)


def _history(variant: Variant, store: FeatureStore, event: Event, there: Mapping[str, Any]) -> dict[str, Any]:
    """Every history with the event's item at its end."""
    item = _item(variant, store, event)
    row: dict[str, Any] = {}
    for history in variant.histories:
        for name, _ in history.fields:
            before = there[history.feature(name)] or []
            row[history.feature(name)] = [*before, item[name]][-history.length :]
        row[history.feature("state")] = (there[history.feature("state")] or 0) + 1
    return row


def _item(variant: Variant, store: FeatureStore, event: Event) -> dict[str, Any]:
    """The fields of the item that histories hold."""
    names = dict.fromkeys(name for history in variant.histories for name, _ in history.fields)
    known: dict[str, Any] = {}
    for view in views(variant):
        if view.name == "item_profile":
            known = _online(store, view, {"item": event.item})
    known |= event.fields
    if unknown := [name for name in names if name not in known]:
        raise DataError(
            f"The history of '{event.user}' needs {', '.join(unknown)} of item '{event.item}', which no online view "
            "has: give them with the event, Event(fields={...})."
        )
    missing = {name: MISSING[variant.schema.feature(name).value_type] for name in names}
    return {name: missing[name] if known[name] is None else known[name] for name in names}


def _counts(store: FeatureStore, view: View, event: Event, there: Mapping[str, Any]) -> dict[str, Any]:
    """One impression more. How many positives there were follows from their smoothed rate."""
    prior = float(store.get_feature_view(view.name).tags["prior"])
    key = view.name.removesuffix("_counts")
    count, rate = there[f"{key}_count"] or 0, there[f"{key}_rate"]
    positives = 0 if rate is None else round(rate * (count + WEIGHT) - WEIGHT * prior)
    count, positives = count + 1, positives + event.label
    return {f"{key}_count": count, f"{key}_rate": (positives + WEIGHT * prior) / (count + WEIGHT)}


def _online(store: FeatureStore, view: View, key: Mapping[str, str]) -> dict[str, Any]:
    """What the view knows of one key; None for what it does not."""
    names = [f"{view.name}:{column.name}" for column in view.columns]
    found = store.get_online_features(features=names, entity_rows=[dict(key)]).to_dict()
    return {column.name: found[column.name][0] for column in view.columns}
