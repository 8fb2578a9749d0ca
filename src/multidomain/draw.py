"""Rows that look drawn at random, and are the same for a seed whatever the engine, the order and the other rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir


def digest(seed: int, ids: ir.Column) -> ir.StringValue:
    """32 hexadecimal digits of each id: sort by them, or take those below a bound."""
    import ibis

    return (ibis.literal(f"{seed}:") + ids.cast("string")).hexdigest("md5")
