"""Which columns the three tables of a log have, and of which type: worked out from the schema alone.

``impressions`` has one row per impression, ``users`` and ``items`` one row per key. Columns keep the names they have
in the log. A log without users (or items) has an empty table in their place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .errors import SchemaError
from .schema import Feature, Schema

TableName = Literal["impressions", "users", "items"]
TABLES: tuple[TableName, ...] = ("impressions", "users", "items")
IMPRESSION = "impression_id"
PLACEHOLDER = "none"  # the one column of the users or items of a log that has none


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    ``type``: ``string``, ``int64``, ``float64``, ``int8``, ``timestamp``, ``array<string>`` …, or ``any`` (as found).
    ``use`` is the key of the schema that names it; ``separator``, where a text that holds a list is cut.
    """

    name: str
    type: str
    use: str
    separator: str | None = None


Columns = Mapping[str, Column]


@dataclass(frozen=True)
class Layout:
    """The columns of the three tables, in order."""

    impressions: Columns
    users: Columns
    items: Columns

    def table(self, name: TableName) -> Columns:
        """The columns of one table by its name; empty where the log has no such table."""
        columns: Columns = getattr(self, name)
        return columns

    def all(self) -> dict[str, Column]:
        """Every column but the impression's number, once."""
        merged = {**self.users, **self.items, **self.impressions}
        return {name: column for name, column in merged.items() if name != IMPRESSION}


def key(schema: Schema, table: TableName) -> str | None:
    """The column that names a row of ``table``."""
    return {"impressions": IMPRESSION, "users": schema.roles.user, "items": schema.roles.item}[table]


def layout(schema: Schema) -> Layout:
    """The columns of the three tables.

    Raises:
        SchemaError: one column is used in two ways that need different types.
    """
    plan = _Plan(schema)
    roles = schema.roles
    plan.add("impressions", Column(name=IMPRESSION, type="any", use="the impression's number"))
    for name, use in ((roles.user, "roles.user"), (roles.item, "roles.item"), (roles.group, "roles.group")):
        if name is not None:
            plan.add("impressions", Column(name=name, type="string", use=use))
    if roles.timestamp is not None:
        plan.add("impressions", Column(name=roles.timestamp, type="timestamp", use="roles.timestamp"))
    for label in schema.labels:
        plan.add("impressions", Column(name=label.column, type="int8", use=f"labels.{label.name}"))
        if label.where is not None:
            plan.add("impressions", Column(name=label.where, type="int8", use=f"labels.{label.name}.where"))
        for name in label.truths.values():
            plan.add("impressions", Column(name=name, type="float64", use=f"labels.{label.name}"))
    _add_features(schema, plan)
    _add_domains(schema, plan)
    _add_weight(schema, plan)
    for split in schema.splits:
        if split.column is not None and not plan.knows(split.column):
            plan.add("impressions", Column(name=split.column, type="string", use=f"splits.{split.name}.column"))
    return Layout(**plan.tables)


def feature_type(feature: Feature) -> str:
    """The type of a feature's column."""
    value = {"string": "string", "int": "int64", "float": "float64"}[feature.value_type]
    return f"array<{value}>" if feature.kind == "sequence" else value


def _add_features(schema: Schema, plan: _Plan) -> None:
    owners: Mapping[str, TableName] = {"user": "users", "item": "items", "context": "impressions"}
    for table in ("users", "items"):
        name = key(schema, table)
        if name is not None:
            plan.add(table, Column(name=name, type="string", use=f"roles.{table[:-1]}"))
    for feature in schema.features:
        column = Column(
            name=feature.column,
            type=feature_type(feature),
            use=f"features.{feature.name}",
            separator=feature.separator if feature.kind == "sequence" else None,
        )
        plan.add(owners[feature.owner], column)


def _add_domains(schema: Schema, plan: _Plan) -> None:
    for domain in schema.domains:
        for name in domain.columns:
            known = plan.column(name)
            if known is None:
                kind = "float64" if domain.bins else "string"
                plan.add("impressions", Column(name=name, type=kind, use=f"domains.{domain.name}"))
            elif domain.bins and known.type not in ("int64", "float64", "int8"):
                raise plan.fail(
                    f"domains.{domain.name}.bins",
                    f"bins are edges of a number, but {known.use} reads column '{name}' as {_words(known)}. "
                    "Give it type: int or float.",
                )


def _add_weight(schema: Schema, plan: _Plan) -> None:
    name = schema.roles.weight
    if name is None:
        return
    known = plan.column(name)
    if known is None:
        plan.add("impressions", Column(name=name, type="float64", use="roles.weight"))
    elif name not in plan.tables["impressions"] or known.type not in ("int64", "float64", "int8"):
        raise plan.fail(
            "roles.weight",
            f"a weight is a number of the impression, but {known.use} reads column '{name}' as {_words(known)}"
            f"{'' if name in plan.tables['impressions'] else ' of another table'}. Name a column of numbers of the "
            "impressions.",
        )


class _Plan:
    """Collects columns and refuses two uses that need different types."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.tables: dict[str, dict[str, Column]] = {table: {} for table in TABLES}

    def fail(self, where: str, message: str) -> SchemaError:
        return SchemaError(f"{self.schema.path}: {where}: {message}")

    def column(self, name: str) -> Column | None:
        return next((columns[name] for columns in self.tables.values() if name in columns), None)

    def knows(self, name: str) -> bool:
        return self.column(name) is not None

    def add(self, table: TableName, column: Column) -> None:
        columns = self.tables[table]
        if column.name == IMPRESSION and IMPRESSION in columns and self.schema.roles.impression != IMPRESSION:
            raise self.fail(
                column.use,
                f"'{IMPRESSION}' is the name of the impression's number. If the column holds one, say "
                f"roles.impression: {IMPRESSION}; else rename the column.",
            )
        other = self.column(column.name)
        if other is not None and column.name != IMPRESSION:
            if other.type != column.type:
                raise self.fail(
                    column.use,
                    f"column '{column.name}' is read as {_words(column)} here but as {_words(other)} by {other.use}. "
                    "One column has one type: give both the same, or drop one.",
                )
            column = dataclasses.replace(other, separator=other.separator or column.separator)
        if column.name not in columns:
            columns[column.name] = column


def _words(column: Column) -> str:
    names = {
        "string": "text",
        "int64": "whole numbers",
        "float64": "numbers",
        "int8": "a 0/1 label",
        "timestamp": "a time",
    }
    return names.get(column.type, column.type.replace("array", "list"))
