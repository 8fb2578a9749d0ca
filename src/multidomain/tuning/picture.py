"""How a search went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..evaluation.plots import COLOURS, INK, LIGHT, canvas, few_ticks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def course(trials: pd.DataFrame) -> Figure:
    """Validation AUC of each trial, and the best so far; trials that were stopped early are hollow."""
    rows = trials.dropna(subset=["validation_auc"]).sort_values("trial")
    figure, axes = canvas(8.4, 3.8)
    stopped = rows["state"] == "pruned"
    number, score = rows["trial"], rows["validation_auc"]
    axes.step(number, score.cummax(), where="post", color=LIGHT, linewidth=2, label="best so far")
    axes.scatter(number[~stopped], score[~stopped], color=COLOURS[0], zorder=3, label="trial")
    axes.scatter(
        number[stopped], score[stopped], facecolor="none", edgecolor=COLOURS[0], zorder=3, label="stopped early"
    )
    if len(rows):
        best = score.idxmax()
        axes.scatter(number[best], score[best], s=110, facecolor="none", edgecolor=INK, zorder=4, label="best")
    axes.set(xlabel="trial", ylabel="validation AUC")
    axes.xaxis.set_major_locator(few_ticks(10, whole=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=10)
    return figure
