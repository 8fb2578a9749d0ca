"""Drift as tables, pictures and one page: which features moved between splits, and how domains differ."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import drift as measured
from . import plots, report
from .drift import AGAINST_OTHERS, AGAINST_TRAIN, Drift

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .drift import Array

LITTLE = 0.1
TOP = 2 * measured.SIGNIFICANT  # of the colours: what is significant is in the darker half
WRITTEN = 400  # cells of a heat map that can still be read
FEATURES = 60  # at most in the bar chart
_DOMAINS = (
    "Each domain's training rows against those of all other domains. The darker half of the colours is above 0.25, in "
    "common use a significant shift; a dot stands for what chance alone can do (in 95 of 100 cases). "
    "Features with large values are what tells the domains apart; of ids, the 50 most frequent are told apart, no more."
)
_SPLITS = (
    "Over all rows: bars are the test split, circles the validation split, each against the training rows; a grey line "
    "is what chance alone can do. Dotted: 0.1 and 0.25, in common use the ends of little and of moderate."
)
_LABELS = "Rows and the label's rate, split by split."


def write(folder: Path, drift: Drift, *, title: str, facts: Mapping[str, str]) -> None:
    """Write ``psi.parquet``, ``labels.parquet``, ``domains.png``, ``splits.png``, and ``report.html`` that embeds both.

    Args:
        folder: an existing folder.
        drift: what was measured.
        title: the page's heading.
        facts: name -> value, shown under the heading.
    """
    drift.psi.to_parquet(folder / "psi.parquet", index=False)
    drift.labels.to_parquet(folder / "labels.parquet", index=False)
    plots.save(between_splits(drift), folder / "splits.png")
    plots.save(between_domains(drift), folder / "domains.png")
    pictures = [
        ("Test and validation against training", _SPLITS, folder / "splits.png"),
        ("Domains against each other", _DOMAINS, folder / "domains.png"),
    ]
    body = "".join(report.figure(*picture) for picture in pictures) + _labels(drift)
    (folder / "report.html").write_text(report.document(title=title, facts=facts, body=body), encoding="utf-8")


def between_splits(drift: Drift) -> Figure:
    """PSI of each feature over all rows, test and validation against training, the largest on top."""
    overall = drift.psi[drift.psi.domain.isna()]
    test, validation = (
        overall[overall.comparison == AGAINST_TRAIN[split]].set_index("feature") for split in ("test", "validation")
    )
    test = test.sort_values("psi", ascending=False, kind="stable")[:FEATURES]
    validation, place = validation.reindex(test.index), np.arange(len(test))
    figure, axes = plots.canvas(8.4, 1.5 + (0.24 if len(test) > 12 else 0.36) * max(len(test), 3))
    axes.barh(place, test.psi, height=0.62, color=plots.COLOURS[0], label="test", zorder=2)
    axes.scatter(validation.psi, place, s=28, color=plots.COLOURS[4], edgecolor=plots.INK, label="validation", zorder=4)
    axes.vlines(test.chance, place - 0.4, place + 0.4, color=plots.QUIET, linewidth=1.2, label="chance", zorder=3)
    for bound in (LITTLE, measured.SIGNIFICANT):
        axes.axvline(bound, color=plots.INK, linewidth=1, linestyle=":", zorder=1)
    for y, value in zip(place, test.psi, strict=True):
        text = "–" if np.isnan(value) else f"{value:.3f}"
        axes.annotate(text, (1.012, y), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=plots.INK)
    axes.set_yticks(place, [plots.short(name) for name in test.index])
    axes.set_ylim(len(test) - 0.4, -0.6)
    axes.set_xlim(0, 1.05 * float(np.nanmax([0.3, *test.psi, *validation.psi])))
    axes.set_xlabel("population stability index against the training rows")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=10)
    return figure


def between_domains(drift: Drift) -> Figure:
    """PSI of each feature in each domain (beyond 50 the largest) against the other domains, as a heat map."""
    rows = drift.psi[(drift.psi.comparison == AGAINST_OTHERS) & drift.psi.domain.isin(_largest(drift))]
    table = rows.pivot(index="domain", columns="feature", values="psi")
    table = table.reindex(index=rows.domain.unique(), columns=rows.feature.unique())
    by_chance = rows.pivot(index="domain", columns="feature", values="chance").reindex_like(table) >= table
    values = table.to_numpy(dtype=float)
    lines, columns = values.shape
    height = 2.0 + 0.28 * max(lines, 4)
    figure, axes = plots.canvas(2.6 + 0.46 * max(columns, 6), height)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor(plots.LIGHT)  # seen where there is no value
    picture = axes.imshow(values, cmap="Blues", vmin=0, vmax=TOP, aspect="auto", interpolation="nearest")
    _write_in(axes, values, by_chance.to_numpy())
    names = [plots.short(str(name), 22) for name in table.columns]
    axes.set_xticks(np.arange(columns), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(lines), [plots.short(str(name)) for name in table.index])
    axes.tick_params(length=0)
    shrink = min(1, 4 / height)
    figure.colorbar(
        picture, ax=axes, label="PSI against the other domains", extend="max", shrink=shrink, aspect=20, anchor=(0, 1)
    )
    return figure


def _write_in(axes: Axes, values: Array, by_chance: Array) -> None:
    """A dot where chance explains the value; elsewhere the number, unless the cells are too many to be read."""
    dots = np.argwhere(by_chance)
    axes.scatter(dots[:, 1], dots[:, 0], s=3, color=plots.QUIET)
    for (line, column), value in np.ndenumerate(values):
        if values.size <= WRITTEN and not by_chance[line, column]:
            text, ink = "–" if np.isnan(value) else _number(value), "white" if value > 0.6 * TOP else plots.INK
            cell = axes.text(column, line, text, ha="center", va="center", fontsize=7.5, color=ink)
            cell.set_in_layout(False)  # it is inside the axes; to measure it takes time


def _number(value: float) -> str:
    """At most four characters."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}".removeprefix("0")


def _largest(drift: Drift, count: int = report.LARGEST) -> list[str]:
    """The domains with the most rows of all splits, in the order of the domains, none of them empty."""
    rows = drift.labels.dropna(subset="domain").groupby("domain", sort=False).rows.sum()
    kept = set(rows[rows > 0].sort_values(ascending=False, kind="stable").index[:count])
    return [str(name) for name in rows.index if name in kept]


def _labels(drift: Drift) -> str:
    """The table of the label's rates."""
    shown, splits = _largest(drift), list(drift.labels.split.unique())
    head = "".join(f"<th>{split}: rows</th><th>rate</th>" for split in splits)
    columns = (drift.labels[name] for name in ("split", "domain", "rows", "rate"))
    cells = {
        (split, None if pd.isna(domain) else domain): _cells(rows, rate)
        for split, domain, rows, rate in zip(*columns, strict=True)
    }
    lines = []
    for name in [*shown, None]:
        style, called = (' class="overall"', "overall") if name is None else ("", name)
        found = "".join(cells[split, name] for split in splits)
        lines.append(f"<tr{style}><th>{html.escape(called)}</th>{found}</tr>")
    left = int(drift.labels.domain.nunique()) - len(shown)
    note = f" {left:,} smaller or empty domains are in labels.parquet." if left else ""
    table = f"<table><thead><tr><th>domain</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<section><h2>The label</h2><p>{_LABELS}{note}</p><div class="wide">{table}</div></section>'


def _cells(rows: int, rate: float) -> str:
    return f"<td>{rows:,}</td><td>{'–' if pd.isna(rate) else f'{rate:.4f}'}</td>"
