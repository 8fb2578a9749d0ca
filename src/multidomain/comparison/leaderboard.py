"""Results of several models and seeds as one table: means and their spread, costs, and whether the best is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..evaluation import significance
from ..evaluation.metrics import rela_impr
from ..evaluation.report import LARGEST, largest
from .results import Result, by_label

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

MEASURES = ("auc", "gauc", "pcoc_range", "logloss", "rela_impr")
GAP = "share_of_gap_closed"  # between the blind truth and the truth, beside the others where the log knows its truth
COSTS = ("parameters_embedding", "parameters_rest", "training_rows_per_second", "inference_ms_per_2000_rows")
T_TEST, DELONG = "paired t-test over seeds", "clustered DeLong over test rows"


def pcoc_range(metrics: Mapping[str, Any]) -> float:
    """The largest PCOC of a domain minus the smallest: 0 where every domain is promised equally much or little.

    Domains whose PCOC is undefined (no positive) are left out; nan where that leaves none.
    """
    values = [domain["pcoc"] for domain in metrics["domains"].values() if domain["pcoc"] is not None]
    return max(values) - min(values) if values else math.nan


def measures(result: Result, base: Result | None) -> dict[str, float]:
    """AUC, GAUC, PCOC range, log loss, and RelaImpr against the result of the base with the same seed.

    Of a log that knows its truth also the share of the gap to it that is closed.
    """
    overall = {name: _number(value) for name, value in result.metrics["overall"].items()}
    against = math.nan if base is None else _number(base.metrics["overall"]["auc"])
    return {
        "auc": overall["auc"],
        "gauc": overall["gauc"],
        "pcoc_range": pcoc_range(result.metrics),
        "logloss": overall["logloss"],
        "rela_impr": rela_impr(overall["auc"], against),
        **({GAP: overall[GAP]} if GAP in overall else {}),
    }


def leaderboard(results: Sequence[Result], base: str) -> pd.DataFrame:
    """One row per label, the highest mean AUC first.

    Args:
        results: of any number of labels and seeds.
        base: the label RelaImpr is measured against (HierRec Eq. 11), seed by seed; nan where it has no such result.

    Returns:
        ``label, architecture, seeds``; ``<measure>_mean, <measure>_sd`` for AUC, GAUC, ``pcoc_range`` (largest minus
        smallest PCOC of a domain), log loss and RelaImpr, and of a simulated log for the share of the gap to the truth
        that is closed; the standard deviation is that of a sample and nan for one seed; ``parameters_embedding``,
        ``parameters_rest``; ``training_rows_per_second`` and ``inference_ms_per_2000_rows``, medians over seeds.
        :func:`with_tests` adds p-values.
    """
    grouped = by_label(results)
    bases = {result.seed: result for result in grouped.get(base, [])}
    rows = []
    for label, each in grouped.items():
        values = pd.DataFrame([measures(result, bases.get(result.seed)) for result in each])
        row: dict[str, Any] = {"label": label, "architecture": each[0].about["architecture"], "seeds": len(each)}
        for name in values:
            row[f"{name}_mean"] = float(values[name].mean(skipna=False))
            row[f"{name}_sd"] = float(values[name].std(ddof=1, skipna=False))
        for name in COSTS:
            row[name] = _median([result.about[name] for result in each])
        rows.append(row)
    table = pd.DataFrame(rows).sort_values("auc_mean", ascending=False, kind="stable", ignore_index=True)
    counts = dict.fromkeys(COSTS[:2], "Int64")
    return table.astype(counts)


def per_domain(results: Sequence[Result], labels: Sequence[str]) -> pd.DataFrame:
    """Mean AUC by label (rows, in the order given) and domain (columns, the fifty largest at most)."""
    grouped = by_label(results)
    names = largest(results[0].metrics, LARGEST)
    values = {
        label: {
            name: float(np.mean([_number(result.metrics["domains"].get(name, {}).get("auc")) for result in each]))
            for name in names
        }
        for label, each in grouped.items()
    }
    return pd.DataFrame.from_dict(values, orient="index").reindex(index=list(labels), columns=names)


def best_against_second(
    results: Sequence[Result], table: pd.DataFrame, user: pd.Series
) -> dict[str, dict[str, Any] | None]:
    """Paired tests of AUC between the first two lines of the leaderboard.

    Args:
        results: all of them.
        table: the leaderboard.
        user: the cluster of each impression of the test split, by ``impression_id``: what GAUC groups by.

    Returns:
        name of the test -> ``{best, second, difference, standard_error, p, seeds}``; None for the test over seeds with
        fewer than two seeds in common, and for both where there is one line only.
    """
    if len(table) < 2:
        return {T_TEST: None, DELONG: None}
    best, second = table["label"].iloc[0], table["label"].iloc[1]
    grouped = by_label(results)
    pairs = _paired(grouped[best], grouped[second])
    if not pairs:
        return {T_TEST: None, DELONG: None}
    areas = [[_number(result.metrics["overall"]["auc"]) for result in pair] for pair in pairs]
    found = {T_TEST: significance.over_seeds([a for a, _ in areas], [b for _, b in areas])}
    first, other = [a for a, _ in pairs], [b for _, b in pairs]
    label, scores = _scores([*first, *other], user.index)
    found[DELONG] = significance.over_rows(label, scores[: len(first)], scores[len(first) :], user.to_numpy())
    about = {"best": best, "second": second, "seeds": [result.seed for result in first]}
    return {name: None if test is None else {**about, **_plain(test)} for name, test in found.items()}


def with_tests(table: pd.DataFrame, tests: Mapping[str, Mapping[str, Any] | None]) -> pd.DataFrame:
    """The leaderboard with ``t_test_p`` and ``delong_p``: of the second line against the first, null elsewhere."""
    ranks = np.arange(len(table))
    values = {column: (tests[name] or {}).get("p") for column, name in (("t_test_p", T_TEST), ("delong_p", DELONG))}
    return table.assign(**{column: np.where(ranks == 1, _number(p), np.nan) for column, p in values.items()})


def sentence(tests: Mapping[str, Mapping[str, Any] | None]) -> str:
    """What the tests found, in words."""
    found = {name: test for name, test in tests.items() if test is not None}
    if not found:
        return "There is nothing to test: fewer than two models share a seed."
    one = next(iter(found.values()))
    if one["difference"] is None:
        return "There is nothing to test: AUC is undefined."
    parts = [f"{name}: p {_p(test['p'])}" for name, test in found.items()]
    if tests.get(T_TEST) is None:
        parts.append("one seed in common: no test over seeds")
    return f"{one['best']} is {one['difference']:.4f} AUC ahead of {one['second']} ({'; '.join(parts)})."


def summary(table: pd.DataFrame, tests: Mapping[str, Mapping[str, Any] | None], *, title: str, base: str) -> Group:
    """The leaderboard for a terminal of 80 columns: how good the models are, then what they cost."""
    from rich.console import Group

    names = columns(table)
    measures = {name: heading for name, heading in names.items() if name not in COSTS}
    costs = {name: heading for name, heading in names.items() if name in COSTS}
    return Group(
        _part(table, measures, base=base, title=title, caption=sentence(tests)),
        _part(table, costs, base=base, title="Parameters, training and scoring", caption=None),
    )


def _part(table: pd.DataFrame, names: Mapping[str, str], *, base: str, title: str, caption: str | None) -> Table:
    """Some columns of the leaderboard, with the spread of AUC alone so that they fit."""
    from rich import box
    from rich.table import Table

    shown = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    shown.padding = (0, 1, 0, 0)
    shown.add_column("model", overflow="fold")
    for heading in names.values():
        shown.add_column(heading.format(base=base).replace(" ", "\n"), justify="right", no_wrap=True)
    for number, row in enumerate(table.to_dict(orient="records")):
        found = {name: text if name == "auc" else text.split(" ±")[0] for name, text in cells(row).items()}
        shown.add_row(row["label"], *(found[name] for name in names), style="bold" if number == 0 else None)
    return shown


def columns(table: pd.DataFrame) -> dict[str, str]:
    """The columns of a leaderboard that are shown, and their headings."""
    headings = {
        "auc": "AUC",
        "gauc": "GAUC",
        "pcoc_range": "PCOC range",
        "logloss": "log loss",
        "rela_impr": "RelaImpr ({base})",
        GAP: "gap closed",
        **dict(zip(COSTS, ("tables", "other", "rows/s", "ms/2000"), strict=True)),
    }
    return {name: heading for name, heading in headings.items() if name != GAP or f"{GAP}_mean" in table}


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """One row of the leaderboard as text, by column: mean ± sd, or the mean alone where there is one seed."""
    names = [name for name in (*MEASURES, GAP) if f"{name}_mean" in row]
    found = {n: spread(row[f"{n}_mean"], row[f"{n}_sd"], percent=n in ("rela_impr", GAP)) for n in names}
    for name in COSTS[:2]:
        found[name] = millions(row[name])
    found[COSTS[2]] = "–" if pd.isna(row[COSTS[2]]) else f"{row[COSTS[2]]:,.0f}"
    found[COSTS[3]] = "–" if pd.isna(row[COSTS[3]]) else f"{row[COSTS[3]]:.1f}"
    return found


def spread(mean: float, sd: float, *, percent: bool = False) -> str:
    """``0.8175 ± 0.0006``, ``+1.20 % ± 0.10``, or a dash."""
    if pd.isna(mean):
        return "–"
    text = f"{100 * mean:+.2f} %" if percent else f"{mean:.4f}"
    if pd.isna(sd):
        return text
    return f"{text} ± {100 * sd:.2f}" if percent else f"{text} ± {sd:.4f}"


def millions(count: float | None) -> str:
    """``1.234 M``, or a dash."""
    return "–" if count is None or pd.isna(count) else f"{count / 1e6:,.3f} M"


def _paired(first: Sequence[Result], second: Sequence[Result]) -> list[tuple[Result, Result]]:
    others = {result.seed: result for result in second}
    return [(result, others[result.seed]) for result in first if result.seed in others]


def _scores(results: Sequence[Result], impressions: pd.Index) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Labels (N,) and scores (S, N) in the order of ``impressions``."""
    frames = [result.predictions().set_index("impression_id").reindex(impressions) for result in results]
    return frames[0]["label"].to_numpy(), np.stack([frame["score"].to_numpy() for frame in frames])


def _plain(test: significance.Difference) -> dict[str, float | None]:
    values = {"difference": test.value, "standard_error": test.standard_error, "p": test.p}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _median(values: Sequence[Any]) -> float:
    found = [float(value) for value in values if value is not None]
    return float(np.median(found)) if found else math.nan


def _p(value: float | None) -> str:
    return "undefined" if value is None else "< 0.0001" if value < 1e-4 else f"= {value:.4f}"
