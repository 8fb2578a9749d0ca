"""A log that grows by one Parquet file a day, described by a schema of its own."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST = dt.date(2026, 3, 1)
DAILY = """
source: table
files: {log: days/*.parquet}
roles: {user: user_id, item: item_id, timestamp: time, impression: row}
labels: {click: clicked}
domains: {place: {column: place, minimum: 1}}
splits: {time: {}}
features:
  user_id: {owner: user, type: string}
  gender: {owner: user, type: string}
  item_id: {owner: item, type: string}
  genre: {owner: item, type: string}
history:
  positives: {length: 5, fields: {item_id: item_id}}
counts: [user, item]
"""
ROWS = 400  # a day


def day(number: int) -> dt.date:
    """The log's day ``number``, from 0 on."""
    return FIRST + dt.timedelta(days=number)


def rows(number: int) -> pa.Table:
    """One day: every day some users come and go, items come, and what users say of themselves moves."""
    rng = np.random.default_rng(number)
    users, items = rng.integers(3 * number, 30 + 3 * number, ROWS), rng.integers(0, 20 + 2 * number, ROWS)
    place = rng.choice(["home", "search"], ROWS, p=[0.7, 0.3])
    chance = 0.25 + 0.4 * ((users + items) % 2) + 0.1 * (place == "search")
    start = dt.datetime.combine(day(number), dt.time())
    second = np.sort(rng.integers(0, 86_400, ROWS))
    return pa.table(
        {
            "row": pa.array(np.arange(ROWS) + ROWS * number, pa.int64()),
            "user_id": [f"u{u}" for u in users],
            # which gender most rows of a user give changes with the days: users are made of the rows that are known
            "gender": ["fm"[(int(u) + int(rng.random() < 0.3 + 0.1 * number)) % 2] for u in users],
            "item_id": [f"i{i}" for i in items],
            "genre": ["abc"[i % 3] for i in items],
            "place": place,
            "time": pa.array([start + dt.timedelta(seconds=int(s)) for s in second], pa.timestamp("us")),
            "clicked": pa.array((rng.random(ROWS) < chance).astype(np.int64)),
        }
    )


def arrive(raw: Path, *numbers: int) -> None:
    """Put the files of these days into the raw folder."""
    (raw / "days").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pq.write_table(rows(number), raw / "days" / f"{day(number)}.parquet")


def schema(folder: Path) -> Path:
    """The schema's file, ``daily.yml``."""
    path = folder / "daily.yml"
    path.write_text(DAILY, encoding="utf-8")
    return path
