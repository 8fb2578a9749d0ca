"""What a file became: Parquet files of its rows and of its rejected lines."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...io import embedded
from .lines import LINE

if TYPE_CHECKING:
    import ibis.expr.types as ir


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A file as Parquet: ``lines = rows + rejected``, the header not counted."""

    path: Path
    folder: Path
    lines: int
    rows: int
    rejected: int

    def table(self) -> ir.Table:
        """The typed rows in the order of the file, and ``line``."""
        return embedded().read_parquet(str(self.folder / "*.rows.parquet"))

    def rejects(self) -> ir.Table:
        """``file``, ``line``, ``reason`` and ``text`` of what was set apart."""
        import ibis

        table = embedded().read_parquet(str(self.folder / "*.rejected.parquet"))
        return table.select(file=ibis.literal(self.path.name), line=table[LINE], reason=table.reason, text=table.text)


def together(files: Sequence[Parsed]) -> dict[str, ir.Table]:
    """What a source says of its files: ``rejected``, their rejected lines; ``files``, the counts of each."""
    import ibis
    import pyarrow as pa

    counts = [{"file": one.path.name, "lines": one.lines, "rows": one.rows, "rejected": one.rejected} for one in files]
    rejected = functools.reduce(lambda one, other: one.union(other), (one.rejects() for one in files))
    return {"rejected": rejected, "files": ibis.memtable(pa.Table.from_pylist(counts))}
