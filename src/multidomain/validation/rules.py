"""The rules a log must keep, worked out from its schema.

A rule of level ``table`` is about a column as a whole; breaking it stops the run. A rule of level ``row`` names the bad
rows, which are set apart with the reason. One of level ``warning`` names rows that are odd but can be used, such as
Ali-CCP's conversions without a click: they are counted, shown and kept. Every rule about rows says the same thing
twice: as a Great Expectations expectation (:meth:`Rule.expectation`) and as an Ibis predicate that selects the rows
(:meth:`Rule.broken`); tests hold the two to each other. What Great Expectations cannot see in one chunk of one table (a
duplicate elsewhere, a key of another table), or would check value by value in Python, is computed beforehand as a
true/false column (:func:`flagged`). So is whether a value is there: Great Expectations takes a fingerprint of every
column it is given, which of ids takes longer than all rules together.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import SchemaError
from ..layout import IMPRESSION, Column, TableName, key, layout
from ..schema import SPLITS, Feature, Label, Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir

Kind = Literal[
    "not_empty",
    "exists",
    "type",
    "not_null",
    "unique",
    "known_key",
    "label_binary",
    "not_in_future",
    "allowed",
    "range",
    "finite",
    "zero_elsewhere",
]
Level = Literal["table", "row", "warning"]
TOLERANCE_DAYS = 1
_IN_SET = ("label_binary", "allowed")
_DTYPES: Mapping[str, str] = {
    "string": "str",
    "int64": "int",
    "int8": "int",
    "float64": "float",
    "timestamp": "datetime",
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of one column.

    ``words`` finishes the sentence "<column> …" for a row that breaks it. ``values`` holds what is allowed, the lowest
    and highest value, or the type. ``where``: a 0/1 column; the rule holds only for rows where it is 1 (of the kind
    ``zero_elsewhere``: where it is not). ``parent``: the table whose keys the column must be among. ``many``: the
    column holds lists, the rule is about each element.
    """

    table: TableName
    column: str
    kind: Kind
    level: Level = "row"
    words: str
    values: tuple[Any, ...] = ()
    where: str | None = None
    parent: TableName | None = None
    parent_key: str | None = None
    many: bool = False

    @property
    def name(self) -> str:
        """``impressions.user_id.not_null``, ``impressions.bought.not_null where clicked``."""
        return f"{self.table}.{self.column}.{self.kind}" + (f" where {self.where}" if self.where else "")

    @property
    def reason(self) -> str:
        """``user_id is missing``: what the quarantine says of a row."""
        return f"{self.column} {self.words}"

    @property
    def flag(self) -> str | None:
        """The true/false column this rule is checked through, or None when it is checked on its own column."""
        if self.level == "table":
            return None
        plain = self.kind in _IN_SET and not self.many
        name = f"{self.column} : {self.kind}" + (f" where {self.where}" if self.where else "")
        return None if plain else name + (" (warning)" if self.level == "warning" else "")

    def broken(self, table: ir.Table) -> ir.BooleanValue:
        """True for every row of a :func:`flagged` table that breaks this rule about rows; never null."""
        if self.flag is not None:
            return ~table[self.flag]
        column = table[self.column]
        return column.notnull() & column.notin(self.values)

    def expectation(self) -> Any:
        """The Great Expectations form of this rule; every row must keep it."""
        gxe: Any = importlib.import_module("great_expectations.expectations")
        notes = f"{self.kind}: broken where {self.reason}"
        given: dict[str, Any] = {"meta": {"rule": self.name}, "notes": notes}
        if self.level == "warning":
            given |= {"severity": "warning", "notes": f"{notes} (a warning: these rows are kept)"}
        if self.kind == "not_empty":
            return gxe.ExpectTableRowCountToBeBetween(min_value=1, **given)
        if self.kind == "exists":
            return gxe.ExpectColumnToExist(column=self.column, **given)
        if self.kind == "type":
            return gxe.ExpectColumnValuesToBeOfType(column=self.column, type_=self.values[0], **given)
        if self.flag is not None:
            return gxe.ExpectColumnValuesToBeInSet(column=self.flag, value_set=[True], **given)
        return gxe.ExpectColumnValuesToBeInSet(column=self.column, value_set=list(self.values), **given)


def rules(schema: Schema) -> list[Rule]:
    """Every rule of a log's three tables.

    Raises:
        SchemaError: a bound or an allowed value that the feature's type cannot hold.
    """
    plan = layout(schema)
    found: list[Rule] = []
    for table in ("impressions", "users", "items"):
        columns = plan.table(table)
        if columns:
            found.append(Rule(table=table, column="*", kind="not_empty", level="table", words="has no rows"))
        for column in columns.values():
            found.extend(_form(table, column))
    found.extend(_keys(schema))
    found.extend(_labels(schema.labels))
    found.extend(_splits(schema))
    for feature in schema.features:
        found.extend(_feature(schema, feature))
    return list({rule.name: rule for rule in found}.values())


def of(all_rules: Iterable[Rule], table: TableName, *levels: Level) -> list[Rule]:
    """The rules of one table, of the levels given if any."""
    return [rule for rule in all_rules if rule.table == table and (not levels or rule.level in levels)]


def flagged(table: ir.Table, table_rules: Iterable[Rule], parents: Mapping[str, ir.Table], now: Any) -> ir.Table:
    """``table`` with one true/false column (true: kept) per rule that has a :attr:`Rule.flag`.

    ``parents`` holds the tables that keys are looked up in; ``now`` is the time that "in the future" is measured from.
    """
    import ibis

    flags: dict[str, Any] = {}
    helpers: list[str] = []
    for rule in table_rules:
        if rule.flag is None:
            continue
        if rule.kind in _LOOK_UPS:
            helper = f"{rule.flag} found"
            found = _LOOK_UPS[rule.kind](table, rule, parents)
            table = table.left_join(found.rename({helper: "found"}), [(rule.column, helper)])
            helpers.append(helper)
            looked_up = ibis._[helper].notnull()
            flags[rule.flag] = ~looked_up if rule.kind == "unique" else looked_up | ibis._[rule.column].isnull()
        else:
            flags[rule.flag] = _FLAGS[rule.kind](rule, now)
    return table.mutate(**flags).drop(*helpers)  # one step: nested ones take long to compile


# --- from the schema ---------------------------------------------------------------------------------------------


def _form(table: TableName, column: Column) -> Iterator[Rule]:
    yield Rule(table=table, column=column.name, kind="exists", level="table", words="is missing from the table")
    dtype = "list" if column.type.startswith("array<") else _DTYPES.get(column.type)
    if dtype is not None:
        words = f"is not of type {column.type}"
        yield Rule(table=table, column=column.name, kind="type", level="table", words=words, values=(dtype,))


def _keys(schema: Schema) -> Iterator[Rule]:
    roles = schema.roles
    yield Rule(table="impressions", column=IMPRESSION, kind="not_null", words="is missing")
    yield Rule(table="impressions", column=IMPRESSION, kind="unique", words="occurs more than once")
    for table in ("users", "items"):
        name = key(schema, table)
        if name is None:
            continue
        words = f"is not among the valid {table}"
        yield Rule(table="impressions", column=name, kind="not_null", words="is missing")
        yield Rule(table="impressions", column=name, kind="known_key", words=words, parent=table, parent_key=name)
        yield Rule(table=table, column=name, kind="not_null", words="is missing")
        yield Rule(table=table, column=name, kind="unique", words="occurs more than once")
    if roles.timestamp is not None:
        yield Rule(table="impressions", column=roles.timestamp, kind="not_null", words="is missing")
        words = f"is more than {TOLERANCE_DAYS} day in the future"
        yield Rule(table="impressions", column=roles.timestamp, kind="not_in_future", words=words)


def _labels(labels: Iterable[Label]) -> Iterator[Rule]:
    binary = {"kind": "label_binary", "words": "is neither 0 nor 1", "values": (0, 1)}
    for label in labels:
        missing = "is missing" + (f" where {label.where} is 1" if label.where else "")
        yield Rule(table="impressions", column=label.column, kind="not_null", words=missing, where=label.where)
        yield Rule(table="impressions", column=label.column, **binary)  # type: ignore[arg-type]
        if label.where:
            odd: dict[str, Any] = {"kind": "zero_elsewhere", "level": "warning", "where": label.where}
            yield Rule(table="impressions", column=label.column, words=f"is 1 where {label.where} is not", **odd)
        for column in label.truths.values():
            words = "is no probability: outside 0 to 1"
            yield Rule(table="impressions", column=column, kind="not_null", words="is missing", where=label.where)
            yield Rule(table="impressions", column=column, kind="range", words=words, values=(0, 1))
    for where in sorted({label.where for label in labels if label.where is not None}):
        yield Rule(table="impressions", column=where, kind="not_null", words="is missing")
        yield Rule(table="impressions", column=where, **binary)  # type: ignore[arg-type]


def _splits(schema: Schema) -> Iterator[Rule]:
    plan = layout(schema)
    for name in {split.column for split in schema.splits if split.column is not None}:
        if name in plan.impressions:
            words = f"is not one of {', '.join(SPLITS)}"
            yield Rule(table="impressions", column=name, kind="not_null", words="is missing")
            yield Rule(table="impressions", column=name, kind="allowed", words=words, values=SPLITS)


def _feature(schema: Schema, feature: Feature) -> Iterator[Rule]:
    table: TableName = {"user": "users", "item": "items"}.get(feature.owner, "impressions")  # type: ignore[assignment]
    column, many = feature.column, feature.kind == "sequence"
    subject = "holds a value that " if many else ""
    if not feature.nullable:
        yield Rule(table=table, column=column, kind="not_null", words="is missing")
    if feature.allowed:
        values = tuple(_typed(schema, feature, "allowed", value) for value in feature.allowed)
        words = f"{subject}is not one of {', '.join(map(str, values))}"
        yield Rule(table=table, column=column, kind="allowed", words=words, values=values, many=many)
    if feature.range is not None:
        if feature.value_type == "string":
            raise SchemaError(f"{schema.path}: features.{feature.name}.range: text has no range; use allowed.")
        low, high = feature.range
        words = f"{subject}is outside {low:g} to {high:g}"
        yield Rule(table=table, column=column, kind="range", words=words, values=(low, high), many=many)
    elif feature.value_type == "float":
        yield Rule(table=table, column=column, kind="finite", words=f"{subject}is infinite", many=many)


def _typed(schema: Schema, feature: Feature, where: str, value: Any) -> Any:
    """An allowed value in the type of the feature."""
    wanted = {"string": str, "int": int, "float": (int, float)}[feature.value_type]
    if feature.value_type == "string" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, wanted):  # type: ignore[arg-type]
        hint = " Write it in quotes." if feature.value_type == "string" else ""
        raise SchemaError(
            f"{schema.path}: features.{feature.name}.{where}: {value!r} is not of the feature's type "
            f"'{feature.value_type}'.{hint}"
        )
    return value


# --- flags -------------------------------------------------------------------------------------------------------


def _twice(table: ir.Table, rule: Rule, parents: Mapping[str, ir.Table]) -> ir.Table:  # noqa: ARG001
    """The values that occur more than once."""
    there = table.filter(table[rule.column].notnull())
    counted = there.group_by(found=there[rule.column]).agg(times=there.count())
    return counted.filter(counted.times > 1).select("found")


def _known(table: ir.Table, rule: Rule, parents: Mapping[str, ir.Table]) -> ir.Table:  # noqa: ARG001
    """The keys of the parent table."""
    parent = parents[str(rule.parent)]
    return parent.select(found=parent[rule.parent_key]).distinct()


def _not_null(rule: Rule, now: Any) -> Any:  # noqa: ARG001
    import ibis

    there = ibis._[rule.column].notnull()
    return there if rule.where is None else there | ~(ibis._[rule.where] == 1).fill_null(False)


def _zero_elsewhere(rule: Rule, now: Any) -> Any:  # noqa: ARG001
    import ibis

    there = (ibis._[rule.where] == 1).fill_null(False)
    return there | (ibis._[rule.column] != 1).fill_null(True)


def _not_in_future(rule: Rule, now: Any) -> Any:
    import ibis

    latest = ibis.timestamp(now) + ibis.interval(days=TOLERANCE_DAYS)
    return (ibis._[rule.column] <= latest).fill_null(True)


def _each(bad: Callable[[Rule, Any], Any]) -> Callable[[Rule, Any], Any]:
    """A flag about the column's value, or about each element of its list."""

    def flag(rule: Rule, now: Any) -> Any:  # noqa: ARG001
        import ibis

        column = ibis._[rule.column]
        broken = column.filter(lambda value: bad(rule, value)).length() > 0 if rule.many else bad(rule, column)
        return ~broken.fill_null(False)

    return flag


def _outside(rule: Rule, value: Any) -> Any:
    low, high = rule.values
    return (value < low) | (value > high)


_LOOK_UPS: Mapping[str, Callable[..., Any]] = {"unique": _twice, "known_key": _known}
_FLAGS: Mapping[str, Callable[[Rule, Any], Any]] = {
    "not_null": _not_null,
    "zero_elsewhere": _zero_elsewhere,
    "not_in_future": _not_in_future,
    "range": _each(_outside),
    "finite": _each(lambda rule, value: value.isinf()),  # noqa: ARG005
    "allowed": _each(lambda rule, value: value.notin(rule.values)),
}
