"""A paper's table with ours beside theirs, as Markdown, HTML, Parquet and a picture."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..evaluation import plots, report
from ..evaluation.metrics import rela_impr
from .leaderboard import pcoc_range, spread
from .papers import SIZES, Column, PaperTable, Row
from .results import Result, by_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NONE = "–"
_RELATIVE: Mapping[str, Callable[[float, float], float]] = {
    "rela_impr": rela_impr,
    "ratio": lambda value, base: value / base - 1 if base else math.nan,
    "difference": lambda value, base: value - base,
    "multiple": lambda value, base: value / base if base else math.nan,
}


@dataclass(frozen=True)
class Value:
    """A number of ours: mean and standard deviation over seeds; nan where there is none."""

    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """A paper's table and what we have for it.

    Attributes:
        table: the paper's.
        results: by name of the row; rows that were not trained have none.
        sizes: by name of the row: ``parameters, parameters_rest, training_flops`` (per row of data), as far as wanted.
        domains: M of our data set.
        missing: name of a row that is left out -> why.
    """

    table: PaperTable
    results: Mapping[str, Sequence[Result]]
    sizes: Mapping[str, Mapping[str, float]]
    domains: int
    missing: Mapping[str, str]

    @classmethod
    def of(
        cls,
        table: PaperTable,
        results: Sequence[Result],
        *,
        sizes: Mapping[str, Mapping[str, float]],
        domains: int,
        missing: Mapping[str, str],
    ) -> SideBySide:
        """Group the results by row."""
        return cls(table=table, results=by_label(results), sizes=sizes, domains=domains, missing=missing)

    def value(self, row: Row, column: Column) -> Value:
        """Our number of a row: over seeds, each against the same seed of the row it is relative to."""
        found, base = self._by_seed(row, column), self.table.against(row, column)
        if base is not None:
            others = self._by_seed(base, column)
            found = {seed: _RELATIVE[column.how](v, others[seed]) for seed, v in found.items() if seed in others}
        values = np.array(list(found.values()), dtype=float)
        if not len(values):
            return Value(math.nan, math.nan)
        return Value(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan)

    def frame(self) -> pd.DataFrame:
        """One line per number: ``group, label, source`` (paper, ours), ``column, value, sd, text``."""
        lines: list[dict[str, Any]] = []
        for row in self.table.rows:
            where = {"group": row.group, "label": row.label}
            for name, printed in zip(self.table.theirs, row.paper, strict=True):
                number = float(printed) if isinstance(printed, int | float) else math.nan
                text = None if printed is None else _printed(printed)
                lines.append(
                    {**where, "source": "paper", "column": name, "value": number, "sd": math.nan, "text": text}
                )
            for column in self.table.ours:
                value, text = self.value(row, column), self.text(row, column)
                ours = {"column": column.name, "value": value.mean, "sd": value.sd, "text": text}
                lines.append({**where, "source": "ours", **ours})
        return pd.DataFrame(lines)

    def text(self, row: Row, column: Column) -> str:
        """Our number as it is shown."""
        value = self.value(row, column)
        if math.isnan(value.mean):
            return NONE
        if self.table.against(row, column) is not None:
            return _relative(column.how, value)
        if column.metric == "training_flops":
            return f"{value.mean / 1e6:,.3f} M"
        return f"{value.mean:,.0f}" if column.metric in SIZES else spread(value.mean, value.sd)

    def grid(self) -> tuple[list[str], list[list[str]]]:
        """Heading and lines, in the paper's layout: models below one another, or side by side."""
        names = [f"paper: {name}" for name in self.table.theirs] + [
            f"ours: {column.name}" for column in self.table.ours
        ]
        cells = [
            [_printed(value) for value in row.paper] + [self.text(row, column) for column in self.table.ours]
            for row in self.table.rows
        ]
        if self.table.across:
            head = ["", *(row.name for row in self.table.rows)]
            return head, [[name, *line] for name, *line in zip(names, *cells, strict=True)]
        grouped = any(row.group for row in self.table.rows)
        body = [[*([row.group or ""] if grouped else []), row.label, *line] for row, line in self._lines(cells)]
        return [*(["group"] if grouped else []), "model", *names], body

    def sentences(self, ours: str) -> list[str]:
        """What must be said below the table: that the data differs, which domains the columns are, what is left out."""
        said = [
            f"The data differs: the paper's is {self.table.data}; ours is {ours}. Compare the order of the "
            "models and the size of the differences, not the numbers."
        ]
        if self.table.trained:
            seeds = sorted({result.seed for each in self.results.values() for result in each})
            several = "mean ± standard deviation over the seeds" if len(seeds) > 1 else "the seed"
            said.append(f"Ours: {several} {', '.join(map(str, seeds))}.")
        else:
            said.append("Ours: counted, nothing was trained.")
        if domains := list(self._domain_names()):
            said.append("Of ours, " + ", ".join(f"{name} is the domain {domain}" for name, domain in domains) + ".")
        if any(value is None for row in self.table.rows for value in row.paper):
            said.append(f"{NONE} in a column of the paper: not printed as a number there.")
        for why in dict.fromkeys(self.missing.values()):
            names = ", ".join(name for name, reason in self.missing.items() if reason == why)
            said.append(f"Left out, as {why}: {names}.")
        return [*said, *self.table.notes]

    def _lines(self, cells: Sequence[list[str]]) -> Iterator[tuple[Row, list[str]]]:
        return zip(self.table.rows, cells, strict=True)

    def _by_seed(self, row: Row, column: Column) -> dict[int, float]:
        """Seed -> value; what was counted and not trained has the one seed 0."""
        if column.metric == "terms":
            return (
                {0: float(sum(self.domains if term == "M" else int(term) for term in row.terms))} if row.terms else {}
            )
        if row.name in self.sizes:
            value = self.sizes[row.name].get(column.metric)
            return {} if value is None else {0: float(value)}
        found = {result.seed: _measured(result, column) for result in self.results.get(row.name, [])}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def _domain_names(self) -> Iterator[tuple[str, str]]:
        some = next((each[0] for each in self.results.values() if each), None)
        for column in self.table.ours:
            if column.domain is not None and some is not None and column.against is None:
                yield column.name, _domain(some, column.domain) or f"{NONE} (there are fewer)"


def write(folder: Path, sides: SideBySide, *, ours: str, facts: Mapping[str, str]) -> None:
    """Write ``table.md``, ``table.html``, ``table.parquet`` and, for a figure, ``figure.png``.

    Args:
        folder: an existing folder.
        sides: the table.
        ours: what our numbers were measured on.
        facts: shown under the heading.
    """
    frame = sides.frame()
    frame.to_parquet(folder / "table.parquet", index=False)
    head, body = sides.grid()
    page = _html(head, body) + "".join(f"<p>{html.escape(text)}</p>" for text in sides.sentences(ours))
    if (plot := sides.table.plot) is not None:
        picture = folder / "figure.png"
        plots.save(draw(sides), picture)
        page += report.figure("As a figure", f"{plot['y']}, with the standard deviation over seeds.", picture)
    (folder / "table.md").write_text(markdown(sides, ours=ours, facts=facts), encoding="utf-8")
    text = report.document(title=sides.table.title, facts=facts, body=page)
    (folder / "table.html").write_text(text, encoding="utf-8")


def markdown(sides: SideBySide, *, ours: str, facts: Mapping[str, str]) -> str:
    """The table with its heading, its notes and its facts."""
    head, body = sides.grid()
    lines = [f"# {sides.table.title}", "", sides.table.paper, ""]
    lines += [_pipes(head), "|" + "---|" * len(head), *(_pipes(line) for line in body), ""]
    lines += [f"- {text}" for text in sides.sentences(ours)] + [""]
    if sides.table.plot is not None:
        lines += ["![the same as a figure](figure.png)", ""]
    return "\n".join([*lines, *(f"- {name}: {value}" for name, value in facts.items()), ""])


def draw(sides: SideBySide) -> Figure:
    """A figure: the paper's numbers, where any can be read, beside ours."""
    table = sides.table
    assert table.plot is not None
    column = next(one for one in table.ours if one.name == table.plot["y"])
    theirs = {row.name: _float(dict(zip(table.theirs, row.paper, strict=True)).get(column.name)) for row in table.rows}
    ours = {row.name: sides.value(row, column) for row in table.rows}
    panels = {"ours": ours}
    if any(not math.isnan(value) for value in theirs.values()):
        panels = {"paper": {name: Value(value, math.nan) for name, value in theirs.items()}, **panels}
    figure, axes = plots.canvas(4.6 * len(panels) + 1.2, 4.0, columns=len(panels))
    for each, (title, values) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        (_lines if table.plot["kind"] == "line" else _dots)(each, table, values)
        each.set_title(title, loc="left", fontsize=11)
        each.set(xlabel=table.plot["x"], ylabel=column.name)
    if any(text for text in np.atleast_1d(axes)[-1].get_legend_handles_labels()[1]):
        np.atleast_1d(axes)[-1].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _lines(axes: Axes, table: PaperTable, values: Mapping[str, Value]) -> None:
    """One line per group over the rows' labels."""
    labels = list(dict.fromkeys(row.label for row in table.rows))
    for colour, group in zip(plots.COLOURS, dict.fromkeys(row.group for row in table.rows), strict=False):
        rows = [row for row in table.rows if row.group == group]
        place = [labels.index(row.label) for row in rows]
        _points(axes, place, [values[row.name] for row in rows], color=colour, label=group or "")
    axes.set_xticks(range(len(labels)), labels)


def _dots(axes: Axes, table: PaperTable, values: Mapping[str, Value]) -> None:
    """One place per group, one colour per label."""
    groups = list(dict.fromkeys(row.group or row.label for row in table.rows))
    labels = list(dict.fromkeys(row.label for row in table.rows)) if any(row.group for row in table.rows) else [""]
    for number, (label, colour) in enumerate(zip(labels, plots.COLOURS, strict=False)):
        rows = [row for row in table.rows if label in ("", row.label)]
        shift = (number - (len(labels) - 1) / 2) * 0.5 / len(labels)
        place = [groups.index(row.group or row.label) + shift for row in rows]
        _points(axes, place, [values[row.name] for row in rows], color=colour, label=label, linestyle="none")
    axes.set_xticks(range(len(groups)), [plots.short(name, 16) for name in groups], rotation=30, ha="right")
    axes.set_xlim(-0.6, len(groups) - 0.4)


def _points(axes: Axes, place: Sequence[float], values: Sequence[Value], **style: Any) -> None:
    """Means with their standard deviations; what is not known has neither."""
    known = [(x, value) for x, value in zip(place, values, strict=True) if not math.isnan(value.mean)]
    x, mean = [x for x, _ in known], [value.mean for _, value in known]
    sd = np.nan_to_num([value.sd for _, value in known])
    axes.errorbar(x, mean, yerr=sd if sd.any() else None, marker="o", markersize=6, capsize=3, **style)


def _measured(result: Result, column: Column) -> float:
    if column.metric == "parameters":
        return float(result.about["parameters_embedding"] + result.about["parameters_rest"])
    if column.metric == "parameters_rest":
        return float(result.about["parameters_rest"])
    if column.metric == "pcoc_range":
        return pcoc_range(result.metrics)
    if column.domain is None:
        return _float(result.metrics["overall"].get(column.metric))
    name = _domain(result, column.domain)
    return math.nan if name is None else _float(result.metrics["domains"][name].get(column.metric))


def _domain(result: Result, number: int) -> str | None:
    names = list(result.metrics["domains"])
    return names[number - 1] if 0 < number <= len(names) else None


def _relative(how: str, value: Value) -> str:
    if how == "difference":
        return f"{value.mean:+.4f}" + ("" if math.isnan(value.sd) else f" ± {value.sd:.4f}")
    return f"{value.mean:.2f} ×" if how == "multiple" else spread(value.mean, value.sd, percent=True)


def _printed(value: Any) -> str:
    """A value of the paper as it stands there; a number keeps at least four decimals if it has any."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"
    return str(value)


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _html(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = "".join(
        f"<tr><th>{html.escape(line[0])}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line[1:])}</tr>"
        for line in body
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
