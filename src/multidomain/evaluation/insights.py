"""What a model learnt, as pictures: what it does with the rows of each domain, and the numbers beside each picture.

A model says what it does with a row in ``insights(batch)``: name -> (B, …). The names in :data:`INSIGHTS` have a way of
their own of being summed up by domain and drawn; any other is a heat map of means, or of shares where it is whole
numbers. A picture shows the 50 domains with the most rows, the CSV beside it shows all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import plots
from .insight_plots import heat_map, lines, spread
from .report import LARGEST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ..models.base import MultiDomainModel
    from ..tensors import EncodedSplit

SAMPLE = 20_000  # rows looked at
BATCH = 4096

Array = npt.NDArray[Any]
Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Collected:
    """What a model does with N rows.

    Attributes:
        values: insight -> (N, …).
        domain: (N,), 0 … M.
    """

    values: Mapping[str, Array]
    domain: Array


@dataclass(frozen=True)
class Summary:
    """One insight by domain.

    Attributes:
        domains: P names.
        rows: (P,), how many rows each stands for.
        values: (P, panels, k).
        panels: what each panel is called.
        columns: what each of the k columns is called.
        overall: (panels, k) of all rows together, or None where that says nothing.
    """

    domains: Sequence[str]
    rows: Array
    values: Array
    panels: Sequence[str]
    columns: Sequence[str]
    overall: Array | None

    def largest(self, count: int = LARGEST) -> Summary:
        """The domains with the most rows, in the same order."""
        kept = np.sort(np.argsort(-self.rows, kind="stable")[:count])
        return Summary(
            [self.domains[p] for p in kept], self.rows[kept], self.values[kept], self.panels, self.columns, self.overall
        )


@dataclass(frozen=True, kw_only=True)
class Insight:
    """How one insight is summed up and drawn.

    Attributes:
        text: what the picture shows.
        dimensions: of the array, the rows included.
        sum_up: (N, …), the rows of each of P groups, how many columns have names -> (P, panels, k).
        draw: the picture of a summary.
        unit: what a value is.
        panel: what the second dimension counts.
        column: what the last dimension counts.
        axis: what is written below it; the same if empty.
        names: of the columns; numbers from ``first`` where there are none.
        first: the number of the first column.
        overall: whether all rows together are worth a line of their own.
    """

    text: str
    dimensions: int
    sum_up: Callable[[Array, Sequence[Array], int], Array]
    draw: Callable[[Summary, Insight], Figure]
    unit: str
    panel: str = ""
    column: str
    axis: str = ""
    names: Sequence[str] = ()
    first: int = 1
    overall: bool = True


def collect(
    model: MultiDomainModel, split: EncodedSplit, *, seed: int, device: str | None = None, size: int = SAMPLE
) -> Collected:
    """What the model does, in evaluation, with at most ``size`` rows of the split, drawn at random.

    Raises:
        ValueError: an insight that has not one entry per row, or another shape than its picture takes.
    """
    import torch

    from ..training.device import choose_device

    chosen = choose_device(device)
    model = model.to(chosen).eval()
    rows = np.arange(split.rows)
    if split.rows > size:
        rows = np.sort(np.random.default_rng(seed).choice(split.rows, size, replace=False))
    parts: dict[str, list[Array]] = {}
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = split.batch(rows[start : start + BATCH]).to(chosen)
            for name, value in model.insights(batch).items():
                _check(name, tuple(value.shape), len(batch))
                parts.setdefault(name, []).append(value.cpu().numpy())
    return Collected({name: np.concatenate(part) for name, part in parts.items()}, np.asarray(split.domain)[rows])


def write(folder: Path, collected: Collected, *, domains: Sequence[str], labels: Labels | None = None) -> None:
    """Write ``<insight>.png`` and ``<insight>.csv`` for each insight, and ``README.txt``, which says what they show.

    Args:
        folder: an existing folder.
        collected: of one model.
        domains: the names of the M domains by id; id M is the unknown domain.
        labels: insight -> names along its last axis, in place of numbers.
    """
    shown = []
    for name, values in collected.values.items():
        insight = insight_called(name, values)
        summary = sum_up(name, values, collected.domain, [*domains, "unknown"], (labels or {}).get(name))
        table(summary, insight).to_csv(folder / f"{name}.csv", index=False)
        plots.save(insight.draw(summary.largest(), insight), folder / f"{name}.png")
        shown.append(f"{name}.png, {name}.csv: {insight.text}")
    rows = f"Of {len(collected.domain):,} rows of the test split.\n"
    text = "\n".join([rows, *shown]) if shown else "This architecture has nothing to show of what it learnt."
    (folder / "README.txt").write_text(text + "\n", encoding="utf-8")


def sum_up(
    name: str, values: Array, domain: Array, domains: Sequence[str], labels: Sequence[str] | None = None
) -> Summary:
    """One insight (N, …) by the domains that have rows.

    Args:
        name: one of ``INSIGHTS``, or any other.
        values: (N, …).
        domain: (N,) ids.
        domains: names by id.
        labels: names along the last axis.
    """
    _check(name, values.shape, len(domain))
    insight = insight_called(name, values)
    present, rows = np.unique(domain, return_counts=True)
    groups = np.split(np.argsort(domain, kind="stable"), np.cumsum(rows)[:-1])
    named = len(labels or ())
    summed = insight.sum_up(values, groups, named)  # (P, panels, k)
    _, panels, columns = summed.shape
    names = labels if labels and named == columns else insight.names
    return Summary(
        domains=[domains[p] for p in present],
        rows=rows,
        values=summed,
        panels=[f"{insight.panel} {number + 1}" for number in range(panels)] if panels > 1 else [""],
        columns=list(names) or [str(insight.first + number) for number in range(columns)],
        overall=insight.sum_up(values, [np.arange(len(values))], named)[0] if insight.overall else None,
    )


def table(summary: Summary, insight: Insight) -> pd.DataFrame:
    """A line per domain (and panel): ``domain``, ``rows``, the panel, then a column per column of the picture."""
    import pandas as pd

    names, rows, values = list(summary.domains), summary.rows, summary.values
    if summary.overall is not None:
        names, rows = [*names, "overall"], np.append(rows, rows.sum())
        values = np.concatenate([values, summary.overall[None]])
    panels = len(summary.panels)
    head: dict[str, Any] = {"domain": np.repeat(names, panels), "rows": np.repeat(rows, panels)}
    if panels > 1:
        head[insight.panel] = np.tile(np.arange(1, panels + 1), len(names))
    numbered = all(column.isdigit() for column in summary.columns)
    columns = [f"{insight.column}_{name}" if numbered or name in head else name for name in summary.columns]
    flat = values.reshape(-1, len(columns))
    return pd.DataFrame(head | {column: flat[:, k] for k, column in enumerate(columns)})


def insight_called(name: str, values: Array) -> Insight:
    """The insight of that name, or a plain heat map for one that is not in ``INSIGHTS``."""
    if name in INSIGHTS:
        return INSIGHTS[name]
    whole = np.issubdtype(values.dtype, np.integer)
    return Insight(
        text=f"{'the share of each number' if whole else 'the mean'} among the domain's rows.",
        dimensions=values.ndim,
        sum_up=_shares if whole else _means,
        draw=heat_map,
        unit="share of the domain's rows" if whole else "mean",
        panel="panel",
        column=name,
        first=0 if whole else 1,
    )


def _check(name: str, shape: tuple[int, ...], rows: int) -> None:
    takes = [INSIGHTS[name].dimensions] if name in INSIGHTS else [1, 2, 3]
    if len(shape) not in takes or shape[0] != rows:
        raise ValueError(
            f"the insight '{name}' of {rows} rows must have {' or '.join(map(str, takes))} dimensions, the first of "
            f"{rows}; it has the shape {shape}"
        )


# How an insight is summed up: (N, …), the rows of each of P groups, how many columns have names -> (P, panels, k).

Groups = Sequence[Array]


def _shares(values: Array, groups: Groups, named: int) -> Array:
    """Whole numbers (N,) or (N, panels): the share of a group's rows with each number, 0 to the last met or named."""
    numbers = values.reshape(len(values), -1).astype(np.int64)
    count = max(int(numbers.max(initial=0)) + 1, named)
    return np.stack([[np.bincount(one, minlength=count) / len(rows) for one in numbers[rows].T] for rows in groups])


def _means(values: Array, groups: Groups, named: int = 0) -> Array:  # noqa: ARG001
    """(N,), (N, k) or (N, panels, k): the mean of a group's rows; zero where it has none."""
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    means = np.stack([values[rows].sum(axis=0, dtype=np.float64) / max(len(rows), 1) for rows in groups])
    return means.reshape(len(groups), -1, values.shape[-1])


def _means_of_attention(values: Array, groups: Groups, named: int) -> Array:  # noqa: ARG001
    """(N, T): the mean of the rows that attend to anything at all, which one with an empty history does not."""
    attending: Array = np.any(values != 0, axis=1)
    return _means(values, [rows[attending[rows]] for rows in groups])


def _spread(values: Array, groups: Groups, named: int) -> Array:  # noqa: ARG001
    """(N, k): two root mean squares over the k entries, see ``SPREAD``."""
    centre = values.mean(axis=0, dtype=np.float64)
    both = []
    for rows in groups:
        own = values[rows].mean(axis=0, dtype=np.float64)
        both.append([np.sqrt(np.square(own - centre).mean()), np.sqrt(np.square(values[rows] - own).mean())])
    return np.array(both)[:, None]


SPREAD = ("of its mean from that of all rows", "of its rows from its mean")


INSIGHTS: Mapping[str, Insight] = {
    "cluster": Insight(
        text="the share of each domain's rows in each cluster; domains with the same profile are one to the model.",
        dimensions=1,
        sum_up=_shares,
        draw=heat_map,
        unit="share of the domain's rows",
        column="cluster",
        first=0,
    ),
    "codes": Insight(
        text="the share of each domain's rows with each code, level by level.",
        dimensions=2,
        sum_up=_shares,
        draw=heat_map,
        unit="share of the domain's rows",
        panel="level",
        column="code",
        first=0,
    ),
    "field_weights": Insight(
        text="the weight of each field in each head, mean over the domain's rows.",
        dimensions=3,
        sum_up=_means,
        draw=heat_map,
        unit="weight, of 1 per head",
        panel="head",
        column="field",
    ),
    "kept": Insight(
        text="the share that each field keeps of its own embedding, mean over the domain's rows.",
        dimensions=2,
        sum_up=_means,
        draw=heat_map,
        unit="share kept",
        column="field",
    ),
    "gate": Insight(
        text="how much each expert counts, mean over the domain's rows.",
        dimensions=2,
        sum_up=_means,
        draw=heat_map,
        unit="weight, of 1 per row",
        column="expert",
    ),
    "attention": Insight(
        text="attention to each position of the history, mean over the domain's rows that have one; the last position "
        "is the most recent.",
        dimensions=2,
        sum_up=_means_of_attention,
        draw=lines,
        unit="attention, of 1 per row",
        column="position",
        axis="position in the history; the last is the most recent",
    ),
    "generated_weight": Insight(
        text="how much of the generated weights depends on the domain: the distance of its mean from that of all rows, "
        "and of its rows from its mean (root mean square over the entries).",
        dimensions=2,
        sum_up=_spread,
        draw=spread,
        unit="root mean square over the generated weights",
        column="distance",
        names=SPREAD,
        overall=False,
    ),
    "distance_from_centre": Insight(
        text="how far each domain's factors have moved from 1, where they are the shared centre: the root mean square "
        "of W_p - 1, layer by layer.",
        dimensions=2,
        sum_up=_means,
        draw=heat_map,
        unit="rms of W_p - 1",
        column="layer",
    ),
}
