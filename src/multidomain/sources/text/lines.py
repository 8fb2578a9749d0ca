"""One slice of text: its lines as typed rows, and the lines that are none with what is wrong with them."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...io import embedded
from ...layout import Column
from ..casting import Cast, cast
from .form import Field, Form

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

LINE = "line"  # the column that holds the number of a row's line, from 1
TEXT = 2_000  # characters of a rejected line that are kept
_SLICE = "multidomain_slice"
_ENGINE = threading.Lock()  # the table engine answers one question at a time
_UNIT = b"\x1f"  # stands for a delimiter of several characters
_WORDS = {"int64": "a whole number", "int8": "0 or 1", "float64": "a number", "timestamp": "a time"}


def read(data: bytes, form: Form, *, names: Sequence[str], first: int) -> tuple[pa.Table, pa.Table, int]:
    """The rows of whole lines, the rejected ones, and how many lines there are.

    Args:
        data: the text; the last line may lack its end.
        form: how it is written.
        names: the columns in the order of the file.
        first: the number of the first line.

    Returns:
        Rows: the form's columns, typed, and ``line``. Rejected: ``line``, ``reason``, ``text``. Each in order.
    """
    import pyarrow.compute as pc

    lines = _Lines(data, form)
    strings = _columns(lines, form, names)
    rows, wrong = _typed(strings, form)
    if form.refine is not None:
        rows, more = form.refine(rows)
        wrong = pc.coalesce(wrong, more)
    good, bad = rows.filter(pc.is_null(wrong)), rows.filter(pc.is_valid(wrong))
    for number, reason in zip(bad[LINE].to_pylist(), wrong.drop_null().to_pylist(), strict=True):
        lines.reject(number, reason)
    at = good.column_names.index(LINE)
    return good.set_column(at, LINE, pc.add(good[LINE], first)), lines.rejected(first), len(lines)


class _Lines:
    """The lines of a slice, numbered from 0, and what is wrong with some of them."""

    def __init__(self, data: bytes, form: Form) -> None:
        import pyarrow as pa

        if data.count(b"\r") != data.count(b"\r\n"):  # a reader would take the lone ones for ends of lines
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b" ")
        self._form, self._reasons = form, dict[int, str]()
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
        if not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        self.starts = np.concatenate([[0], ends]).astype(np.int64)
        self.data = data
        count = len(self.starts) - 1
        buffers = [None, pa.py_buffer(self.starts), pa.py_buffer(data)]
        self.all = pa.Array.from_buffers(pa.large_binary(), count, buffers)
        self._look()

    def __len__(self) -> int:
        return len(self.all)

    def reject(self, number: int, reason: str) -> None:
        """Set a line apart; the first reason stands."""
        self._reasons.setdefault(number, reason)

    def good(self) -> tuple[bytes, npt.NDArray[np.int64]]:
        """The bytes of the lines nothing is wrong with so far, and their numbers."""
        import pyarrow as pa

        numbers = np.delete(np.arange(len(self)), list(self._reasons))
        if not self._reasons:
            return self.data, numbers
        taken = self.all.take(pa.array(numbers))
        return (taken.buffers()[2].to_pybytes() if len(taken) else b""), numbers

    def rejected(self, first: int) -> pa.Table:
        """``line``, ``reason``, ``text``, in order."""
        import pyarrow as pa

        numbers = sorted(self._reasons)
        text = [self._text(number) for number in numbers]
        reasons = [self._reasons[number] for number in numbers]
        return pa.table(
            {
                LINE: pa.array([first + number for number in numbers], pa.int64()),
                "reason": pa.array(reasons, pa.string()),
                "text": pa.array(text, pa.string()),
            }
        )

    def _text(self, number: int) -> str:
        line = self.data[self.starts[number] : self.starts[number + 1]].rstrip(b"\r\n")
        text = line.decode(self._form.encoding, "backslashreplace")
        return text[:TEXT]

    def _look(self) -> None:
        """What no reader of columns should see: empty lines, other encodings, quotes that are not closed."""
        sizes = np.diff(self.starts)
        for number in np.flatnonzero(sizes <= 2).tolist():
            if not self.data[self.starts[number] : self.starts[number + 1]].strip(b"\r\n"):
                self.reject(number, "is empty")
        if self._form.encoding == "utf-8" and not _decodes(self.data):
            high = np.flatnonzero(np.frombuffer(self.data, np.uint8) > 127)
            for number in np.unique(np.searchsorted(self.starts, high, side="right") - 1).tolist():
                if not _decodes(self.data[self.starts[number] : self.starts[number + 1]]):
                    self.reject(number, "is not UTF-8")
        if self._form.quotes and b'"' in self.data:
            at = np.flatnonzero(np.frombuffer(self.data, np.uint8) == ord('"'))
            numbers, counts = np.unique(np.searchsorted(self.starts, at, side="right") - 1, return_counts=True)
            for number in numbers[counts % 2 == 1].tolist():
                self.reject(number, "has a quote that is not closed")


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _columns(lines: _Lines, form: Form, names: Sequence[str]) -> pa.Table:
    """The form's columns as text, and ``line`` from 0; lines of more or fewer columns are set apart."""
    import pyarrow as pa
    from pyarrow import csv

    data, numbers = lines.good()
    delimiter = form.delimiter
    if len(delimiter) > 1:
        data, delimiter = data.replace(delimiter.encode(), _UNIT), _UNIT.decode()
    wrong: list[int] = []

    def set_apart(row: csv.InvalidRow) -> str:
        wrong.append(row.number - 1)
        what = f"has {row.actual_columns} columns, not {row.expected_columns}, divided by {form.delimiter!r}"
        lines.reject(int(numbers[row.number - 1]), what)
        return "skip"

    if not data:
        text = {name: pa.array([], pa.string()) for name in form.columns}
        return pa.table({**text, LINE: pa.array([], pa.int64())})
    if form.encoding != "utf-8":
        data = data.decode(form.encoding).encode()
    table = csv.read_csv(
        io.BytesIO(data),
        read_options=csv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(data) + 1),
        parse_options=csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if form.quotes else False,
            escape_char=False,
            ignore_empty_lines=False,
            invalid_row_handler=set_apart,
        ),
        convert_options=csv.ConvertOptions(
            include_columns=list(form.columns),
            column_types=dict.fromkeys(form.columns, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            null_values=[""],
            check_utf8=False,  # it was looked at
        ),
    )
    return table.append_column(LINE, pa.array(np.delete(numbers, wrong)))


def _typed(strings: pa.Table, form: Form) -> tuple[pa.Table, pa.Array]:
    """The columns in their types, and what is wrong with each row: null for nothing."""
    import pyarrow as pa

    with _given(strings) as table:
        typed = _cast_all(table, form).to_pyarrow().combine_chunks()
    return typed.drop_columns("_wrong"), _flat(typed["_wrong"], pa.string())


@contextlib.contextmanager
def _given(strings: pa.Table) -> Iterator[ir.Table]:
    """The rows as a table of the engine, which forgets them again: it would keep a table in memory to the end."""
    engine = embedded()
    with _ENGINE:
        engine.con.register(_SLICE, strings)
        try:
            yield engine.table(_SLICE)
        finally:
            engine.con.unregister(_SLICE)


def _cast_all(table: ir.Table, form: Form) -> ir.Table:
    import ibis

    made = {name: cast(table[name], _column(name, field)) for name, field in form.columns.items()}
    reasons = [why for name, field in form.columns.items() for why in _reasons(table[name], made[name], name, field)]
    wrong = ibis.coalesce(*reasons) if reasons else ibis.null("string")
    values = {name: value.value for name, value in made.items()}
    return table.select(**values, **{LINE: table[LINE]}, _wrong=wrong)


def _column(name: str, field: Field) -> Column:
    return Column(name=name, type=field.type, use="")


def _reasons(text: Any, made: Cast, name: str, field: Field) -> list[Any]:
    """What may be wrong with a value, as expressions that are null where it is not."""
    import ibis

    found = []
    if made.failed is not None:
        word = ibis.literal(f"' is not {_WORDS[field.type]}")
        found.append(ibis.ifelse(made.failed, ibis.literal(f"{name} '") + text + word, None))
    if field.allowed:
        word = ibis.literal(f"' is not one of {', '.join(field.allowed)}")
        found.append(ibis.ifelse(text.notin(field.allowed), ibis.literal(f"{name} '") + text + word, None))
    if not field.nullable:
        found.append(ibis.ifelse(made.value.isnull(), f"{name} is missing", None))
    return found


def _flat(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return column.chunk(0) if column.num_chunks else pa.array([], kind)
