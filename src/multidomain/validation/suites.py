"""Great Expectations: suites made of the rules, run over a table in chunks, and the Data Docs of the results."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..parallel import in_order
from .rules import Rule

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import pyarrow as pa

CHUNK_ROWS = 1 << 21  # rows in memory as pandas at a time
EXAMPLES = 5
RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES}


@dataclass(kw_only=True)
class Outcome:
    """What Great Expectations found in one table: per rule whether it holds, and the result as GX reports it."""

    table: str
    rows: int
    rules: list[Rule]
    result: Any
    success: dict[str, bool] = field(default_factory=dict)
    unexpected: dict[str, int] = field(default_factory=dict)


class Checker:
    """Runs suites in one context that keeps nothing on disk, draws no progress bars and reports to nobody."""

    def __init__(self) -> None:
        self.context = _context()
        self._source = self.context.data_sources.add_pandas("log")

    def check(self, name: str, table_rules: Iterable[Rule], chunks: Iterable[pd.DataFrame]) -> Outcome:
        """Hold every chunk of a table to its rules; counts are summed over the chunks."""
        import great_expectations as gx

        table_rules = list(table_rules)
        unique = f"{name} {len(self._source.assets)}"
        suite = gx.ExpectationSuite(name=unique, expectations=[rule.expectation() for rule in table_rules])
        whole = self._source.add_dataframe_asset(unique).add_batch_definition_whole_dataframe("whole")
        definition = gx.ValidationDefinition(name=unique, data=whole, suite=self.context.suites.add(suite))
        definition = self.context.validation_definitions.add(definition)

        def run(chunk: pd.DataFrame) -> tuple[Any, int]:
            return definition.run(batch_parameters={"dataframe": chunk}, result_format=RESULT_FORMAT), len(chunk)

        total, rows = None, 0
        for result, size in in_order(run, chunks, workers=1):  # one chunk is checked while the next is made
            total, rows = result if total is None else _merge(total, result), rows + size
        return _outcome(name, rows, table_rules, total)


def joined(form: Outcome, rows: Outcome) -> Outcome:
    """What was found of a table's form, which a few rows show, beside what was found of all its rows.

    Great Expectations takes a fingerprint of every column it is given, which takes longer than all rules together: all
    rows are checked with only the columns that rules about rows look at.
    """
    there = {rule.name for rule in rows.rules}
    more = [result for result in form.result.results if _rule(result) not in there]
    rows.result.results = [*more, *rows.result.results]
    _count(rows.result)
    rules = [rule for rule in form.rules if rule.name not in there] + rows.rules
    return _outcome(rows.table, rows.rows, rules, rows.result)


def chunks(table: ir.Table, rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
    """The table as pandas frames of at most ``rows`` rows, Arrow types kept; an empty table is one empty frame."""
    import pyarrow as pa

    schema = table.schema().to_pyarrow()
    waiting: list[pa.RecordBatch] = []
    count, any_yet = 0, False
    for batch in table.to_pyarrow_batches(chunk_size=min(rows, 1 << 17)):
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            waiting.append(part)
            count, batch = count + part.num_rows, batch.slice(part.num_rows)
            if count == rows:
                yield _frame(pa.Table.from_batches(waiting))
                waiting, count, any_yet = [], 0, True
    if waiting or not any_yet:
        yield _frame(pa.Table.from_batches(waiting) if waiting else schema.empty_table())


def write_docs(outcomes: Mapping[str, Outcome], run_name: str, folder: Path) -> None:
    """Write the Data Docs, static HTML, of every table's outcome below ``folder``."""
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    context = _context()
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": index,
        "store_backend": backend,
        "show_how_to_buttons": False,
    }
    context.add_data_docs_site("docs", site)
    run = RunIdentifier(run_name=run_name)
    for name, outcome in outcomes.items():
        expectations = [rule.expectation() for rule in outcome.rules]
        context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        identifier = ValidationResultIdentifier(ExpectationSuiteIdentifier(name), run, name)
        context.validation_results_store.set(identifier, outcome.result)
    context.build_data_docs(site_names=["docs"])


def _context() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    quiet = [logging.getLogger(f"great_expectations{part}") for part in ("", ".data_context.types.base")]
    for logger in quiet:
        logger.setLevel(logging.WARNING)  # importing talks through the first; the second sets its own level then
    import great_expectations as gx

    for logger in quiet:
        logger.setLevel(logging.WARNING)
    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


def _frame(table: pa.Table) -> pd.DataFrame:
    """Arrow types are kept, so that whole numbers stay whole beside nulls; flags have none, and NumPy is faster."""
    import pandas as pd
    import pyarrow as pa

    frame: pd.DataFrame = table.to_pandas(
        types_mapper=lambda kind: None if pa.types.is_boolean(kind) else pd.ArrowDtype(kind)
    )
    return frame


def _rule(result: Any) -> str:
    return str(result.expectation_config.meta["rule"])


def _outcome(name: str, rows: int, table_rules: list[Rule], total: Any) -> Outcome:
    return Outcome(
        table=name,
        rows=rows,
        rules=table_rules,
        result=total,
        success={_rule(result): bool(result.success) for result in total.results},
        unexpected={_rule(result): int(result.result.get("unexpected_count") or 0) for result in total.results},
    )


def _merge(total: Any, other: Any) -> Any:
    """Add a chunk's results to those of the chunks before it."""
    others = {_rule(result): result for result in other.results}
    for mine in total.results:
        theirs = others[_rule(mine)]
        mine.success = bool(mine.success and theirs.success)
        mine.result = _sum(mine.result, theirs.result)
    _count(total)
    return total


def _count(total: Any) -> None:
    total.success = all(result.success for result in total.results)
    kept = sum(bool(result.success) for result in total.results)
    total.statistics.update(
        successful_expectations=kept,
        unsuccessful_expectations=len(total.results) - kept,
        evaluated_expectations=len(total.results),
        success_percent=100.0 * kept / max(1, len(total.results)),
    )


def _sum(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    merged = dict(mine)
    for name in ("element_count", "unexpected_count", "missing_count"):
        if name in mine:
            merged[name] = mine[name] + theirs.get(name, 0)
    if "unexpected_count" in merged:
        merged["partial_unexpected_list"] = [
            *mine.get("partial_unexpected_list", []),
            *theirs.get("partial_unexpected_list", []),
        ][:EXAMPLES]
        count, rows = merged["unexpected_count"], max(1, merged["element_count"])
        there = max(1, merged["element_count"] - merged.get("missing_count", 0))
        merged["unexpected_percent"] = 100.0 * count / there
        if "missing_count" in merged:
            merged["missing_percent"] = 100.0 * merged["missing_count"] / rows
            merged["unexpected_percent_total"] = 100.0 * count / rows
            merged["unexpected_percent_nonmissing"] = 100.0 * count / there
    elif isinstance(mine.get("observed_value"), int):
        merged["observed_value"] = mine["observed_value"] + theirs["observed_value"]
    return merged
