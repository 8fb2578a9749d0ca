"""The course of a stream: prequential AUC and PCOC of its domains over the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..evaluation.plots import COLOURS, INK, QUIET, canvas, few_ticks, short
from .prequential import OVERALL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PCOC = (0.25, 4.0)  # of the axis: what lies beyond, as at the start of a stream, is beyond the picture
FEW = 10  # positives of a domain in a window, below which it has no point
MEASURES = {"auc": "AUC", "pcoc": "PCOC"}


def course(windows: pd.DataFrame) -> Figure:
    """AUC and PCOC of each window, overall and for the largest domains, in the order of the stream.

    PCOC is on a scale of logarithms. A domain has no point in a window in which it has fewer than ten positives.

    Args:
        windows: as :func:`.prequential.windows` returns them.
    """
    return compared({"": windows})


def compared(runs: Mapping[str, pd.DataFrame], *, of: str = "prequential") -> Figure:
    """The same of several runs over one stream, a column each, with one scale for all.

    Args:
        runs: name -> windows.
        of: what the metrics are of.
    """
    figure, axes = canvas(1.6 + 6.0 * len(runs), 7.0, columns=len(runs), rows=(1, 1))
    for column, (name, windows) in enumerate(runs.items()):
        for row, measure in enumerate(MEASURES):
            _lines(axes[row * len(runs) + column], windows, measure)
        if name:
            axes[column].set_title(name, loc="left", fontsize=10, color=QUIET)
    for row, (measure, label) in enumerate(MEASURES.items()):
        of_row = axes[row * len(runs) : (row + 1) * len(runs)]
        low, high = min(a.get_ylim()[0] for a in of_row), max(a.get_ylim()[1] for a in of_row)
        if measure == "pcoc":
            low, high = PCOC
        for each in of_row:
            each.set_ylim(low, high)
        of_row[0].set_ylabel(f"{of} {label}")
    for each in axes[-len(runs) :]:
        each.set_xlabel("rows of the stream, thousands")
    axes[len(runs) - 1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="domain", fontsize=9)
    return figure


def _lines(axes: Axes, windows: pd.DataFrame, measure: str) -> None:
    named = windows[~windows["domain"].str.startswith("(")]
    largest = named.groupby("domain")["rows"].sum().sort_values(ascending=False, kind="stable")
    for name, colour in zip(largest.index[: len(COLOURS)], COLOURS, strict=False):
        part = named[named["domain"] == name]
        axes.plot(
            _begin(part),
            part[measure].where(part["positives"] >= FEW),
            color=colour,
            linewidth=1.1,
            label=short(str(name)),
        )
    overall = windows[windows["domain"] == OVERALL]
    axes.plot(_begin(overall), overall[measure], color=INK, linewidth=1.8, label="overall")
    if measure == "pcoc":
        axes.axhline(1.0, color=QUIET, linewidth=1, zorder=0)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(few_ticks(8, whole=True))


def _begin(part: pd.DataFrame) -> pd.Series:
    """Where a line's window begins, in thousands of rows."""
    return part["first_row"] / 1000
