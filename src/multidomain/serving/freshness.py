"""How new the online store is, view by view, and how far its values differ from those offline.

Impressions of the latest split are drawn, and the features of their keys are read online: what requests of today would
be given, each key as often as it is asked for. Beside them stands each key's latest row in its view's table.

**The newest value online** is the latest time among these keys and some more: those whose rows in the table are the
newest, up to the time that is asked for and up to where Feast's registry says the view was loaded. So it is exact where
the store holds what the registry says. Where it does not, a key that was not read may be newer: no view is older than
it is said to be. What is newer than every row of the table was pushed by events since, says nothing of how new all
other keys are, and is counted apart.

**Compared with what.** ``online against tables``: the latest rows of the same keys; 0 where everything was loaded.
``online against training frame``: the rows of the same impressions, as they were known then; what has changed since,
such as counts that have grown, is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..draw import digest
from ..errors import DataError
from ..features import repository
from ..features.times import EPOCH, microseconds
from ..features.views import TIME, View, views
from ..io import connection
from ..progress import progress
from ..schema import SPLITS, Variant
from . import distribution
from .parity import compare_column

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import pyarrow as pa
    from feast import FeatureStore

AGAINST_TABLES, AGAINST_FRAME = "online against tables", "online against training frame"
NEWEST = 100  # keys with the newest rows that are read beside those of the draw
PIECE = 5_000  # keys read at a time
HOUR = 3_600_000_000  # microseconds

Key = tuple[str, ...]
Row = tuple[int, tuple[Any, ...]]  # time in microseconds since 1970, a value for each feature


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """What was found.

    Attributes:
        at: the time that ages are measured against; None: the newest row of each view's own table, none of the future.
        rows: how many impressions were drawn, of ``split``.
        views: one row per view: ``view``, ``kind``; ``keys`` of the drawn impressions that its table knows, how many of
            them are ``absent`` online, older there (``behind``) or newer than all the table holds (``pushed``), how
            many values of the same key and time are ``differing``, with an ``example``; ``offline``, the time of its
            table's newest row, ``online``, of the newest value loaded from it, and ``loaded``, up to when the registry
            says it was loaded; ``age_hours`` of the newest value online. A profile has no time of its own: no
            ``offline``, ``online`` and ``age_hours``.
        features: one row per feature and ``comparison``: ``view``, ``feature``, ``psi``, ``chance``.
    """

    at: datetime | None
    rows: int
    split: str
    views: pd.DataFrame
    features: pd.DataFrame


def measure(
    variant: Variant,
    frame: ir.Table,
    folder: Path,
    *,
    at: datetime | None = None,
    rows: int = 10_000,
    seed: int = 2021,
    store: FeatureStore | None = None,
) -> Freshness:
    """Look at the online store of a variant.

    Args:
        variant: registered with Feast.
        frame: its training frame.
        folder: of its view tables.
        at: the time that ages are measured against; without a zone UTC; None: the newest row of each view's table.
        rows: impressions drawn.
        seed: of the draw.
        store: another one than the variant's own.

    Raises:
        DataError: the variant was never registered, has no views, or the frame is empty.
    """
    import pandas as pd

    planned = views(variant)
    if not planned:
        raise DataError(f"{variant.key} has no feature views, so nothing of it is online.")
    if at is not None:
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    until = at or datetime.now(UTC)  # a window's rows say beforehand when days leave it
    store = store or repository.service(variant)[0]
    split, asked = _drawn(frame, planned, rows, seed)
    lines, features = [], []
    with progress(total=len(planned), what="read what is online", unit=" views") as bar:
        for view in planned:
            keys = list(zip(*(asked[key].to_pylist() for key in view.keys), strict=True))
            known = _Sides.of(view, store, folder / view.file, keys, until)
            lines.append(known.line(at))
            features += _distributions(view, known, keys, asked)
            bar.update(1)
    return Freshness(at=at, rows=len(asked), split=split, views=pd.DataFrame(lines), features=pd.DataFrame(features))


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """What is known of the keys of one view, offline and online."""

    view: View
    keys: list[Key]  # of the drawn impressions, each once
    offline: Mapping[Key, Row]
    online: Mapping[Key, Row]
    newest: tuple[int | None, int | None]  # of all rows offline, of what was loaded of them
    end: int  # the time of the table's last row, whatever time is asked for
    loaded: datetime | None

    @classmethod
    def of(cls, view: View, store: FeatureStore, path: Path, asked: Sequence[Key], until: datetime) -> _Sides:
        keys = [key for key in dict.fromkeys(asked) if None not in key]
        loaded = store.get_feature_view(view.name).most_recent_end_time
        table = _known(path, until)
        newest = _newest(table, view)
        also = {} if loaded is None or loaded >= until else _newest(_known(path, loaded), view)
        online = _online(store, view, list(dict.fromkeys([*keys, *newest, *also])))
        end = max(_newest(_known(path, None), view).values(), default=0)
        times = [time for time, _ in online.values() if time <= end]
        return cls(
            view=view,
            keys=keys,
            offline=_latest(table, view, keys),
            online=online,
            newest=(max(newest.values(), default=None), max(times, default=None)),
            end=end,
            loaded=loaded,
        )

    def line(self, at: datetime | None) -> dict[str, Any]:
        """The view's row of :attr:`Freshness.views`."""
        there = [key for key in self.offline if key in self.online]
        same = [key for key in there if self.offline[key][0] == self.online[key][0]]
        told = [
            compare_column(
                column.name,
                [self.offline[key][1][i] for key in same],
                [self.online[key][1][i] for key in same],
                ["/".join(key) for key in same],
                what="/".join(self.view.keys),
            )
            for i, column in enumerate(self.view.columns)
        ]
        timed = self.view.kind != "profile"
        offline, online = self.newest if timed else (None, None)
        now = offline if at is None else microseconds(at)
        age = None if online is None or now is None else max(now - online, 0) / HOUR
        return {
            "view": self.view.name,
            "kind": self.view.kind,
            "keys": len(self.offline),
            "absent": len(self.offline) - len(there),
            "behind": sum(self.online[key][0] < self.offline[key][0] for key in there),
            "pushed": sum(self.online[key][0] > self.end for key in there),
            "differing": sum(each["differing"] + each["missing"] for each in told),
            "example": next((f"{each['feature']} of {each['example']}" for each in told if each["example"]), ""),
            "offline": _moment(offline),
            "online": _moment(online),
            "loaded": None if self.loaded is None else self.loaded.isoformat(),
            "age_hours": age,
        }


def _drawn(frame: ir.Table, planned: Sequence[View], rows: int, seed: int) -> tuple[str, pa.Table]:
    """The latest split that has rows, and impressions of it: keys and features of all views."""
    there = frame.group_by("split").aggregate(rows=frame.count()).to_pyarrow()["split"].to_pylist()
    latest = next((split for split in reversed(SPLITS) if split in there), None)
    if latest is None:
        raise DataError("The training frame has no rows, so there is nothing to ask the online store for.")
    names = dict.fromkeys(name for view in planned for name in (*view.keys, *(c.name for c in view.columns)))
    rows_of = frame.filter(frame.split == latest).order_by(digest(seed, frame.impression_id))
    return latest, rows_of.limit(rows).select(*names).to_pyarrow()


def _known(path: Path, at: datetime | None) -> ir.Table:
    """The rows of a view's table up to a time; all of them without one."""
    import ibis

    table = connection().read_parquet(str(path))
    return table if at is None else table.filter(table[TIME] <= ibis.literal(at, "timestamp('UTC', 6)"))


def _newest(table: ir.Table, view: View) -> dict[Key, int]:
    """Keys of the newest rows, each with the time of its latest."""
    import ibis

    rows = table.order_by(ibis.desc(TIME)).limit(NEWEST).select(*view.keys, TIME)
    found = connection().to_pyarrow(rows)
    keys = zip(*(found[key].to_pylist() for key in view.keys), strict=True)
    latest: dict[Key, int] = {}
    for key, time in zip(keys, _times(found), strict=True):
        if None not in key:
            latest[key] = max(time, latest.get(key, time))
    return latest


def _latest(table: ir.Table, view: View, keys: Sequence[Key]) -> dict[Key, Row]:
    """The latest row of each of these keys that has one."""
    import ibis
    import pyarrow as pa

    columns = zip(*keys, strict=True) if keys else [()] * len(view.keys)
    asked = ibis.memtable(
        pa.table({name: pa.array(column, pa.string()) for name, column in zip(view.keys, columns, strict=True)})
    )
    rows = table.semi_join(asked, list(view.keys))
    rows = rows.mutate(place=ibis.row_number().over(group_by=list(view.keys), order_by=ibis.desc(TIME)))
    found = connection().to_pyarrow(rows.filter(rows.place == 0).drop("place"))
    names = zip(*(found[name].to_pylist() for name in view.keys), strict=True)
    values = zip(*(found[column.name].to_pylist() for column in view.columns), strict=True)
    lines = zip(names, _times(found), values, strict=True)
    return {key: (time, row) for key, time, row in lines if _something(time, row)}


def _something(time: int, row: tuple[Any, ...]) -> bool:
    """Whether anything is known: stores answer a key that they do not have with nulls of 1970."""
    return time != 0 or any(value is not None for value in row)


def _online(store: FeatureStore, view: View, keys: Sequence[Key]) -> dict[Key, Row]:
    """What a request is given of these keys, but for those that the store knows nothing of."""
    features = [f"{view.name}:{column.name}" for column in view.columns]
    found: dict[Key, Row] = {}
    for first in range(0, len(keys), PIECE):
        part = keys[first : first + PIECE]
        answer = store.get_online_features(features, [dict(zip(view.keys, key, strict=True)) for key in part])
        place = list(answer.proto.metadata.feature_names.val).index(view.columns[0].name)
        times = [time.ToMicroseconds() for time in answer.proto.results[place].event_timestamps]
        values = answer.to_dict()
        rows = zip(*(values[column.name] for column in view.columns), strict=True)
        lines = zip(part, times, rows, strict=True)
        found |= {key: (time, row) for key, time, row in lines if _something(time, row)}
    return found


def _distributions(view: View, known: _Sides, keys: Sequence[Key], asked: pa.Table) -> list[dict[str, Any]]:
    """Each feature of a view, both comparisons, over the drawn impressions."""
    none: tuple[Any, ...] = (None,) * len(view.columns)
    found: list[dict[str, Any]] = []
    for i, column in enumerate(view.columns):
        online = [known.online.get(key, (0, none))[1][i] for key in keys]
        tables = [known.offline.get(key, (0, none))[1][i] for key in keys]
        frame = asked[column.name].to_pylist()
        if view.kind == "history" and not column.list:  # the state, which is zero where nobody knows of a positive
            online, tables = [value or 0 for value in online], [value or 0 for value in tables]
        for comparison, offline in ((AGAINST_TABLES, tables), (AGAINST_FRAME, frame)):
            measured = distribution.compare(offline, online, column, history=view.kind == "history")
            found.append({"view": view.name, "feature": column.name, "comparison": comparison, **measured})
    return found


def _times(rows: pa.Table) -> list[int]:
    import pyarrow as pa

    return rows[TIME].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]


def _moment(time: int | None) -> str | None:
    return None if time is None else (EPOCH + timedelta(microseconds=time)).isoformat()
