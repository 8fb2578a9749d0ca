"""A log that is drawn, not read: the schema's ``simulation`` section says how; see :mod:`multidomain.simulation`.

Each row also has ``true_probability``, with which its label was drawn, and ``blind_probability``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SchemaError
from ..layout import IMPRESSION, TableName
from ..schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import numpy as np
    import pyarrow as pa

    from ..simulation.generate import Log

HISTORY = 20  # clicks that may matter, where the schema has no history


def read(schema: Schema, files: Mapping[str, Path], work: Path) -> dict[TableName, ir.Table]:
    """Impressions in order of time, users with their profiles, items with their features.

    Raises:
        SchemaError: the schema says nothing of a simulation, or of several histories of unequal length.
    """
    import ibis

    del files, work  # there are none
    return {name: ibis.memtable(table) for name, table in tables(schema).items()}


def tables(schema: Schema) -> dict[TableName, pa.Table]:
    """The three tables as Arrow tables; equal schemas give equal bytes."""
    from ..simulation.generate import generate

    if schema.simulation is None:
        raise SchemaError(f"{schema.path}: source simulated needs the section 'simulation'.")
    lengths = {history.length for history in schema.histories}
    if len(lengths) > 1:
        raise SchemaError(f"{schema.path}: history: a simulated log has histories of one length, not of {lengths}.")
    log = generate(schema.simulation, history=lengths.pop() if lengths else HISTORY)
    return {"impressions": _impressions(log), "users": _users(log), "items": _items(log)}


def _impressions(log: Log) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    rows = log.rows
    table = pa.table(
        {
            "user_id": _names("u", rows["user"], rows.cards["user"]),
            "item_id": _names("i", rows["item"], rows.cards["item"]),
            "timestamp": pa.array(rows.time),
            "channel": _names("", rows["domain"] + 1, 0),
            "source": _names("source_", rows["source"], rows.cards["source"]),
            "daypart": pa.array(["night", "morning", "afternoon", "evening"]).take(pa.array(rows["daypart"])),
            "clicked": log.clicked.astype(np.int8),
            "true_probability": log.truth,
            "blind_probability": log.blind,
        }
    )
    table = table.take(pa.array(np.argsort(rows.time, kind="stable")))
    return table.add_column(0, IMPRESSION, pa.array(np.arange(len(rows))))


def _users(log: Log) -> pa.Table:
    import numpy as np

    profile, users = log.world.profile, len(log.world.activity)
    return _owned(
        "user_id", "u", np.arange(users), {name: (codes, log.rows.cards[name]) for name, codes in profile.items()}
    )


def _items(log: Log) -> pa.Table:
    import numpy as np

    features, items = log.world.item, len(log.world.popularity)
    return _owned(
        "item_id", "i", np.arange(items), {name: (codes, log.rows.cards[name]) for name, codes in features.items()}
    )


def _owned(key: str, prefix: str, keys: np.ndarray, features: Mapping[str, tuple[np.ndarray, int]]) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {key: _names(prefix, keys, len(keys))}
    columns |= {name: _names(f"{name}_", codes, card) for name, (codes, card) in features.items()}
    return pa.table(columns)


def _names(prefix: str, codes: np.ndarray, card: int) -> pa.Array:
    """``u0042`` for code 42 of some thousands: names of one length, so that they sort as their codes do."""
    import pyarrow as pa

    width = len(str(card - 1)) if card else 1
    largest = int(codes.max()) if len(codes) else 0
    return pa.array([f"{prefix}{code:0{width}d}" for code in range(largest + 1)]).take(pa.array(codes))
