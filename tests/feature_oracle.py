"""A small random log, and every feature of it worked out one impression at a time by filtering in pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from multidomain import schema
from multidomain.features import repository, views
from multidomain.features.frame import TrainingFrame
from multidomain.features.views import MISSING
from multidomain.io import connection
from multidomain.schema import Schema, Variant

SCHEMA = """
source: table
files: {{log: log.parquet}}
roles: {{user: person, item: film, timestamp: at}}
labels: {{click: clicked}}
domains: {{place: {{column: place, minimum: 1}}}}
splits: {{user_time: {{}}, time: {{}}, official: {{kind: official, column: part}}}}
features:
  person: {{owner: user, type: string}}
  city: {{owner: user}}
  film: {{owner: item, type: int}}
  kind: {{owner: item}}
  tags: {{owner: item, kind: sequence}}
  year: {{owner: item, kind: numerical, type: int}}
  device: {{owner: context}}
  price: {{owner: context, kind: numerical}}
history: {{positives: {{length: 3, fields: {{film: film, kind: kind}}}}}}
counts: {counts}
windows: {windows}
request: {request}
feature_sets: {{full: {{}}, all_time: {{windows: false}}, profile: {{history: false, counts: false}}}}
"""
COUNTS = "[user, item, domain, user_domain, item_domain]"
DAY = 86_400_000_000
START = 1_000_000_000_000_000 // DAY * DAY
PRIOR = 0.3
WORLD = 10_000


def small_schema(folder: Path, counts: str = COUNTS, request: str = "[]") -> Schema:
    """A log with everything: users, items, time, history, all five counts, features of every owner and kind."""
    path = folder / "small.yml"
    windows = "[]" if counts == "[]" else "[1, 3]"
    path.write_text(SCHEMA.format(counts=counts, windows=windows, request=request))
    return schema.parse(path)


def log(seed: int, rows: int = 120, split: str = "user_time") -> pd.DataFrame:
    """Rows in ``partitioned``'s shape, several days, many ties: one user, one instant, several impressions."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "impression_id": draw.permutation(rows).astype("int64"),
            "user": draw.choice(["ann", "bob", "cat", "dan"], rows),
            "item": draw.choice(["1", "2", "3", "4", "99"], rows),  # 99 is not in the items' table
            "domain_id": draw.integers(0, 2, rows).astype("int32"),
            "label": draw.integers(0, 2, rows).astype("int8"),
        }
    )
    days, seconds = draw.integers(0, 5, rows), draw.choice([0, 1, 43_200, 86_399], rows)
    frame["at"] = START + days * DAY + seconds * 1_000_000  # midnight itself is among them
    frame["group"], frame["domain"] = frame["user"], np.where(frame["domain_id"] == 0, "home", "shop")
    frame["split"] = _split(frame, split, draw)
    frame["device"] = draw.choice(["phone", "desk"], rows)
    frame["price"] = draw.normal(size=rows).round(3)
    return frame


def _split(frame: pd.DataFrame, split: str, draw: np.random.Generator) -> np.ndarray:
    if split == "official":
        return draw.choice(["train", "validation", "test"], len(frame), p=[0.6, 0.2, 0.2])
    by = frame.groupby("user")["at"] if split == "user_time" else frame["at"]
    place = by.rank(method="min", pct=True)  # ties share a rank, so no instant is cut
    return np.select([place <= 0.6, place <= 0.8], ["train", "validation"], "test")


USERS = pd.DataFrame({"person": ["ann", "bob", "cat"], "city": ["Oslo", None, "Rome"]})  # dan has no row
ITEMS = pd.DataFrame(
    {
        "film": ["01", "02", "03", "04"],
        "kind": ["war", "love", None, "war"],
        "tags": [["a", "b"], [], ["c"], None],
        "year": pd.array([1990, 2000, None, 1995], dtype="Int64"),
    }
)


def one_world(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows under the names that the tables of users and items have where there is one log."""
    return rows.assign(user=rows["user"] + "@", item=rows["item"].str.rjust(2, "0"))


def _world(rows: pd.DataFrame, number: int) -> pd.DataFrame:
    suffix = f"@{number + 1}"
    return rows.assign(
        impression_id=rows["impression_id"] + number * WORLD,
        user=rows["user"] + suffix,
        item=suffix[1:] + rows["item"].str.rjust(2, "0"),
        domain=rows["domain"] + suffix,
    )


def _film(value):
    """The item's id without its world."""
    if isinstance(value, list):
        return [_film(film) for film in value]
    return value if value in (None, MISSING["int"]) else value % 100


class Bench:
    """One registered variant whose views and frame can be made again and again from changed logs."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        self.folder, self.variant, self.views = folder, variant, folder / "views"
        self._registered, self._turn = False, 0

    def build(self, rows: pd.DataFrame, prior: float | None = PRIOR) -> dict:
        tables = self.tables(rows)
        return views.write(self.variant, tables[0], tables[2], tables[3], self.views, prior=prior)

    def tables(self, rows: pd.DataFrame) -> tuple:
        worlds = sorted(set("@" + rows["user"].dropna().str.partition("@")[2]))
        columns = ["impression_id", "user", "item", "group", "timestamp", "domain", "domain_id", "label", "split"]
        rows = rows.assign(timestamp=pd.to_datetime(rows["at"], unit="us"), person=rows["user"], film=rows["item"])
        named = {
            "partitioned": rows[columns],
            "impressions": rows[["impression_id", "person", "film", "device", "price"]],
            "users": pd.concat([USERS.assign(person=USERS["person"] + w) for w in worlds], ignore_index=True),
            "items": pd.concat([ITEMS.assign(film=w[1:] + ITEMS["film"]) for w in worlds], ignore_index=True),
        }
        self._turn += 1  # DuckDB keeps what it read of a file, so every log gets files of its own
        paths = {name: self.folder / f"{name}-{self._turn}.parquet" for name in named}
        for name, table in named.items():
            arrow = pa.Table.from_pandas(table, preserve_index=False)
            if name == "partitioned":
                arrow = arrow.set_column(4, "timestamp", arrow["timestamp"].cast(pa.timestamp("us")))
            pq.write_table(arrow, paths[name])
        return tuple(connection().read_parquet(str(path)) for path in paths.values())

    def join(self, rows: pd.DataFrame, slice_rows: int = 1000) -> pd.DataFrame:
        if not self._registered:
            repository.apply(self.variant, self.views)
            self._registered = True
        partitioned, impressions, _, _ = self.tables(rows)
        path = self.folder / "frame.parquet"
        self.report = TrainingFrame(self.variant, partitioned, impressions, slice_rows=slice_rows)(path)
        self.schema = pq.read_schema(path)
        plain = pd.DataFrame(pq.read_table(path).to_pylist(), dtype=object)
        return plain.set_index("impression_id").sort_index()

    def frame(self, rows: pd.DataFrame, prior: float | None = PRIOR) -> pd.DataFrame:
        return self.frames([rows], prior)[0]

    def frames(self, logs: list[pd.DataFrame], prior: float | None = PRIOR) -> list[pd.DataFrame]:
        """The frames of several logs in one run: each gets users, items, domains and ids of its own."""
        together = pd.concat([_world(rows, number) for number, rows in enumerate(logs)], ignore_index=True)
        self.build(together, prior)
        frame = self.join(together)
        for name in (n for n in ("film", "positives_film") if n in frame):
            frame[name] = pd.Series([_film(value) for value in frame[name]], index=frame.index, dtype=object)
        parts = [frame[frame.index // WORLD == number] for number in range(len(logs))]
        return [part.set_index(part.index % WORLD) for part in parts]


def expected(variant: Variant, rows: pd.DataFrame, prior: float = PRIOR) -> dict[int, dict]:
    """Every feature that carries labels, of every impression, straight from the rules."""
    found = {}
    for row in rows.itertuples():
        features: dict = {}
        earlier = rows[(rows["user"] == row.user) & (rows["at"] < row.at)]
        for history in variant.histories:
            liked = earlier[earlier["label"] == 1].sort_values(["at", "impression_id"])
            items = liked["item"].str.rjust(2, "0").tolist()[-history.length :]
            features["positives_state"] = len(liked)
            known = ITEMS.set_index("film")
            features["positives_film"] = [int(i) if i in known.index else MISSING["int"] for i in items] or None
            kinds = [known["kind"].get(i) or MISSING["string"] for i in items]
            features["positives_kind"] = kinds or None
        for key in variant.counts:
            features |= _counted(variant, key, rows, row, earlier, prior)
        found[row.impression_id] = features
    return found


def _counted(variant: Variant, key: str, rows: pd.DataFrame, row, earlier: pd.DataFrame, prior: float) -> dict:
    same = np.logical_and.reduce([rows[column] == getattr(row, column) for column in key.split("_")])
    day, today = rows["at"] // DAY, row.at // DAY
    before = rows[same & (day < today)]
    if variant.split.kind == "user_time" and key != "user":
        before = before[before["split"] == "train"]
    found = _share(earlier if key == "user" else before, key, "", prior)
    for days in variant.windows:
        recent = before[before["at"] // DAY >= today - days]
        found |= _share(recent, key, f"_{days}d", prior, known=len(before) > 0)
    return found


def _share(rows: pd.DataFrame, key: str, suffix: str, prior: float, known: bool = False) -> dict:
    if len(rows) == 0 and not known:
        return {f"{key}_count{suffix}": None, f"{key}_rate{suffix}": None}
    rate = (rows["label"].sum() + 20 * prior) / (len(rows) + 20)
    return {f"{key}_count{suffix}": len(rows), f"{key}_rate{suffix}": rate}


def check_no_leak(frame: pd.DataFrame, wanted: dict[int, dict]) -> None:
    """Every feature of every impression is what was known before it, no more and no less.

    Raises:
        AssertionError: naming the impressions and features that differ.
    """
    assert sorted(frame.index) == sorted(wanted), "an impression was lost or doubled"
    wrong = [
        f"impression {number}, {name}: {got!r} instead of {want!r}"
        for number, features in wanted.items()
        for name, want in features.items()
        if not _same(got := frame.at[number, name], want)
    ]
    assert not wrong, f"{len(wrong)} values differ: " + "; ".join(wrong[:5])


def differing(one: pd.DataFrame, other: pd.DataFrame, names: list[str]) -> set[int]:
    """The impressions of which any of these features changed."""
    return {n for n in one.index if not all(_same(one.at[n, c], other.at[n, c]) for c in names)}


def _same(got, want) -> bool:
    if isinstance(got, float) and isinstance(want, float):
        return abs(got - want) < 1e-12
    return got == want
