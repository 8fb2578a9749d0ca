"""Giving the columns of a log the types its schema declares, without losing a value silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError, unknown_key
from ..layout import Column

if TYPE_CHECKING:
    import ibis.expr.types as ir

EXAMPLES = 5
_LARGEST_SAFE = 2.0**53  # whole numbers beyond it are not exact in a float
_WORDS = {"int64": "whole numbers", "int8": "0 or 1", "float64": "numbers", "timestamp": "times"}


class Cast(NamedTuple):
    """A column in its new type, and which rows held a value that has no counterpart there (None: cannot happen)."""

    value: Any
    failed: Any = None


def conform(table: ir.Table, columns: Mapping[str, Column], *, origin: str, schema_path: object) -> ir.Table:
    """The named columns of ``table``, in the types given.

    Missing values stay missing: null, NaN and, in text, the empty string.

    Raises:
        DataError: a column is not there, a value does not fit its type, the table has no rows or cannot be read.
    """
    require(list(table.columns), columns, origin=origin, schema_path=schema_path)
    casts = {name: cast(table[name], column) for name, column in columns.items()}
    _check(table, columns, casts, origin=origin, schema_path=schema_path)
    return table.select(**{name: made.value for name, made in casts.items()})


def require(there: list[str], columns: Mapping[str, Column], *, origin: str, schema_path: object) -> None:
    """Complain of columns the schema names and the table lacks."""
    missing = [column for name, column in columns.items() if name not in there]
    if missing:
        lines = [f"  {column.use}: {unknown_key(column.name, there)}" for column in missing]
        raise DataError(f"{origin} lacks columns that {schema_path} names (rule: exists):\n" + "\n".join(lines))


def cast(column: Any, target: Column) -> Cast:
    """One column in the type of ``target``."""
    if target.type == "any":
        return Cast(column)
    if target.type.startswith("array<"):
        return _to_list(column, target)
    return {
        "string": _to_text,
        "int64": _to_whole,
        "int8": _to_label,
        "float64": _to_number,
        "timestamp": _to_time,
    }[target.type](column)


def _text(column: Any) -> Any:
    return column.nullif("")


def _digits(column: Any) -> Any:
    """Text that may be a number: the engine reads ``1_000`` as one, nobody else does."""
    import ibis

    return ibis.ifelse(column.contains("_"), None, _text(column))


def _to_text(column: Any) -> Cast:
    import ibis

    kind = column.type()
    if kind.is_string():
        return Cast(_text(column))
    if kind.is_floating():  # identifiers that became floats: 12.0 is '12'
        whole = _is_whole(column) & (column.abs() < _LARGEST_SAFE)
        text = ibis.ifelse(whole, column.try_cast("int64").cast("string"), column.cast("string"))
        return Cast(ibis.ifelse(column.isnan(), None, text))
    return Cast(column.cast("string"))


def _to_whole(column: Any) -> Cast:
    import ibis

    kind = column.type()
    if kind.is_integer() and not kind.is_uint64():
        return Cast(column.cast("int64"))
    if kind.is_boolean():
        return Cast(column.cast("int64"))
    there = column.notnull()
    if kind.is_string():
        column, there = _digits(column), _text(column).notnull()
    if kind.is_floating():
        there = there & ~column.isnan()
    number = column.try_cast("float64")
    value = ibis.ifelse(_is_whole(number), column.try_cast("int64"), None)
    return Cast(value, there & value.isnull())


def _is_whole(number: Any) -> Any:
    """False, too, for what is beyond 64 bits, infinite or not a number."""
    return (number.try_cast("int64").cast("float64") == number).fill_null(False)


def _to_label(column: Any) -> Cast:
    kind = column.type()
    if kind.is_string():
        text = column.lower()
        column = text.cases(("true", "1"), ("false", "0"), else_=text)
    whole = _to_whole(column)
    value = whole.value.try_cast("int8")
    overflow = whole.value.notnull() & value.isnull()
    return Cast(value, overflow if whole.failed is None else whole.failed | overflow)


def _to_number(column: Any) -> Cast:
    import ibis

    kind = column.type()
    if kind.is_floating():
        return Cast(ibis.ifelse(column.isnan(), None, column.cast("float64")))
    if kind.is_numeric() or kind.is_boolean():
        return Cast(column.cast("float64"))
    text = _text(column) if kind.is_string() else column
    number = (_digits(column) if kind.is_string() else column).try_cast("float64")
    return Cast(ibis.ifelse(number.isnan(), None, number), text.notnull() & number.isnull())


def _to_time(column: Any) -> Cast:
    """Times, dates, ISO text, or epoch seconds (beyond 1e11: milliseconds, 1e14: microseconds, 1e17: nanoseconds).

    In UTC: a time with an offset or a zone is moved there, one without is taken as UTC.
    """
    import ibis

    kind = column.type()
    if kind.is_timestamp() or kind.is_date():
        return Cast(column.cast("timestamp(6)"))
    if kind.is_numeric():
        return _epoch(column)
    if not kind.is_string():
        return Cast(ibis.null("timestamp(6)"), column.notnull())
    text = _text(column)
    epoch = _epoch(text.try_cast("float64")).value
    value = ibis.coalesce(epoch, text.try_cast("timestamp('UTC')").cast("timestamp(6)"))
    return Cast(value, text.notnull() & value.isnull())


def _epoch(number: Any) -> Cast:
    import ibis

    number = number.cast("float64")
    size = number.abs()
    milliseconds = ibis.cases(
        (size > 1e17, number / 1e6), (size > 1e14, number / 1e3), (size > 1e11, number), else_=number * 1e3
    )
    usable = number.notnull() & ~number.isnan() & ~number.isinf()
    value = ibis.ifelse(usable, milliseconds.round().try_cast("int64"), None).as_timestamp("ms").cast("timestamp(6)")
    return Cast(value, number.notnull() & value.isnull() & ~number.isnan())


def _to_list(column: Any, target: Column) -> Cast:
    import ibis

    kind, inner = column.type(), target.type.removeprefix("array<").removesuffix(">")
    if kind.is_string() and target.separator is None:
        raise DataError(
            f"column '{target.name}' is text, but {target.use} reads it as a list: say where it is cut, for example "
            f"separator: ','."
        )
    if not (kind.is_string() or kind.is_array()):
        raise DataError(f"column '{target.name}' is {kind}, but {target.use} reads it as a list.")
    values = column
    if kind.is_string():
        values = _text(column).split(target.separator).map(lambda v: v.strip())
    values = values.filter(lambda v: v.notnull())
    if not kind.is_array() or kind.value_type.is_string():
        values = values.filter(lambda v: v != "")
    if inner == "string":
        return Cast(values.map(lambda v: _to_text(v).value))
    converted = values.map(lambda v: (_to_whole(v) if inner == "int64" else _to_number(v)).value)
    kept = converted.filter(lambda v: v.notnull())
    return Cast(kept, ibis.coalesce(kept.length() < values.length(), False))


def _check(
    table: ir.Table, columns: Mapping[str, Column], casts: Mapping[str, Cast], *, origin: str, schema_path: object
) -> None:
    """Read every column once: whether it can be read at all, and which values do not fit."""
    doubtful = {name: made.failed for name, made in casts.items() if made.failed is not None}
    sums = {f"failed_{i}": failed.sum() for i, failed in enumerate(doubtful.values())}
    reads = {f"read_{i}": table[name].count() for i, name in enumerate(columns)}
    counts = execute(table.aggregate(rows=table.count(), **sums, **reads), origin).iloc[0]
    if counts["rows"] == 0:
        raise DataError(f"{origin} has no rows (rule: not_empty).")
    broken = {name: int(counts[f"failed_{i}"] or 0) for i, name in enumerate(doubtful)}
    lines = [
        f"  column '{name}' (rule: type): {count:,} of {int(counts['rows']):,} rows do not hold "
        f"{_WORDS.get(columns[name].type, columns[name].type)}, e.g. {_examples(table, name, doubtful[name])}; "
        f"read by {columns[name].use}."
        for name, count in broken.items()
        if count
    ]
    if lines:
        raise DataError(
            f"{origin} does not have the types that {schema_path} declares:\n"
            + "\n".join(lines)
            + "\nCorrect the file, or the type in the schema. An empty cell means a missing value."
        )


def _examples(table: ir.Table, name: str, failed: Any) -> str:
    import ibis

    bad = table.mutate(_failed=failed).filter(ibis._._failed)
    top = bad.group_by(value=bad[name]).agg(rows=bad.count()).order_by([ibis.desc("rows"), "value"]).limit(EXAMPLES)
    return ", ".join(f"{row.value!r} ({row.rows:,} rows)" for row in top.execute().itertuples())


def execute(expression: Any, origin: str) -> Any:
    """Run a query; what the engine cannot read becomes one clear message."""
    import duckdb
    import pyarrow as pa

    try:
        return expression.execute()
    except (duckdb.Error, pa.ArrowException, UnicodeError) as error:
        raise unreadable(origin, error) from error


def unreadable(origin: str, error: Exception) -> DataError:
    """The one message for a file that is damaged or not what its name says."""
    cause = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return DataError(
        f"{origin} cannot be read (rule: readable): {cause.strip()}\nIs it whole, and of the type its name says?"
    )
