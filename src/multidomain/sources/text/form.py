"""How a vendor writes a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

Refine = Callable[["pa.Table"], tuple["pa.Table", "pa.Array"]]


@dataclass(frozen=True, kw_only=True)
class Field:
    """What one column holds.

    ``type`` is one of :mod:`multidomain.layout`; an empty cell is a missing value, an error unless ``nullable``.
    ``allowed``: every text it may hold; none given allows all.
    """

    type: str = "string"
    nullable: bool = False
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a file is written: one row per line.

    Attributes:
        columns: name -> what it holds. A file with a header may have more, in any order; they are left out.
        delimiter: what stands between columns, one character or more.
        header: whether the first line names the columns.
        quotes: whether a value may stand in double quotes, which are doubled inside.
        encoding: of the text: utf-8 or latin-1.
        key: the column whose values are there once; a line whose key was on an earlier line is set apart.
        refine: for what is more than columns, a frozen dataclass with ``__call__``: typed rows -> rows, and per row
            what is wrong with it, null for nothing.
    """

    columns: Mapping[str, Field]
    delimiter: str = ","
    header: bool = True
    quotes: bool = False
    encoding: str = "utf-8"
    key: str | None = None
    refine: Refine | None = None


@dataclass(frozen=True)
class Between:
    """A :data:`Refine` that sets rows apart whose whole number is outside ``low`` to ``high``.

    ``words`` finish the sentence "<column> '<number>' …".
    """

    column: str
    low: int
    high: int
    words: str

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, pa.Array]:
        """The same rows, and what is wrong with each."""
        import pyarrow as pa
        import pyarrow.compute as pc

        number = rows[self.column]
        outside = pc.or_(pc.less(number, self.low), pc.greater(number, self.high))
        if not pc.any(outside).as_py():
            return rows, pa.nulls(len(rows), pa.string())
        said = pc.binary_join_element_wise(f"{self.column} '", number.cast(pa.string()), f"' {self.words}", "")
        return rows, pc.if_else(outside, said, None).combine_chunks()
