"""The leaderboard as one page that needs no network and no other file."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..evaluation import plots, report
from .leaderboard import cells, columns, sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANNOTATED = 400  # cells of a heat map that can still be read
_NOTES = (
    "Mean ± standard deviation over seeds. PCOC range: the largest mean prediction / mean label of a domain minus the "
    "smallest. RelaImpr: (AUC - 0.5) / (AUC of {base} - 0.5) - 1, seed by seed. Tables: parameters of the tables of "
    "ids; other: all other parameters. Rows/s: training, median of epochs. ms/2000: scoring 2,000 rows with the form "
    "that is served, median of repeated batches.",
    "The best was picked by the rows it is tested on, so the p-values are somewhat too small. The t-test asks whether "
    "training again would show the difference; DeLong's test, with the rows of one user as a cluster (of one group, "
    "where the schema has GAUC group by something else; Obuchowski 1997), asks whether other users would.",
)


def write(
    folder: Path,
    *,
    table: pd.DataFrame,
    domains: pd.DataFrame,
    comparison: Mapping[str, Any],
    title: str,
    facts: Mapping[str, str],
) -> None:
    """Write ``leaderboard.html`` and ``domains.png``, which the page embeds.

    Args:
        folder: an existing folder.
        table: as :func:`~multidomain.comparison.leaderboard.leaderboard` gives it.
        domains: AUC by label and domain.
        comparison: ``base``, ``tests``, ``entries`` (label -> settings), ``notes``.
        title: the page's heading.
        facts: name -> value, shown under the heading.
    """
    picture = folder / "domains.png"
    plots.save(heat_map(domains), picture)
    base = str(comparison["base"])
    notes = [sentence(comparison["tests"]), *comparison.get("notes", []), *(note.format(base=base) for note in _NOTES)]
    body = _table(table, base) + "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    text = "Mean AUC over seeds. Colour: above (violet) or below (orange) the mean of the models in that domain."
    body += report.figure("AUC per domain", text, picture) + _domains(domains) + _settings(comparison["entries"])
    (folder / "leaderboard.html").write_text(report.document(title=title, facts=facts, body=body), encoding="utf-8")


def heat_map(domains: pd.DataFrame) -> Figure:
    """AUC by model and domain; the colour is the difference to the domain's mean over the models."""
    values = domains.to_numpy(dtype=float)
    difference = (domains.astype(float) - domains.astype(float).mean(axis=0)).to_numpy()
    sizes = np.abs(difference[np.isfinite(difference)])
    reach = float(np.quantile(sizes, 0.95)) if len(sizes) else 0.0  # a tiny domain shall not take all the colours
    rows, columns = values.shape
    figure, axes = plots.canvas(2.8 + 0.62 * max(columns, 4), 1.7 + 0.34 * max(rows, 4))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    image = axes.imshow(difference, cmap="PuOr", vmin=-(reach or 1), vmax=reach or 1, aspect="auto")
    if values.size <= ANNOTATED:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = abs(difference[row, column]) > 0.6 * (reach or 1)
                colour = "white" if dark else plots.INK
                axes.text(
                    column, row, f"{value:.4f}".removeprefix("0"), ha="center", va="center", fontsize=8, color=colour
                )
    axes.set_xticks(range(columns), [plots.short(str(name), 18) for name in domains.columns], rotation=40, ha="right")
    axes.set_yticks(range(rows), [plots.short(str(name)) for name in domains.index])
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="AUC – mean", extend="both")
    return figure


def _table(table: pd.DataFrame, base: str) -> str:
    names = columns(table)
    head = "".join(f"<th>{html.escape(heading.format(base=base))}</th>" for heading in names.values())
    lines = []
    for number, row in enumerate(table.to_dict(orient="records")):
        style = ' class="best"' if number == 0 else ""
        texts = cells(row)
        found = "".join(f"<td>{html.escape(texts[name])}</td>" for name in names)
        lines.append(f"<tr{style}><th>{html.escape(row['label'])}</th>{found}</tr>")
    body = f"<thead><tr><th>model</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="wide"><table>{body}</table></div>'


def _domains(domains: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in domains.columns)
    lines = []
    best = domains.max(axis=0)
    for label, row in domains.iterrows():
        found = [
            "<td>–</td>" if pd.isna(value) else f"<td>{_strong(f'{value:.4f}', value == best[name])}</td>"
            for name, value in row.items()
        ]
        lines.append(f"<tr><th>{html.escape(str(label))}</th>{''.join(found)}</tr>")
    body = f"<thead><tr><th>model</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return (
        f'<details><summary>AUC per domain as a table</summary><div class="wide"><table>{body}</table></div></details>'
    )


def _settings(entries: Mapping[str, Any]) -> str:
    parts = "".join(
        f"<h3>{html.escape(label)}</h3><pre>{html.escape(json.dumps(settings, indent=1))}</pre>"
        for label, settings in entries.items()
    )
    return f"<details><summary>Settings of every model</summary>{parts}</details>"


def _strong(text: str, wanted: bool) -> str:
    return f"<strong>{text}</strong>" if wanted else text
