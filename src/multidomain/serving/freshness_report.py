"""Freshness as tables, pictures and one page, in the terminal, and as a run in MLflow."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import tracking
from ..evaluation import drift, plots, report
from ..evaluation.drift_report import FEATURES, LITTLE
from ..schema import Variant
from .freshness import AGAINST_FRAME, AGAINST_TABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

COUNTS = ("keys", "absent", "behind", "pushed", "differing")
WIDEST = 1.0  # PSI that is drawn; beyond it a circle is at the edge, and the number says how far
_AGES = (
    "Hours from the newest value of each view online to the time it is held against; the dotted line is the age that "
    "is allowed. Profiles have no time of their own."
)
_VIEWS = (
    "Of the drawn impressions' keys that the view's table knows: how many are absent online, have an older value "
    "there than the table, one that was pushed since the table ends, or another value of the same time."
)
_VALUES = (
    "Population stability index of what is online for the drawn impressions: bars against their keys' latest rows in "
    "the view tables, 0 where everything is loaded; circles against the rows of the same impressions in the training "
    "frame, as known then. The numbers are both. Dotted: 0.1 and 0.25, in common use the ends of little and of "
    "moderate."
)


def write(folder: Path, found: Mapping[str, Any], *, title: str, limit: float) -> None:
    """Write ``views.parquet``, ``features.parquet``, ``ages.png``, ``values.png``, and ``report.html`` with both.

    Args:
        folder: an existing folder.
        found: the report of ``measure_freshness``.
        title: the page's heading.
        limit: hours that a view's newest value may be old.
    """
    views, features = pd.DataFrame(found["views"]), pd.DataFrame(found["features"])
    views.to_parquet(folder / "views.parquet", index=False)
    features.to_parquet(folder / "features.parquet", index=False)
    plots.save(ages(views, limit), folder / "ages.png")
    plots.save(values(features), folder / "values.png")
    facts = {
        "held against": found["at"] or "the newest row of each view's table",
        "impressions": f"{found['rows']:,} of the {found['split']} split",
        "online store": found["store"],
    }
    body = report.figure("Age of the newest value online", _AGES, folder / "ages.png") + _table(found["views"])
    body += report.figure("Values online against values offline", _VALUES, folder / "values.png")
    (folder / "report.html").write_text(report.document(title=title, facts=facts, body=body), encoding="utf-8")


def ages(views: pd.DataFrame, limit: float) -> Figure:
    """Hours of each view, from above in the order of the table."""
    place, hours = np.arange(len(views)), views.age_hours.to_numpy(dtype=float)
    figure, axes = plots.canvas(8.4, 1.5 + 0.42 * max(len(views), 3))
    axes.barh(place, np.nan_to_num(hours), height=0.62, color=plots.COLOURS[0], zorder=2)
    axes.axvline(limit, color=plots.INK, linewidth=1, linestyle=":", zorder=1)
    for y, age, kind in zip(place, hours, views.kind, strict=True):
        text = f"{age:,.1f} h" if math.isfinite(age) else "no time" if kind == "profile" else "nothing"
        axes.annotate(text, (1.012, y), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=plots.INK)
    axes.set_yticks(place, [plots.short(name) for name in views.view])
    axes.set_ylim(len(views) - 0.4, -0.6)
    axes.set_xlim(0, 1.05 * max(1.0, limit, float(np.nan_to_num(hours).max(initial=0.0))))
    axes.set_xlabel("age of the newest value online, hours")
    axes.tick_params(axis="y", length=0)
    return figure


def values(features: pd.DataFrame) -> Figure:
    """PSI of each feature, against the view tables and against the training frame, the largest of the former on top."""
    wide = features.pivot(index="feature", columns="comparison", values="psi").astype(float)
    wide = wide.sort_values([AGAINST_TABLES, AGAINST_FRAME], ascending=False, kind="stable")[:FEATURES]
    place = np.arange(len(wide))
    figure, axes = plots.canvas(8.4, 1.5 + (0.24 if len(wide) > 12 else 0.36) * max(len(wide), 3))
    axes.barh(place, wide[AGAINST_TABLES], height=0.62, color=plots.COLOURS[0], label="view tables", zorder=2)
    top = min(WIDEST, 1.05 * float(np.nanmax([0.3, *wide.to_numpy().ravel()])))
    style = {"color": plots.COLOURS[4], "edgecolor": plots.INK, "zorder": 4, "clip_on": False}
    axes.scatter(wide[AGAINST_FRAME].clip(upper=top), place, s=28, label="training frame", **style)
    for bound in (LITTLE, drift.SIGNIFICANT):
        axes.axvline(bound, color=plots.INK, linewidth=1, linestyle=":", zorder=1)
    for y, *psi in zip(place, wide[AGAINST_TABLES], wide[AGAINST_FRAME], strict=True):
        text = "   ".join(f"{value:.3f}" if math.isfinite(value) else "–" for value in psi)
        axes.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=plots.INK)
    axes.set_yticks(place, [plots.short(name) for name in wide.index])
    axes.set_ylim(len(wide) - 0.4, -0.6)
    axes.set_xlim(0, top)
    axes.set_xlabel("population stability index of what is online")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=10)
    return figure


def summary(found: Mapping[str, Any], *, title: str) -> Table:
    """The views for the terminal."""
    from rich.table import Table

    table = Table("view", title=title, title_justify="left")
    for name in ("hours", *COUNTS):
        table.add_column(name, justify="right")
    for line in found["views"]:
        table.add_row(line["view"], *_cells(line))
    return table


def record(variant: Variant, found: Mapping[str, Any], page: Path) -> str:
    """A run in MLflow: metrics of views and features, and the page with its tables and pictures; the run's id."""
    import mlflow

    client = tracking.connect()
    experiment = tracking.experiment(client, f"multidomain-{variant.schema.name}")
    about = {"dataset": variant.schema.name, "variant": variant.name}
    asked = {name: found[name] for name in ("at", "rows", "split", "store")}
    with mlflow.start_run(experiment_id=experiment, run_name=f"{variant.name}-freshness") as run:
        tags = {"kind": "freshness", "git_revision": tracking.git_revision()}
        tracking.write(client, run.info.run_id, _values(found), about | asked, tags)
        client.log_artifacts(run.info.run_id, str(page))
        return str(run.info.run_id)


def _values(found: Mapping[str, Any]) -> Iterator[tracking.Value]:
    for line in found["views"]:
        for name in ("age_hours", *COUNTS):
            if line[name] is not None:
                yield ("view", line["view"], name), float(line[name]), 0
    for line in found["features"]:
        if line["psi"] is not None:
            yield ("psi", str(line["comparison"]), line["feature"]), float(line["psi"]), 0


def _cells(line: Mapping[str, Any]) -> list[str]:
    age = "–" if line["age_hours"] is None else f"{line['age_hours']:,.1f}"
    return [age, *(f"{line[name]:,}" for name in COUNTS)]


def _table(views: list[Mapping[str, Any]]) -> str:
    names = ("newest offline", "newest online", "loaded up to", "hours", *COUNTS)
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = []
    for line in views:
        times = [(line[name] or "–")[:19].replace("T", " ") for name in ("offline", "online", "loaded")]
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in (*times, *_cells(line)))
        lines.append(f"<tr><th>{html.escape(line['view'])}</th>{cells}</tr>")
    table = f"<table><thead><tr><th>view</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<section><h2>Views</h2><p>{_VIEWS} Times are UTC.</p><div class="wide">{table}</div></section>'
