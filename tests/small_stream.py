"""A small stream of the training frame's rows, and what follows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import trained_variant

from multidomain.encoder import Encoder, Field
from multidomain.streaming.folder import FolderSource
from multidomain.streaming.options import StreamOptions
from multidomain.streaming.rows import wanted
from multidomain.streaming.stream import Beginning, Stream
from multidomain.training.config import TrainingConfig

MODEL = {"embedding_dim": 4, "hidden": [16, 8], "dropout": 0.1}
OPTIONS: dict[str, Any] = {
    "buffer_rows": 90,
    "report_rows": 100,
    "checkpoint_rows": 64,
    "package_rows": None,
    "ledger": True,
    "vocabulary": {"every": 128, "minimum_count": 2, "forget_after": 300},
}


def encoder(items: int = 12) -> Encoder:
    """Fitted, by hand, to the first of the items of the small log."""
    fields = (
        Field(name="user_id", kind="categorical", value_type="string", owner="user"),
        Field(name="item_id", kind="categorical", value_type="string", owner="item"),
        Field(name="genre", kind="categorical", value_type="string", owner="item"),
        Field(name="tags", kind="bag", value_type="string", owner="item", length=3),
        Field(name="year", kind="bucket", value_type="int", owner="item", boundaries=(1960.0, 1980.0)),
        Field(name="price", kind="value", value_type="float", mean=1.5, scale=2.0),
    )
    values = {
        "user_id": [f"u{i}" for i in range(40)],
        "item_id": [f"i{i}" for i in range(items)],
        "genre": ["a", "b", "c"],
        "tags": ["x", "y", "z"],
    }
    return Encoder(
        fields=fields,
        vocabularies={name: pa.array(known) for name, known in values.items()},
        domains=trained_variant.DOMAINS,
        history={"positives_item_id": "item_id", "positives_genre": "genre"},
        history_length=4,
    )


def log(rows: int = 600, seed: int = 0, first: int = 0) -> pa.Table:
    """Rows in order of time, with impression ids from ``first`` on; later ones are of later items."""
    table = trained_variant.frame(rows, seed).select(wanted(encoder()).names)
    ids = pa.array(np.arange(first, first + rows), pa.int64())
    table = table.set_column(table.column_names.index("impression_id"), "impression_id", ids)
    age = np.arange(first, first + rows) // 200
    items = [f"i{(int(i[1:]) + 10 * a) % 60}" for i, a in zip(table.column("item_id").to_pylist(), age, strict=True)]
    return table.set_column(table.column_names.index("item_id"), "item_id", pa.array(items))


def arrive(folder: Path, rows: pa.Table, sizes: list[int], *, end: bool = True) -> Path:
    """The rows as files of these sizes, the last one with the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    start, number = 0, len(list(folder.glob("*.parquet")))
    for size in [*sizes, len(rows)]:
        part = rows.slice(start, size)
        if len(part):
            temporary = folder / f".{number:04d}.parquet"
            pq.write_table(part, temporary)
            temporary.rename(folder / f"{number:04d}.parquet")
        start, number = start + size, number + 1
    if end:
        (folder / "_SUCCESS").touch()
    return folder


def options(**changed: Any) -> StreamOptions:
    """Of the small stream."""
    return StreamOptions.read({**OPTIONS, **changed})


def stream(
    folder: Path, *, architecture: str = "star", start: Encoder | None = None, package: Any = None, **changed: Any
) -> Stream:
    """What follows it, keeping all below ``folder``, of one thread in whichever process: bits can be compared."""
    torch.set_num_threads(1)
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):  # the stream would take every core
        return Stream(
            architecture=architecture,
            config=MODEL,
            begin=lambda: Beginning(encoder=start or encoder()),
            options=options(**changed),
            training=TrainingConfig(batch_size=32, learning_rate=0.01),
            seed=3,
            folder=folder,
            device="cpu",
            package=package,
            show_progress=False,
        )


def source(folder: Path, **changed: Any) -> FolderSource:
    """The folder as a stream."""
    return FolderSource(folder, wanted(encoder()), **{"poll_seconds": 0.01, **changed})


def learnt(folder: Path) -> list[int]:
    """The impressions in the order they were learnt, as the ledger has them."""
    parts = [pq.read_table(path) for path in sorted((folder / "ledger").glob("*.parquet"))]
    return pa.concat_tables(parts).column("impression_id").to_pylist() if parts else []


def everything(stream: Stream) -> dict[str, torch.Tensor]:
    """Weights and what the optimizers keep."""
    from multidomain.training.checkpoint import optimizer_tensors, plain_weights

    return {**plain_weights(stream.model), **optimizer_tensors(stream._optimizers)}


def same(one: Stream, other: Stream) -> bool:
    """Whether two streams ended alike, bit by bit."""
    first, second = everything(one), everything(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Another column in the place of one."""
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


def labels_flipped(table: pa.Table, at: slice) -> pa.Table:
    """The other label in these rows."""
    label = pc.cast(table.column("label"), pa.int8()).to_numpy().copy()
    label[at] = 1 - label[at]
    return with_column(table, "label", label)
