"""Run the validation rules on the three tables of a log.

A broken table rule stops the run. A row that breaks a row rule goes to the quarantine with every reason that applies;
one that breaks a rule of level ``warning`` is counted, shown and kept.
Users and items come first: an impression of a quarantined user or item no longer has a known key, so it is set apart
with it (reason "user_id is not among the valid users") and counts towards the limit of its own table.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError, unknown_key
from ...layout import TABLES, TableName, key, layout
from ...schema import Schema
from ...validation.rules import Rule, flagged, of, rules

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from ...validation.suites import Checker, Outcome

    Mark = Callable[[Iterable[Rule]], ir.Table]  # a table with the flags of some rules

log = logging.getLogger(__name__)
EXAMPLES = 5
_LOOK_AT = 1000  # bad rows fetched at once in search of examples
_ORDER: tuple[TableName, ...] = ("users", "items", "impressions")


@dataclass(kw_only=True)
class Checked:
    """One table after validation."""

    name: TableName
    kept: ir.Table
    quarantined: ir.Table | None
    outcome: Outcome | None
    report: dict[str, Any]


def validate(
    schema: Schema,
    impressions: ir.Table,
    users: ir.Table,
    items: ir.Table,
    rejected_lines: ir.Table,
    ingest_report: Mapping[str, Any],
) -> tuple[ir.Table, ir.Table, ir.Table, ir.Table, dict[str, Any], Callable[[Path], None]]:
    """Valid impressions, users and items, the quarantine, the report, and what writes the Data Docs into a folder.

    The quarantine holds the lines of the raw files that could not be read as rows, too.

    Raises:
        DataError: a table rule is broken, or more rows of a table, or lines of a file, are set apart than
            ``validation.max_quarantined`` allows.
    """
    from ...validation.suites import Checker, write_docs

    tables = {"impressions": impressions, "users": users, "items": items}
    all_rules, checker = rules(schema), Checker()
    forms = _check_form(schema, all_rules, checker, tables)
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    done: dict[str, Checked] = {}
    for name in _ORDER:
        valid = {other: checked.kept for other, checked in done.items()}
        mine = of(all_rules, name)
        done[name] = _check_rows(schema, name, tables[name], mine, checker, forms.get(name), valid, now)
    files = {row["file"]: _file_report(row, rejected_lines) for row in ingest_report["files"]}
    _check_limit(schema, {**files, **{name: done[name].report for name in TABLES}})
    outcomes: dict[str, Outcome] = {name: outcome for name in TABLES if (outcome := done[name].outcome) is not None}
    report = {
        "dataset": schema.name,
        "max_quarantined": schema.validation.max_quarantined,
        "files": files,
        "tables": {name: done[name].report for name in TABLES},
    }
    docs = functools.partial(write_docs, outcomes, schema.name)
    lines = _lines_apart(rejected_lines) if any(report["quarantined"] for report in files.values()) else None
    quarantine = _quarantine([lines, *(done[name].quarantined for name in TABLES)])
    return done["impressions"].kept, done["users"].kept, done["items"].kept, quarantine, report, docs


# --- tables ------------------------------------------------------------------------------------------------------


def _check_form(
    schema: Schema, all_rules: list[Rule], checker: Checker, tables: Mapping[str, ir.Table]
) -> dict[str, Outcome]:
    """Stop at broken table rules, naming all of them."""
    from ...validation.suites import chunks

    lines: list[str] = []
    outcomes: dict[str, Outcome] = {}
    for name in TABLES:
        table_rules = of(all_rules, name, "table")
        missing = {rule.column for rule in table_rules if rule.kind == "exists"} - set(tables[name].columns)
        usable = [rule for rule in table_rules if rule.kind == "exists" or rule.column not in missing]
        if table_rules:
            outcomes[name] = outcome = checker.check(name, usable, chunks(tables[name].limit(EXAMPLES)))
            broken = [rule for rule in usable if not outcome.success[rule.name]]
            lines.extend(_form_line(rule, tables[name]) for rule in broken)
    if lines:
        raise DataError(
            f"Data set '{schema.name}' is not what {schema.path} says:\n"
            + "\n".join(lines)
            + "\nCorrect the source or the schema, then run again. Nothing was passed on."
        )
    return outcomes


def _form_line(rule: Rule, table: ir.Table) -> str:
    rows = table.count().execute()
    line = f"  table '{rule.table}', column '{rule.column}', rule '{rule.kind}': "
    if rule.kind == "exists":
        return f"{line}all {rows:,} rows lack it. {unknown_key(rule.column, table.columns)}"
    if rule.kind == "type":
        shown = table.filter(table[rule.column].notnull()).select(rule.column).limit(EXAMPLES).to_pyarrow()
        examples = ", ".join(repr(value) for value in shown[rule.column].to_pylist())
        return f"{line}all {rows:,} rows are {table[rule.column].type()}, expected {rule.values[0]}, e.g. {examples}."
    return f"{line}the table has {rows:,} rows."


# --- rows --------------------------------------------------------------------------------------------------------


def _check_rows(
    schema: Schema,
    name: TableName,
    table: ir.Table,
    table_rules: list[Rule],
    checker: Checker,
    form: Outcome | None,
    valid: Mapping[str, ir.Table],
    now: dt.datetime,
) -> Checked:
    """Split one table into the rows that keep every rule and those that do not."""
    from ...validation.suites import chunks, joined

    if form is None:
        nothing = {"rows": 0, "kept": 0, "quarantined": 0, "share": 0.0, "rules": []}
        return Checked(name=name, kept=table, quarantined=None, outcome=None, report=nothing)
    row_rules = of(table_rules, name, "row", "warning")
    columns = list(layout(schema).table(name))
    mark = functools.partial(flagged, table.select(*columns), parents=valid, now=now)
    looked_at = dict.fromkeys(rule.flag or rule.column for rule in row_rules)
    all_rows = [rule for rule in table_rules if rule.kind == "not_empty"] + row_rules
    outcome = joined(form, checker.check(name, all_rows, chunks(mark(row_rules).select(*looked_at))))
    counts = {rule: outcome.unexpected[rule.name] for rule in row_rules}
    row_key = key(schema, name) or columns[0]
    examples = _examples(mark, counts, row_key)
    bad = [rule for rule in row_rules if rule.level == "row" and counts[rule]]
    if bad:
        kept, quarantined = _set_apart(name, mark(bad), bad, row_key, columns)
    else:
        kept, quarantined = table if list(table.columns) == columns else table.select(*columns), None
    rows, apart = outcome.rows, int(quarantined.count().execute()) if quarantined is not None else 0
    whole = int(table.count().execute())
    assert rows == whole, (name, rows, whole)  # the flags' joins neither repeat nor lose rows
    report = {
        "rows": rows,
        "kept": rows - apart,
        "quarantined": apart,
        "share": apart / rows if rows else 0.0,
        "rules": [_rule_report(rule, counts.get(rule, 0), examples, outcome, rows) for rule in table_rules],
    }
    if apart:
        log.warning("%s: %s of %s rows go to the quarantine.", name, f"{apart:,}", f"{rows:,}")
    for rule in of(row_rules, name, "warning"):
        _warn(rule, counts[rule], rows, examples)
    return Checked(name=name, kept=kept, quarantined=quarantined, outcome=outcome, report=report)


def _warn(rule: Rule, count: int, rows: int, examples: Mapping[Rule, list[str]]) -> None:
    if count:
        odd, shown = f"{count:,} of {rows:,} rows ({count / rows:.2%})", "; ".join(examples[rule])
        log.warning("%s: %s in %s; no row is set apart for it, e.g. %s.", rule.table, rule.reason, odd, shown)


def _rule_report(
    rule: Rule, count: int, examples: Mapping[Rule, list[str]], outcome: Outcome, rows: int
) -> dict[str, Any]:
    return {
        "column": rule.column,
        "rule": rule.kind,
        "level": rule.level,
        "success": outcome.success[rule.name],
        "rows": count,
        "share": count / rows if rows else 0.0,
        "examples": examples.get(rule, []),
    }


def _examples(mark: Mark, counts: Mapping[Rule, int], row_key: str) -> dict[Rule, list[str]]:
    """Some bad rows of every broken rule, as ``impression_id=17: user_id=None``.

    One look at the first bad rows serves most rules; one that is not among them is asked for by itself.
    """
    wanted = {f"rule {i}": rule for i, rule in enumerate(counts) if counts[rule]}
    if not wanted:
        return {}
    first = _head(mark, wanted, row_key, _LOOK_AT)
    found = {rule: _shown(first, name, rule, row_key) for name, rule in wanted.items()}
    for name, rule in wanted.items():
        if len(found[rule]) < min(EXAMPLES, counts[rule]):
            found[rule] = _shown(_head(mark, {name: rule}, row_key, EXAMPLES), name, rule, row_key)
    return found


def _head(mark: Mark, wanted: Mapping[str, Rule], row_key: str, rows: int) -> list[dict[str, Any]]:
    """The first rows that break any of the rules, with the columns concerned and which rules they break."""
    marked = mark(wanted.values())
    broken = {name: rule.broken(marked) for name, rule in wanted.items()}
    columns = {row_key, *(rule.column for rule in wanted.values())}
    bad = marked.filter(functools.reduce(operator.or_, broken.values()))
    shown = bad.select(**{column: marked[column] for column in columns}, **broken)
    head: list[dict[str, Any]] = shown.limit(rows).to_pyarrow().to_pylist()
    return head


def _shown(rows: list[dict[str, Any]], name: str, rule: Rule, row_key: str) -> list[str]:
    bad = [row for row in rows if row[name]][:EXAMPLES]
    if rule.column == row_key:
        return [f"{row_key}={row[row_key]!r}" for row in bad]
    return [f"{row_key}={row[row_key]}: {rule.column}={row[rule.column]!s}" for row in bad]


def _set_apart(
    name: str, marked: ir.Table, rules: list[Rule], row_key: str, columns: list[str]
) -> tuple[ir.Table, ir.Table]:
    """The rows that keep all rules; and the others: table, row key, every reason that applies, the row as JSON."""
    import ibis

    broken = {rule: rule.broken(marked) for rule in rules}
    any_broken = functools.reduce(operator.or_, broken.values())
    reasons = ibis.array([ibis.ifelse(predicate, rule.reason, None) for rule, predicate in broken.items()])
    values = ibis.struct({column: marked[column] for column in columns}).cast("json").cast("string")
    bad = marked.filter(any_broken)
    apart = bad.select(
        table=ibis.literal(name),
        row_key=bad[row_key].cast("string"),
        reason=reasons.filter(lambda reason: reason.notnull()).join("; "),
        values=values,
    )
    return marked.filter(~any_broken).select(*columns), apart


def _file_report(counts: Mapping[str, Any], rejected: ir.Table) -> dict[str, Any]:
    """What was read of a raw file, in the form of a table's report; one "rule" for each kind of complaint."""
    lines, apart = counts["lines"], counts["rejected"]
    report = {"rows": lines, "kept": counts["rows"], "quarantined": apart, "share": apart / lines if lines else 0.0}
    if not apart:
        return {**report, "rules": []}
    mine = rejected.filter(rejected.file == counts["file"]).order_by("line")
    kind = mine.reason.re_replace("'.*'", "'…'")
    total = mine.group_by(kind=kind).agg(n=mine.count(), first=mine.line.min()).order_by("first").limit(EXAMPLES)
    rules = []
    for found in total.to_pyarrow().to_pylist():
        some = mine.filter(kind == found["kind"]).limit(EXAMPLES).to_pyarrow().to_pylist()
        shown = [f"line {row['line']} {row['reason']}: {_printable(row['text'][:80])}" for row in some]
        column, share = found["kind"].split(" ")[0], found["n"] / lines
        rule = {"column": column, "rule": "line", "level": "row", "success": False, "rows": found["n"], "share": share}
        rules.append({**rule, "examples": shown})
    return {**report, "rules": rules}


def _printable(text: str) -> str:
    """Separators that a terminal does not show, such as ``\\x01``, are written out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _lines_apart(rejected: ir.Table) -> ir.Table:
    """The rejected lines in the form of the quarantine."""
    import ibis

    key = ibis.literal("line ") + rejected.line.cast("string")
    return rejected.select(table=rejected.file, row_key=key, reason=rejected.reason, values=rejected.text)


def _quarantine(parts: list[ir.Table | None]) -> ir.Table:
    """The bad rows of all tables."""
    import ibis
    import pyarrow as pa

    there = [part for part in parts if part is not None]
    if there:
        return functools.reduce(lambda a, b: a.union(b), there)
    names = ("table", "row_key", "reason", "values")
    return ibis.memtable(pa.table({name: pa.array([], pa.string()) for name in names}))


def _check_limit(schema: Schema, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Stop when a file or table lost more rows than the schema allows, naming every rule that took part."""
    limit = schema.validation.max_quarantined
    lines: list[str] = []
    for name, report in reports.items():
        if report["share"] <= limit:
            continue
        lines.append(f"  {name}: {report['quarantined']:,} of {report['rows']:,} rows ({report['share']:.2%})")
        for rule in report["rules"]:
            if rule["rows"] and rule["level"] != "warning":
                rows = f"{rule['rows']:,} rows ({rule['share']:.2%}), e.g. {'; '.join(rule['examples'])}"
                lines.append(f"    column '{rule['column']}', rule '{rule['rule']}': {rows}")
    if lines:
        raise DataError(
            f"Data set '{schema.name}': more rows break rules than the {limit:.2%} of a table or file "
            "that may be set apart:\n"
            + "\n".join(lines)
            + "\nCorrect the source; or, if these rows may be left out, raise validation.max_quarantined in "
            f"{schema.path}. Nothing was passed on."
        )
