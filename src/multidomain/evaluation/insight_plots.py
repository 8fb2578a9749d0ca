"""The pictures of what a model learnt: maps, lines and distances, a line for each domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .insights import Array, Insight, Summary

WRITTEN_IN = 12, 20  # columns and lines, at most, of a map whose numbers stand in its cells


def heat_map(summary: Summary, insight: Insight) -> Figure:
    """Domains against columns, one map per panel, all on one colour scale."""
    values, names = summary.values, [plots.short(name) for name in summary.domains]
    if summary.overall is not None:
        values, names = np.concatenate([values, summary.overall[None]]), [*names, "overall"]
    lines, panels, columns = values.shape
    across = min(panels, 2 if columns > WRITTEN_IN[0] else 3)
    down = -(-panels // across)
    written = panels == 1 and columns <= WRITTEN_IN[0] and lines <= WRITTEN_IN[1]
    width = 2.6 + across * min(0.62 * columns if written else max(0.3 * columns, 3.0), 9.0)
    height = down * (1.2 + (0.24 if lines > 12 else 0.3) * max(lines, 3))
    figure, axes = plots.canvas(width, height, columns=across, rows=(1,) * down)
    top = float(values.max(initial=0)) or 1.0
    for number, each in enumerate(np.atleast_1d(axes)):
        if number >= panels:
            each.set_visible(False)
            continue
        picture = _map(each, values[:, number], summary.columns, top)
        each.set_yticks(np.arange(lines), names)
        each.tick_params(labelleft=number % across == 0)
        if written:
            _write_in(each, values[:, 0], top)
        each.set_title(summary.panels[number], loc="left", fontsize=10, color=plots.QUIET)
        if number + across < panels:  # another one below has the names
            each.tick_params(labelbottom=False)
        else:
            each.set_xlabel(insight.axis or insight.column)
        if summary.overall is not None:
            each.axhline(lines - 1.5, color=plots.INK, linewidth=1)
    figure.colorbar(picture, ax=axes, label=insight.unit, shrink=min(1, 4 / height), aspect=20, anchor=(0, 1))
    return figure


def lines(summary: Summary, insight: Insight) -> Figure:
    """A line per domain against the columns; a heat map where the domains are more than the colours."""
    if len(summary.domains) > len(plots.COLOURS):
        return heat_map(summary, insight)
    figure, axes = plots.canvas(8.4, 4.4)
    place = np.arange(1, len(summary.columns) + 1)
    for name, values, colour in zip(summary.domains, summary.values[:, 0], plots.COLOURS, strict=False):
        axes.plot(place, values, color=colour, linewidth=1.6, marker="o", markersize=3, label=plots.short(name))
    if summary.overall is not None:
        axes.plot(place, summary.overall[0], color=plots.INK, linewidth=1.4, linestyle=(0, (5, 2)), label="overall")
    axes.set(xlabel=insight.axis or insight.column, ylabel=insight.unit)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(plots.few_ticks(10, whole=True))
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="domain", alignment="left", fontsize=10
    )
    return figure


def spread(summary: Summary, insight: Insight) -> Figure:
    """How far each domain's mean is from that of all, beside how far its rows are from its mean."""
    count = len(summary.domains)
    figure, axes = plots.canvas(8.4, 1.7 + (0.24 if count > 12 else 0.42) * max(count, 3))
    place = np.arange(count)
    for column, (colour, marker) in enumerate(((plots.COLOURS[1], "D"), (plots.COLOURS[0], "o"))):
        away = summary.values[:, 0, column]
        axes.scatter(away, place, s=42, color=colour, marker=marker, label=summary.columns[column], zorder=3)
    axes.set_yticks(place, [plots.short(name) for name in summary.domains])
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel(insight.unit)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=10)
    return figure


def _map(axes: Axes, values: Array, columns: Sequence[str], top: float) -> Any:
    """One heat map (lines, columns) from 0 to ``top``."""
    picture = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if columns[0].isdigit():
        step = -(-len(columns) // 16)
        axes.set_xticks(np.arange(len(columns))[::step], columns[::step])
    else:
        names = [plots.short(column, 18) for column in columns]
        axes.set_xticks(np.arange(len(columns)), names, rotation=60, ha="right", rotation_mode="anchor")
    return picture


def _write_in(axes: Axes, values: Array, top: float) -> None:
    """The numbers in the cells of a heat map."""
    digits = max(2, 1 - math.floor(math.log10(top)))
    for (line, column), value in np.ndenumerate(values):
        ink = "white" if value > 0.6 * top else plots.INK
        text = f"{value:.{digits}f}"
        cell = axes.text(column, line, text, ha="center", va="center", fontsize=8, color=ink)
        cell.set_in_layout(False)  # it is inside the axes; to measure it takes time
