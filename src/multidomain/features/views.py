"""The tables behind the Feast views of a variant, as Ibis expressions.

Every row of a view says "from this moment on, this is known of this key". Feast's point-in-time join takes rows stamped
*at or before* an impression as known, so the stamps keep an impression from seeing itself:

================  ======================  ====================================  ====================================
view              key                     one row per                           stamped
================  ======================  ====================================  ====================================
``user_profile``  user                    user                                  1970-01-01, known always
``item_profile``  item                    item                                  1970-01-01, known always
``user_history``  user                    user and instant with a positive      that instant + 1 µs
``user_counts``   user                    user and instant with impressions     that instant + 1 µs
``item_counts``   item (domain, crosses)  key and UTC day with impressions      00:00 UTC of the next day
``item_windows``  item (user, crosses …)  key and midnight of a change          that midnight, UTC
================  ======================  ====================================  ====================================

A row holds the state *after* everything that happened up to and including its instant or day. One microsecond is the
resolution of all timestamps, so an impression sees neither itself nor any other of the same user and instant. Daily
snapshots keep the join keys short: an item's events of a day become visible to everybody at the next midnight.

An online store's lists hold no nulls, so those of a view hold ``MISSING`` in their place: no vocabulary knows it, so it
is encoded as what a null would be, unknown.

Which rows are counted: a user's own history and counts take all of the user's earlier rows, whatever their split. The
other aggregates take training rows only under a ``user_time`` split, where one user's test rows lie before another
user's training rows; under ``time`` and ``official`` they take every earlier row, as a service counting along would.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError
from ..io import engine_of
from ..io.parts import rows_of
from ..layout import feature_type
from ..schema import CountKey, Feature, Schema, Variant, counted
from .windows import changes

if TYPE_CHECKING:
    import ibis.expr.types as ir

TIME = "event_timestamp"  # the column of every view that Feast joins on
EPOCH = "1970-01-01"
WEIGHT = 20.0  # a: how many impressions the prior is worth in a rate
MISSING: Mapping[str, Any] = {"string": "", "int": -(2**63), "float": math.nan}  # stands for a null within a list
MANIFEST = "views.json"
ROW_GROUP = 20_480  # rows sorted by key in small row groups: a join of some users reads those of these users only

ViewKind = Literal["profile", "history", "instant", "daily"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One feature of a view. ``type`` is string, int or float; ``list`` marks sequences."""

    name: str
    type: str
    list: bool = False
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """One Feast view: its join keys (columns of ``partitioned``) and its features."""

    name: str
    kind: ViewKind
    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    description: str

    @property
    def file(self) -> str:
        """The name of its Parquet file."""
        return f"{self.name}.parquet"


def views(variant: Variant) -> tuple[View, ...]:
    """The views this variant needs, with only the features it feeds. A log without users has no user view."""
    found = [_profile(variant, owner) for owner in ("user", "item")]
    found.append(_history(variant))
    for key in variant.counts:
        found.append(_counts(variant, key))
        found.append(_windows(variant, key))
    return tuple(view for view in found if view is not None)


def _profile(variant: Variant, owner: Literal["user", "item"]) -> View | None:
    owned = [f for f in variant.base_features if f.owner == owner]
    if not owned:
        return None
    columns = tuple(
        Column(name=f.name, type=f.value_type, list=f.kind == "sequence", description=f.description) for f in owned
    )
    text = f"What does not change about the {owner}; known from the beginning."
    return View(name=f"{owner}_profile", kind="profile", keys=(owner,), columns=columns, description=text)


def _history(variant: Variant) -> View | None:
    columns: list[Column] = []
    for history in variant.histories:
        for field, _ in history.fields:
            text = f"{field} of the last {history.length} items with {variant.label.name}=1, oldest first"
            kind = variant.schema.feature(field).value_type
            columns.append(Column(name=history.feature(field), type=kind, list=True, description=text))
        text = "how many such items the user has had so far"
        columns.append(Column(name=history.feature("state"), type="int", description=text))
    text = "The user's latest positives after each instant that had one, known one microsecond later."
    if not columns:
        return None
    return View(name="user_history", kind="history", keys=("user",), columns=tuple(columns), description=text)


def _counts(variant: Variant, key: CountKey) -> View:
    columns = tuple(Column(name=f.name, type=f.value_type, description=f.description) for f in counted(key))
    rows = "training rows" if training_only(variant, key) else "all rows"
    text, kind = f"Impressions and positive rate ({rows}) after each day, known from the next midnight UTC.", "daily"
    if key == "user":
        text, kind = (
            f"Impressions and positive rate ({rows}) after each instant, known one microsecond later.",
            "instant",
        )
    return View(name=f"{key}_counts", kind=kind, keys=keys_of(key), columns=columns, description=text)  # type: ignore[arg-type]


def _windows(variant: Variant, key: CountKey) -> View | None:
    if not variant.windows:
        return None
    found = [feature for days in variant.windows for feature in counted(key, days)]
    columns = tuple(Column(name=f.name, type=f.value_type, description=f.description) for f in found)
    rows = "training rows" if training_only(variant, key) else "all rows"
    spans = ", ".join(str(days) for days in variant.windows)
    text = f"Impressions and positive rate ({rows}) of the {spans} days before each day, known from its midnight UTC."
    return View(name=f"{key}_windows", kind="daily", keys=keys_of(key), columns=columns, description=text)


def counted_key(view: View) -> CountKey | None:
    """Whose impressions a view counts; None for a profile or a history."""
    stem, _, what = view.name.rpartition("_")
    return stem if what in ("counts", "windows") else None  # type: ignore[return-value]


def keys_of(key: CountKey) -> tuple[str, ...]:
    """``user_domain`` is the cross of ``user`` and ``domain``."""
    return tuple(key.split("_"))


def training_only(variant: Variant, key: CountKey) -> bool:
    """Whether the aggregate of this key leaves validation and test rows out."""
    return variant.split.kind == "user_time" and key != "user"


# --- expressions -------------------------------------------------------------------------------------------------


def expressions(
    variant: Variant, partitioned: ir.Table, users: ir.Table, items: ir.Table, *, prior: float
) -> dict[str, ir.Table]:
    """One table per view: its join keys, its features, and ``event_timestamp`` (UTC, microseconds).

    Args:
        variant: which features, history and counts.
        partitioned: one row per impression, as the ``partition`` stage leaves it.
        users: one row per user, columns under their raw names; ignored where the log has no users.
        items: likewise.
        prior: the positive rate of a key without impressions.
    """
    tables = {"user": users, "item": items}
    found: dict[str, ir.Table] = {}
    for view in views(variant):
        if view.kind == "profile":
            found[view.name] = _profile_table(variant, view, tables[view.keys[0]])
        elif view.kind == "history":
            found[view.name] = _history_table(variant, partitioned, items)
        elif key := counted_key(view):
            made = _windows_table if view.name.endswith("_windows") else _counts_table
            found[view.name] = made(variant, key, partitioned, prior)
    return {
        view.name: found[view.name].select(*view.keys, *(c.name for c in view.columns), TIME) for view in views(variant)
    }


def _profile_table(variant: Variant, view: View, table: ir.Table) -> ir.Table:
    import ibis

    owner = view.keys[0]
    role = _role(variant.schema, owner)
    features = {c.name: _typed(table, variant.schema.feature(c.name)) for c in view.columns}
    stamp = ibis.literal(EPOCH).cast("timestamp('UTC', 6)")
    return table.select(**{owner: table[role].cast("string"), **features, TIME: stamp})


def _history_table(variant: Variant, rows: ir.Table, items: ir.Table) -> ir.Table:
    """What stood after the last positive of each instant. Instants without a positive change nothing: no row."""
    import ibis

    positives = rows.filter(rows.user.notnull(), rows.label == 1).select("user", "item", "timestamp", "impression_id")
    positives = positives.join(_candidate(variant, items), "item", how="left")
    kinds = {name: variant.schema.feature(name).value_type for name in _history_fields(variant)}
    positives = positives.mutate(
        **{f"_{name}": positives[f"_{name}"].fill_null(MISSING[kinds[name]]) for name in kinds}
    )
    order = ["timestamp", "impression_id"]
    columns: dict[str, Any] = {"user": positives.user, TIME: _known_after(positives.timestamp)}
    position = ibis.row_number().over(group_by="user", order_by=order) + 1
    from_the_end = ibis.row_number().over(group_by=["user", "timestamp"], order_by=ibis.desc("impression_id"))
    for history in variant.histories:
        last = ibis.window(group_by="user", order_by=order, preceding=history.length - 1, following=0)
        for field, _ in history.fields:
            columns[history.feature(field)] = positives[f"_{field}"].collect().over(last)
        columns[history.feature("state")] = position
    states = positives.select(**columns, _from_the_end=from_the_end)
    return states.filter(states._from_the_end == 0)


def _candidate(variant: Variant, items: ir.Table) -> ir.Table:
    """The item features that histories are made of, one row per item."""
    role = _role(variant.schema, "item")
    fields = {f"_{name}": _typed(items, variant.schema.feature(name)) for name in _history_fields(variant)}
    return items.select(item=items[role].cast("string"), **fields)


def _history_fields(variant: Variant) -> list[str]:
    return list(dict.fromkeys(field for history in variant.histories for field, _ in history.fields))


def _counted_rows(variant: Variant, key: CountKey, rows: ir.Table) -> ir.Table:
    """The impressions that are counted for this kind of key."""
    rows = rows.filter(functools.reduce(operator.and_, (rows[name].notnull() for name in keys_of(key))))
    return rows.filter(rows.split == "train") if training_only(variant, key) else rows


def _counts_table(variant: Variant, key: CountKey, rows: ir.Table, prior: float) -> ir.Table:
    keys = keys_of(key)
    rows = _counted_rows(variant, key, rows)
    if key == "user":
        state = _running(rows, keys, rows.timestamp)
        known = _known_after(state._at)
    else:
        state = _running(rows, keys, rows.timestamp.truncate("D"))
        known = _next_midnight(state._at)
    count, rate = counted(key)
    return state.select(
        *keys, **{count.name: state._count, rate.name: _rate(state._count, state._positives, prior), TIME: known}
    )


def _windows_table(variant: Variant, key: CountKey, rows: ir.Table, prior: float) -> ir.Table:
    keys = keys_of(key)
    rows = _counted_rows(variant, key, rows)
    daily = _each(rows, keys, rows.timestamp.truncate("D")).rename(day="_at", count="_n", positives="_p")
    state = changes(daily, keys=keys, days=variant.windows)
    columns: dict[str, Any] = {}
    for days in variant.windows:
        count, rate = counted(key, days)
        seen, positives = _whole(state[f"count_{days}"]), _whole(state[f"positives_{days}"])
        columns |= {count.name: seen, rate.name: _rate(seen, positives, prior)}
    return state.select(*keys, **columns, **{TIME: state["at"].cast("timestamp('UTC', 6)")})


def _rate(count: Any, positives: Any, prior: float) -> Any:
    """In double precision, the same to the bit on every engine: Spark would divide decimals."""
    return (positives.cast("float64") + WEIGHT * prior) / (count.cast("float64") + WEIGHT)


def _each(rows: ir.Table, keys: tuple[str, ...], at: Any) -> ir.Table:
    """Impressions ``_n`` and positives ``_p`` of each key at each instant or day ``_at`` that has any."""
    return (
        rows.mutate(_at=at)
        .group_by(*keys, "_at")
        .aggregate(_n=lambda t: t.count(), _p=lambda t: t.label.cast("int64").sum())
    )


def _running(rows: ir.Table, keys: tuple[str, ...], at: Any) -> ir.Table:
    """Impressions and positives of each key up to and including each instant or day ``_at`` that has any."""
    import ibis

    each = _each(rows, keys, at)
    window = ibis.cumulative_window(group_by=list(keys), order_by="_at")
    return each.select(
        *keys,
        "_at",
        _count=_whole(each._n.sum().over(window)),
        _positives=_whole(each._p.sum().over(window)),
    )


def _whole(total: Any) -> Any:
    """DuckDB sums integers to 128 bits, which Parquet stores as floats; a plain cast is left out as needless."""
    return total.cast("decimal(38, 0)").cast("int64")


def _known_after(instant: Any) -> Any:
    import ibis

    return (instant + ibis.interval(microseconds=1)).cast("timestamp('UTC', 6)")


def _next_midnight(day: Any) -> Any:
    import ibis

    return (day.cast("timestamp(6)") + ibis.interval(days=1)).cast("timestamp('UTC', 6)")


def _typed(table: ir.Table, feature: Feature) -> Any:
    """A column under its feature's type, no list with a null in it; ids arrive as text whatever their type is."""
    wanted = feature_type(feature)
    column = table[feature.column]
    column = column if str(column.type()) == wanted else column.cast(wanted)
    if feature.kind != "sequence":
        return column
    return column.map(lambda value: value.fill_null(MISSING[feature.value_type]))


def _role(schema: Schema, owner: str) -> str:
    column = {"user": schema.roles.user, "item": schema.roles.item}[owner]
    assert column is not None  # the schema refuses features of an owner it has no role for
    return column


# --- files -------------------------------------------------------------------------------------------------------


def training_rate(partitioned: ir.Table) -> float:
    """The share of positives among training rows: the prior of every rate.

    Raises:
        DataError: there are no training rows.
    """
    training = partitioned.filter(partitioned.split == "train")
    found = engine_of(partitioned).to_pyarrow(
        training.aggregate(rows=training.count(), positives=training.label.cast("int64").sum())
    )
    rows, positives = (found[name][0].as_py() or 0 for name in ("rows", "positives"))
    if rows == 0:
        raise DataError(
            "The table 'partitioned' has no row in the training split, so there is nothing to count. "
            "Check the split's shares and the label's row filter."
        )
    return float(positives / rows)


def write(
    variant: Variant,
    partitioned: ir.Table,
    users: ir.Table,
    items: ir.Table,
    folder: Path,
    *,
    prior: float | None = None,
) -> dict[str, Any]:
    """Write ``<view>.parquet`` for each view, sorted by key and time, and ``views.json``; return the latter.

    What is written is a file, or of Spark a folder of parts in this order.

    ``prior`` is the training positive rate where not given.
    """
    manifest: dict[str, Any] = {"variant": variant.key, "weight": WEIGHT, "views": {}}
    if variant.counts:
        manifest["prior"] = training_rate(partitioned) if prior is None else prior
    tables = expressions(variant, partitioned, users, items, prior=manifest.get("prior", 0.0))
    folder.mkdir(parents=True, exist_ok=True)
    for view in views(variant):
        path = folder / view.file
        table = tables[view.name].order_by(*view.keys, TIME)
        engine_of(table).to_parquet(table, str(path), compression="zstd", row_group_size=ROW_GROUP)
        manifest["views"][view.name] = {
            "keys": list(view.keys),
            "features": [column.name for column in view.columns],
            "rows": rows_of(path),
        }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """What :func:`write` left in ``folder``; empty where nothing was written yet."""
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
