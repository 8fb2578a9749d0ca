"""The pictures of a scored split: ROC, calibration and PCOC per domain, and the training history.

PCOC per domain follows Fig. 7 of the STAR paper (§4.3.4): one circle per domain, the closer to 1.0 the better.
Colours are Okabe and Ito's, told apart with every common colour blindness; where there are more domains than
colours, position or a perceptually even scale carries the difference instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import report

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A7400", "#5B5B5B")
INK, QUIET, LIGHT = "#1b1b1f", "#6b6b76", "#d6d6dd"
POINTS = 400  # of a drawn curve
BINS = 10  # of a calibration curve, each with the same number of rows
INTERVAL = 1.96  # standard errors on either side: 95 %

Array = npt.NDArray[Any]


def write(
    folder: Path,
    *,
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    history: pd.DataFrame,
    title: str,
    facts: Mapping[str, str],
    account: Account | None = None,
) -> None:
    """Write ``roc.png``, ``calibration.png``, ``pcoc.png``, ``scores.png``, ``history.png`` and ``report.html``.

    The page embeds them. With an account, ``segments.png`` too, and its tables on the page.

    Args:
        folder: an existing folder.
        predictions: columns ``domain``, ``label``, ``score``, one row per impression.
        metrics: as :func:`report.evaluate` returns them.
        history: one row per epoch: ``epoch``, ``train_loss``, ``validation_loss``, ``validation_auc``.
        title: what was evaluated.
        facts: shown on top of the page.
        account: (segments, about, cost), see :mod:`.account`.
    """
    from . import account_page

    rows = _by_domain(predictions, report.largest(metrics))
    overall = predictions["label"].to_numpy(), predictions["score"].to_numpy()
    figures = {
        "roc": roc(overall, rows, metrics),
        "calibration": calibration(overall, rows),
        "pcoc": pcoc(overall, rows),
        "scores": account_page.distributions(rows),
        "history": training(history),
    }
    if account is not None:
        figures["segments"] = account_page.segments(account[0])
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    pictures = [
        (heading, text, folder / f"{name}.png") for name, (heading, text) in _CAPTIONS.items() if name in figures
    ]
    more = "" if account is None else account_page.sections(*account)
    html = report.page(metrics, title=title, facts=facts, pictures=pictures, more=more)
    (folder / "report.html").write_text(html, "utf-8")


_CAPTIONS = {
    "pcoc": (
        "Predicted over observed rate (PCOC) per domain",
        "Mean score over mean label, one circle per domain; its area grows with the domain's rows and the bar is the "
        "95 % interval of chance. At 1 the predictions are right on average, above 1 they promise too much.",
    ),
    "calibration": (
        "Calibration",
        "Rows in ten bins of equal size by score: the observed share of positives against the mean score. "
        "On the diagonal a score is a probability.",
    ),
    "roc": (
        "ROC per domain",
        "True positives against false positives as the threshold falls; further up and left is better.",
    ),
    "scores": (
        "Scores of clicked and other impressions",
        "The middle half of the scores as a bar, its median, and from the 5th to the 95th percentile as a line. The "
        "farther the two of a domain lie apart, the better the model tells them apart.",
    ),
    "segments": (
        "AUC by segment",
        "Users and items by their impressions in the training split, and days: AUC with its 95 % interval; dotted: "
        "overall; orange: the reference.",
    ),
    "history": ("Training", "Loss and AUC after each epoch. The weights of the best epoch are the ones kept."),
}
Rows = Mapping[str, tuple[Array, Array]]
Account = tuple["pd.DataFrame", Mapping[str, Any], Mapping[str, Any]]


def roc(overall: tuple[Array, Array], domains: Rows, metrics: Mapping[str, Any]) -> Figure:
    """ROC curves, overall and per domain; a domain with one class has none."""
    drawn = {name: rows for name, rows in domains.items() if metrics["domains"][name]["auc"] is not None}
    auc = {name: metrics["domains"][name]["auc"] for name in drawn}
    figure, axes = canvas(8.4 if len(drawn) <= len(COLOURS) else 7.6, 5.6)
    axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=1, zorder=1)
    axes.annotate("chance", (0.93, 0.91), color=QUIET, fontsize=9, rotation=45, ha="center", va="center")
    if len(drawn) <= len(COLOURS):
        for (name, (label, score)), colour in zip(drawn.items(), COLOURS, strict=False):
            axes.plot(*roc_curve(label, score), color=colour, linewidth=1.6, label=f"{short(name)}  {auc[name]:.3f}")
    else:
        _by_colour_scale(figure, axes, drawn, auc)
    if metrics["overall"]["auc"] is not None:
        value = metrics["overall"]["auc"]
        axes.plot(*roc_curve(*overall), color=INK, linewidth=1.4, linestyle=(0, (5, 2)), label=f"overall  {value:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if len(drawn) <= len(COLOURS):
        _legend(axes, "AUC")
    else:
        axes.legend(loc="lower right", frameon=False, title="AUC", fontsize=10)
    return figure


def calibration(overall: tuple[Array, Array], domains: Rows) -> Figure:
    """Observed rate against mean score in bins of equal size, with the distribution of scores below."""
    few = len(domains) <= len(COLOURS)
    figure, (axes, below) = canvas(8.4 if few else 6.6, 6.6, rows=(4, 1))
    curves = {name: calibration_curve(*rows) for name, rows in domains.items()}
    top = 1.0 if len(overall[1]) == 0 else _ceiling([calibration_curve(*overall), *(curves.values() if few else ())])
    axes.plot([0, top], [0, top], color=QUIET, linewidth=1, linestyle=":", zorder=1, label="score = rate")
    for index, (name, (mean, rate)) in enumerate(curves.items()):
        style = {"color": COLOURS[index], "marker": "o", "label": short(name)} if few else {"color": LIGHT}
        axes.plot(mean, rate, linewidth=1.3 if few else 0.8, markersize=4, **style)
    label = "overall" if few else "overall (grey: each domain)"
    axes.plot(
        *calibration_curve(*overall),
        color=INK,
        linewidth=2,
        linestyle=(0, (5, 2)),
        marker="o",
        markersize=4,
        label=label,
    )
    axes.set(xlim=(0, top), ylim=(0, top), ylabel="observed share of positives")
    axes.tick_params(labelbottom=False)
    if few:
        _legend(axes, "domain")
    else:
        axes.legend(loc="upper left", frameon=False)
    below.hist(overall[1], bins=np.linspace(0, top, 51), color=QUIET)
    below.set(xlim=(0, top), xlabel="score (predicted probability)", ylabel="rows")
    below.yaxis.set_major_locator(few_ticks(2))
    return figure


def pcoc(overall: tuple[Array, Array], domains: Rows) -> Figure:
    """Mean score over mean label of each domain, as Fig. 7 of the STAR paper; domains without positives have none."""
    drawn = {name: rows for name, rows in domains.items() if rows[0].sum() > 0}
    ratio = np.array([score.mean() / label.mean() for label, score in drawn.values()])
    # Standard error of the ratio: were the scores the true rates, positives would vary by sqrt(sum p(1-p)).
    spread = ratio * np.array([np.sqrt((s * (1 - s)).sum()) / y.sum() for y, s in drawn.values()])
    size = np.array([len(label) for label, _ in drawn.values()], dtype=float)
    many = len(drawn) > 12
    place = np.arange(len(drawn))
    figure, axes = canvas(8.4, 1.5 + (0.24 if many else 0.42) * max(len(drawn), 3))
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    axes.axvspan(0.95, 1.05, color=LIGHT, alpha=0.35, linewidth=0, zorder=0)
    if len(drawn):
        axes.errorbar(ratio, place, xerr=INTERVAL * spread, fmt="none", ecolor=QUIET, elinewidth=1, capsize=2, zorder=2)
        axes.scatter(ratio, place, s=30 + 150 * size / size.max(), color=COLOURS[0], edgecolor="white", zorder=3)
        reach = (
            max(0.1, float(np.quantile(np.abs(ratio - 1) + INTERVAL * spread, 0.95)), float(np.abs(ratio - 1).max()))
            * 1.05
        )
        axes.set_xlim(max(0, 1 - reach), 1 + reach)
        for x, y in zip(ratio, place, strict=True):
            axes.annotate(
                f"{x:.3f}", (1.012, y), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK
            )
    axes.set_yticks(place, [short(name) for name in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlabel("PCOC: mean score / mean label (shaded: within 5 %)")
    axes.tick_params(axis="y", length=0)
    if overall[0].sum() > 0:
        axes.set_title(f"overall {overall[1].mean() / overall[0].mean():.3f}", loc="left", fontsize=10, color=QUIET)
    return figure


def training(history: pd.DataFrame) -> Figure:
    """Loss and validation AUC by epoch; the best epoch is marked."""
    figure, (left, right) = canvas(8.4, 3.6, columns=2)
    epoch = history["epoch"].to_numpy()
    marker = {"marker": "o", "markersize": 4, "linewidth": 1.6}
    left.plot(epoch, history["train_loss"], color=COLOURS[1], label="train", **marker)
    left.plot(epoch, history["validation_loss"], color=COLOURS[0], label="validation", **marker)
    left.set(xlabel="epoch", ylabel="log loss (nats per impression)")
    left.legend(frameon=False)
    auc = history["validation_auc"].to_numpy(dtype=float)
    right.plot(epoch, auc, color=COLOURS[0], **marker)
    right.set(xlabel="epoch", ylabel="validation AUC")
    if len(auc) and not np.isnan(auc).all():
        best = int(np.nanargmax(auc))
        right.plot(epoch[best], auc[best], marker="o", markersize=9, markerfacecolor="none", color=INK)
        right.set_title(f"best {auc[best]:.4f}, epoch {epoch[best]}", loc="left", fontsize=10, color=QUIET)
        for axes in (left, right):
            axes.axvline(epoch[best], color=LIGHT, linewidth=1, zorder=0)
    for axes in (left, right):
        axes.xaxis.set_major_locator(few_ticks(8, whole=True))
    return figure


def roc_curve(label: Array, score: Array, points: int = POINTS) -> tuple[Array, Array]:
    """False and true positive rates as the threshold falls, rows of one score taken together, thinned to ``points``."""
    order = np.argsort(-score, kind="stable")
    label, score = label[order], score[order]
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))
    positive = np.cumsum(label, dtype=np.float64)[last]
    negative = last + 1 - positive
    true = np.concatenate([[0.0], positive / max(positive[-1], 1)])
    false = np.concatenate([[0.0], negative / max(negative[-1], 1)])
    if len(true) > points:
        kept = np.unique(np.searchsorted(true + false, np.linspace(0, 2, points)).clip(0, len(true) - 1))
        true, false = true[kept], false[kept]
    return false, true


def calibration_curve(label: Array, score: Array, bins: int = BINS) -> tuple[Array, Array]:
    """Mean score and observed rate of at most ``bins`` bins of equal size by score."""
    order = np.argsort(score, kind="stable")
    parts = np.array_split(order, min(bins, max(len(order), 1)))
    parts = [part for part in parts if len(part)]
    return np.array([score[part].mean() for part in parts]), np.array([label[part].mean() for part in parts])


def _by_domain(predictions: pd.DataFrame, names: Sequence[str]) -> Rows:
    """(label, score) of each named domain, in that order."""
    kept = predictions[predictions["domain"].isin(set(names))]
    parts = {str(name): part for name, part in kept.groupby("domain", observed=True, sort=False)}
    return {name: (parts[name]["label"].to_numpy(), parts[name]["score"].to_numpy()) for name in names}


def _by_colour_scale(figure: Figure, axes: Axes, drawn: Rows, auc: Mapping[str, float]) -> None:
    from matplotlib import cm, colors

    norm = colors.Normalize(min(auc.values()), max(auc.values()))
    colours = cm.ScalarMappable(norm=norm, cmap="viridis_r")

    def scale(value: float) -> Any:
        return colours.cmap(norm(value))

    for name, (label, score) in drawn.items():
        axes.plot(*roc_curve(label, score), color=scale(auc[name]), linewidth=0.9, alpha=0.9)
    ranked = sorted(auc, key=lambda name: auc[name])
    for name, which in ((ranked[-1], "highest"), (ranked[0], "lowest")):
        axes.plot([], [], color=scale(auc[name]), label=f"{which}: {short(name)}  {auc[name]:.3f}")
    figure.colorbar(colours, ax=axes, label=f"AUC of each of {len(drawn)} domains", shrink=0.8)


def canvas(width: float, height: float, *, columns: int = 1, rows: tuple[int, ...] = (1,)) -> tuple[Figure, Any]:
    """A figure that belongs to no window system, with quiet axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": rows}).ravel()
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#ececf1", linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes[0] if len(axes) == 1 else axes


def save(figure: Figure, path: Path) -> None:
    """Write a PNG that is the same byte for byte whenever the picture is."""
    figure.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})


def _legend(axes: Axes, title: str) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title=title, alignment="left", fontsize=10)


def _ceiling(curves: Sequence[tuple[Array, Array]]) -> float:
    """The upper end of both axes: one, or less where scores and rates stay small."""
    highest = max((float(max(mean.max(), rate.max())) for mean, rate in curves if len(mean)), default=1.0)
    return 1.0 if highest > 0.5 else highest * 1.15 or 1.0


def few_ticks(count: int, *, whole: bool = False) -> Any:
    """At most about ``count`` ticks, at whole numbers if so wished."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=whole)


def short(name: str, length: int = 28) -> str:
    """A name as it fits beside an axis."""
    return name if len(name) <= length else name[: length - 1] + "…"
