"""Simulated days as a stream: files of a quarter of an hour each, the encoder of the day before, rows held out."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multidomain import schema
from multidomain.io import Folder
from multidomain.pipelines.encode.nodes import fit_encoder
from multidomain.schema import Simulation, Variant
from multidomain.simulation.generate import Log, generate
from multidomain.simulation.world import ITEM, PROFILE, SECONDS_PER_DAY, START

PART = 500_000  # rows drawn together
SLOT = 900  # seconds of a file
DAYPARTS = ("night", "morning", "afternoon", "evening")
QUARTER = SECONDS_PER_DAY // 4
BEFORE = 1_000_000  # number of the part that is the day before
APART = BEFORE + 1  # and of the one that is never learnt
HELD_OUT = 100_000  # rows of it, at most
CHANGED = "_"  # in the name of an item that has another one in each quarter


def variant() -> Variant:
    """What the rows are of: profile features, no counts, no histories."""
    return schema.load("simulated_day").variant(features="profile")


def simulation(rows: int, days: int) -> Simulation:
    """As many users and items as suit so many rows."""
    users = max(rows // 200, 100)
    return Simulation(preset="day", rows=rows, users=users, items=max(users // 5, 50), days=days, seed=2021)


def frame(log: Log) -> pa.Table:
    """Rows in the form of the training frame, less ``impression_id``, and ``second`` of the stream; in order of time.

    Every third item has another name in each quarter of a day, as advertisements come and go.
    """
    rows = log.rows
    second = ((rows.time - START) // np.timedelta64(1, "s")).astype(np.int64)
    changing = rows["item"] % 3 == 0
    items = [
        f"i{code}{CHANGED}{quarter}" if changes else f"i{code}"
        for code, quarter, changes in zip(rows["item"], second // QUARTER, changing, strict=True)
    ]
    columns: dict[str, Any] = {
        "user_id": _named("u", rows["user"]),
        **{name: _named(f"{name}_", rows[name]) for name in (*PROFILE, *ITEM)},
        "item_id": pa.array(items),
        "daypart": pa.array(DAYPARTS).take(pa.array(rows["daypart"])),
        "domain": _named("", rows["domain"] + 1),
        "label": pa.array(log.clicked.astype(np.int8)),
        "second": pa.array(second),
    }
    columns["user"] = columns["group"] = columns["user_id"]
    return pa.table(columns).take(pa.array(np.argsort(rows.time, kind="stable")))


def write(folder: Path, *, rows: int, days: int) -> None:
    """The stream's files below ``files``, ``encoder`` and ``held_out.parquet``.

    Bounded in memory, the same bytes for the same numbers.
    """
    whole = simulation(rows, days)
    parts, pieces = -(-rows // PART), folder / "pieces"
    pieces.mkdir(parents=True)
    for part in range(parts):
        count = rows // parts + (part < rows % parts)
        table = frame(generate(_of(whole, count), part=part))
        slots = table.column("second").to_numpy() // SLOT
        edges = np.searchsorted(slots, np.arange(days * SECONDS_PER_DAY // SLOT + 1))
        for slot, (start, stop) in enumerate(itertools.pairwise(edges)):
            pq.write_table(table.slice(start, stop - start), pieces / f"{slot:05d}-{part:03d}.parquet")
    (folder / "files").mkdir()
    first = 0
    for slot in range(days * SECONDS_PER_DAY // SLOT):
        found = pa.concat_tables([pq.read_table(pieces / f"{slot:05d}-{part:03d}.parquet") for part in range(parts)])
        found = found.take(pa.array(np.argsort(found.column("second").to_numpy(), kind="stable")))
        numbers = pa.array(np.arange(first, first + len(found)), pa.int64())
        first += len(found)
        found = found.drop_columns("second").add_column(0, "impression_id", numbers)
        pq.write_table(found, folder / "files" / f"{slot:05d}.parquet")
    for path in pieces.iterdir():
        path.unlink()
    pieces.rmdir()
    (folder / "files" / "_SUCCESS").touch()
    _fit(folder, frame(generate(_of(whole, max(rows // 20, 5_000)), part=BEFORE)))
    pq.write_table(held_out(generate(_of(whole, min(rows // 10, HELD_OUT)), part=APART)), folder / "held_out.parquet")


def held_out(log: Log) -> pa.Table:
    """Other impressions of the same days, from midnight to midnight, of the items that keep their names.

    Every state of a model that learns the stream can be asked for them: what differs is the model.
    """
    table = frame(log).drop_columns("second")
    table = table.filter(pc.invert(pc.match_substring(table.column("item_id"), CHANGED)))
    return table.add_column(0, "impression_id", pa.array(np.arange(len(table)), pa.int64()))


def _of(whole: Simulation, rows: int) -> Simulation:
    return dataclasses.replace(whole, rows=rows)


def _fit(folder: Path, before: pa.Table) -> None:
    import ibis

    chosen = variant()
    names = sorted(before.column("domain").unique().to_pylist(), key=int)
    domains = pa.table({"domain_id": pa.array(range(len(names)), pa.int32()), "domain": names})
    rows = before.append_column("split", pa.array(["train"] * len(before)))
    dataset = Folder(filepath=str(folder / "encoder"))
    dataset.save(fit_encoder(chosen, ibis.memtable(rows), ibis.memtable(domains)))


def _named(prefix: str, codes: np.ndarray) -> pa.Array:
    return pa.array([f"{prefix}{code}" for code in range(int(codes.max()) + 1)]).take(pa.array(codes))
