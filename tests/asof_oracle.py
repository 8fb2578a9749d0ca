"""The point-in-time join as one correlated subquery of plain SQL, run by SQLite: no engine of ours has a part."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any


def picked(
    known: Sequence[dict[str, Any]],
    asked: Sequence[dict[str, Any]],
    keys: Sequence[tuple[str, str]],
    *,
    at: tuple[str, str] = ("at", "at"),
    ttl: int | None = None,
    made: str | None = None,
) -> list[int | None]:
    """For every asked row the number of the known row that counts for it, or None.

    ``keys`` and ``at`` name the column of ``known``, then that of ``asked``; times are whole numbers. The latest row
    that is early enough and not older than ``ttl`` counts; of several, the one made last, then the last of all.
    """
    con = sqlite3.connect(":memory:")
    ours, theirs = ([pair[side] for pair in keys] for side in (0, 1))
    _table(con, "known", known, [*ours, at[0], *([made] if made else [])])
    _table(con, "asked", asked, [*theirs, at[1]])
    where = [f'known."{ours[i]}" = asked."{theirs[i]}"' for i in range(len(keys))]
    where.append(f'known."{at[0]}" <= asked."{at[1]}"')
    if ttl is not None:
        where.append(f'known."{at[0]}" + {ttl} >= asked."{at[1]}"')
    order = [f'known."{at[0]}" DESC', *([f'known."{made}" DESC NULLS LAST'] if made else []), "known.number DESC"]
    query = (
        f"SELECT (SELECT known.number FROM known WHERE {' AND '.join(where)} ORDER BY {', '.join(order)} LIMIT 1) "
        "FROM asked ORDER BY asked.number"
    )
    return [number for (number,) in con.execute(query)]


def _table(con: sqlite3.Connection, name: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    quoted = ", ".join(f'"{column}"' for column in columns)
    con.execute(f"CREATE TABLE {name} (number, {quoted})")
    con.executemany(
        f"INSERT INTO {name} VALUES ({', '.join('?' * (len(columns) + 1))})",
        ((number, *(row[column] for column in columns)) for number, row in enumerate(rows)),
    )
