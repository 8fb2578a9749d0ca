"""Whether features of training rows know more than had happened before the impression.

For sampled impressions everything that is made of earlier ones is worked out again from ``partitioned``, by a query of
its own: pairs of an impression and what its keys had before it, instead of running totals joined by time. What each
feature counts, and until when (see :func:`made_of`):

=====================================  =============================================================================
feature                                counts
=====================================  =============================================================================
``user_count``, ``user_rate``          the user's rows before the impression's instant
``item_count`` … (any other key)       the key's rows of days before the impression's UTC day
``user_count_7d`` … (of every key)     likewise, of the 7 days before the impression's UTC day
``<history>_state``, ``<history>_…``   the user's positives before the impression's instant, the last of them in lists
=====================================  =============================================================================

Where :func:`multidomain.features.views.training_only` says so, of training rows alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..draw import digest
from ..io import connection
from ..layout import feature_type
from ..schema import CountKey, History, Variant, counted
from .views import MISSING, WEIGHT, keys_of, training_only, views

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What two features, a count and a rate, are made of.

    Attributes:
        key: whose rows.
        count, rate: the features' names.
        days: how many days before the impression's own; None: all there were.
        training_only: whether validation and test rows are left out.
    """

    key: CountKey
    count: str
    rate: str
    days: int | None
    training_only: bool

    @property
    def daily(self) -> bool:
        """Whether whole days are counted, not instants."""
        return self.key != "user" or self.days is not None


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """What was found.

    Attributes:
        rows: how many impressions were looked at.
        features: one row per feature made of earlier impressions: ``view``, ``feature``, of how many impressions it
            knows ``more`` than had happened before, or ``fewer``, and an ``example`` of the former (else the latter).
    """

    rows: int
    features: pd.DataFrame


def made_of(variant: Variant) -> tuple[Counted, ...]:
    """What each count and rate of the variant is made of: of all time, then over each window of days."""
    return tuple(
        Counted(key=key, count=count.name, rate=rate.name, days=days, training_only=training_only(variant, key))
        for key in variant.counts
        for days in (None, *variant.windows)
        for count, rate in [counted(key, days)]
    )


def measure(
    variant: Variant,
    partitioned: ir.Table,
    items: ir.Table,
    frame: ir.Table,
    *,
    prior: float,
    rows: int = 1000,
    seed: int = 2021,
) -> Leaks:
    """Look at ``rows`` impressions.

    Args:
        variant: what the frame was made of.
        partitioned: every impression.
        items: one row per item, columns under their raw names.
        frame: the training frame.
        prior: of the rates.
        rows: drawn among all of the frame's.
        seed: of the draw.
    """
    import pandas as pd

    holds = {column.name: view.name for view in views(variant) if view.kind != "profile" for column in view.columns}
    sample = _drawn(frame, list(holds), rows, seed)
    lines: list[dict[str, Any]] = []
    for made in made_of(variant):
        lines += _compare_counts(made, sample, earlier(made, partitioned, sample), prior)
    for history in variant.histories:
        lines += _compare_history(history, variant, partitioned, items, sample)
    table = pd.DataFrame([{"view": holds[line["feature"]], **line} for line in lines])
    return Leaks(rows=len(sample), features=table)


def earlier(made: Counted, partitioned: ir.Table, sample: pa.Table) -> dict[int, tuple[int, int]]:
    """Of each impression with any: how many rows its key had before it, and how many positives among them."""
    import ibis

    def time(table: ir.Table) -> Any:
        return table.timestamp.truncate("D") if made.daily else table.timestamp

    keys = keys_of(made.key)
    asked = ibis.memtable(sample)
    asked = asked.select("impression_id", *keys, now=time(asked))
    rows = partitioned.filter(partitioned.split == "train") if made.training_only else partitioned
    rows = rows.select(*keys, "label", then=time(rows)).semi_join(asked, list(keys))
    each = rows.group_by(**{f"{key}_": rows[key] for key in keys}, then=rows.then).aggregate(
        rows=rows.count(), positives=rows.label.cast("int64").sum()
    )
    before = [asked[key] == each[f"{key}_"] for key in keys] + [each.then < asked.now]
    if made.days is not None:
        before.append(each.then >= asked.now - ibis.interval(days=made.days))
    pairs = asked.join(each, before)
    totals = pairs.group_by("impression_id").aggregate(rows=pairs.rows.sum(), positives=pairs.positives.sum())
    found = connection().to_pyarrow(totals).to_pylist()
    return {line["impression_id"]: (int(line["rows"]), int(line["positives"])) for line in found}


def _compare_counts(
    made: Counted, sample: pa.Table, expected: Mapping[int, tuple[int, int]], prior: float
) -> list[dict[str, Any]]:
    """A line for the count, and one for the positives that the rate is made of."""
    counts = [count or 0 for count in sample[made.count].to_pylist()]
    rates = sample[made.rate].to_pylist()
    positives = [
        0 if rate is None else round(rate * (count + WEIGHT) - WEIGHT * prior)
        for count, rate in zip(counts, rates, strict=True)
    ]
    wanted = [expected.get(number, (0, 0)) for number in sample["impression_id"].to_pylist()]
    return [
        _numbers(made.count, sample, counts, [rows for rows, _ in wanted]),
        _numbers(made.rate, sample, positives, [among for _, among in wanted], unit=" positives"),
    ]


def _compare_history(
    history: History, variant: Variant, partitioned: ir.Table, items: ir.Table, sample: pa.Table
) -> list[dict[str, Any]]:
    """A line for the number of positives so far, and one for each list.

    A list knows more where it holds a value more often than the user's earlier positives did, and fewer where it lacks
    one of the last of them.
    """
    state = history.feature("state")
    own = Counted(key="user", count=state, rate="", days=None, training_only=False)
    totals = earlier(own, partitioned, sample)
    numbers = sample["impression_id"].to_pylist()
    known = [count or 0 for count in sample[state].to_pylist()]
    lines = [_numbers(state, sample, known, [totals.get(number, (0, 0))[1] for number in numbers])]
    before = _positives_before(history, variant, partitioned, items, sample)
    last = _last(before, history)
    for name, _ in history.fields:
        feature = history.feature(name)
        lists = [held or [] for held in sample[feature].to_pylist()]
        wanted = [last.get(number, {}).get(name, []) for number in numbers]
        had = _had(before, name, numbers, lists)
        more = [bool(_count(held) - had.get(number, Counter())) for number, held in zip(numbers, lists, strict=True)]
        fewer = [bool(_count(due) - _count(held)) for due, held in zip(wanted, lists, strict=True)]
        lines.append(_line(feature, sample, lists, wanted, more, fewer))
    return lines


def _positives_before(
    history: History, variant: Variant, partitioned: ir.Table, items: ir.Table, sample: pa.Table
) -> ir.Table:
    """Pairs of a sampled impression and an earlier positive of its user, with the fields of the latter's item."""
    import ibis

    asked = ibis.memtable(sample).select("impression_id", "user", now="timestamp")
    rows = partitioned.filter(partitioned.label == 1).semi_join(asked, "user")
    rows = rows.select(user_="user", item="item", then="timestamp", number="impression_id")
    pairs = asked.join(rows, [asked.user == rows.user_, rows.then < asked.now])
    fields = {name: variant.schema.feature(name) for name, _ in history.fields}
    typed = {name: items[feature.column].cast(feature_type(feature)) for name, feature in fields.items()}
    known = items.select(item_=items[variant.schema.roles.item].cast("string"), **typed)
    pairs = pairs.join(known, pairs.item == known.item_, how="left")
    return pairs.mutate(**{n: pairs[n].fill_null(MISSING[feature.value_type]) for n, feature in fields.items()})


def _last(before: ir.Table, history: History) -> dict[int, dict[str, list[Any]]]:
    """Of each impression the fields of the last positives before it, oldest first."""
    import ibis

    latest = [ibis.desc("then"), ibis.desc("number")]
    placed = before.mutate(place=ibis.row_number().over(group_by="impression_id", order_by=latest))
    placed = placed.filter(placed.place < history.length)
    lists = {name: placed[name].collect(order_by=[placed.then, placed.number]) for name, _ in history.fields}
    found = connection().to_pyarrow(placed.group_by("impression_id").aggregate(**lists)).to_pylist()
    return {line["impression_id"]: line for line in found}


def _had(before: ir.Table, name: str, numbers: list[int], lists: list[list[Any]]) -> dict[int, Counter[str]]:
    """How often the positives before each impression had the values that its list holds."""
    import ibis
    import pyarrow as pa

    held = [(number, value) for number, values in zip(numbers, lists, strict=True) for value in set(values)]
    if not held:
        return {}
    columns = [pa.array(column) for column in zip(*held, strict=True)]
    asked = ibis.memtable(pa.table(columns, names=["number_", "value"]))
    pairs = before.join(asked, [before.impression_id == asked.number_, before[name] == asked.value])
    times = connection().to_pyarrow(pairs.group_by("number_", "value").aggregate(times=pairs.count()))
    found: dict[int, Counter[str]] = {}
    for line in times.to_pylist():
        found.setdefault(line["number_"], Counter())[repr(line["value"])] = line["times"]
    return found


def _count(values: list[Any]) -> Counter[str]:
    """As text, so that what stands for a missing number equals itself."""
    return Counter(map(repr, values))


def _numbers(
    feature: str, sample: pa.Table, found: list[int], expected: list[int], *, unit: str = ""
) -> dict[str, Any]:
    more = [one > other for one, other in zip(found, expected, strict=True)]
    fewer = [one < other for one, other in zip(found, expected, strict=True)]
    return _line(feature, sample, found, expected, more, fewer, unit=unit)


def _line(
    feature: str,
    sample: pa.Table,
    found: list[Any],
    expected: list[Any],
    more: list[bool],
    fewer: list[bool],
    *,
    unit: str = "",
) -> dict[str, Any]:
    """How many are more and how many fewer, with the first that is."""
    example, wrong = "", more if any(more) else fewer
    if any(wrong):
        i = wrong.index(True)
        number, at = sample["impression_id"][i].as_py(), sample["timestamp"][i].as_py()
        example = f"impression {number} at {at}: found {found[i]!r}{unit}, expected {expected[i]!r}"
    return {"feature": feature, "more": sum(more), "fewer": sum(fewer), "example": example}


def _drawn(frame: ir.Table, names: list[str], rows: int, seed: int) -> pa.Table:
    """Impressions of all splits with their keys, times and these features."""
    keys = ["impression_id", "user", "item", "domain", "timestamp"]
    return frame.order_by(digest(seed, frame.impression_id)).limit(rows).select(*keys, *names).to_pyarrow()
