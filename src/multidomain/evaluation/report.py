"""The metrics of a scored split, overall and per domain, as a dictionary, a table and one self-contained page."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from . import metrics as measures
from .breakdown import METRICS as METRICS
from .breakdown import Scored

if TYPE_CHECKING:
    from rich.table import Table

LARGEST = 50  # domains in plots and tables; metrics.json holds them all
HEADINGS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "gauc_coverage": "GAUC coverage",
    "pcoc": "PCOC",
    "logloss": "log loss",
    "ece": "ECE",
    "rows": "rows",
    "oracle_auc": "oracle AUC",
    "oracle_logloss": "oracle log loss",
    "blind_auc": "blind AUC",
    "share_of_gap_closed": "gap closed",
}
SHOWN = ("rows", "auc", "gauc", "pcoc", "logloss")
TRUTH = ("oracle_auc", "oracle_logloss", "blind_auc", "share_of_gap_closed")  # only where the log knows its truth
SMALLEST_GAP = 1e-6  # between the truth and the blind truth, below which no share of it is given

Array = npt.NDArray[Any]
Metrics = Mapping[str, Any]


def require_both_classes(label: Array, *, split: str, name: str) -> None:
    """Refuse a split on which neither AUC nor a threshold means anything.

    Args:
        label: (N,) zeros and ones.
        split: train, validation or test.
        name: what was split, such as ``movielens/age-user_time-full-click``.

    Raises:
        DataError: no rows, or rows of one class only.
    """
    remedy = (
        "Give this split a larger share or another kind (`splits` of the schema, --params=split=...), choose another "
        "label, or bring more rows."
    )
    rows, positives = len(label), int(np.count_nonzero(label))
    if rows == 0:
        raise DataError(f"The {split} split of {name} has no rows: nothing can be measured on it. {remedy}")
    if positives in (0, rows):
        raise DataError(
            f"The {split} split of {name} holds one class only: all {rows:,} rows have label {int(positives > 0)}, so "
            f"AUC is undefined. {remedy}"
        )


def compare(label: Array, auc: float | None, true: Array, blind: Array | None) -> dict[str, float | None]:
    """What nobody can beat, what somebody reaches who does not see what the effect depends on, and where AUC lies.

    Args:
        label: (N,) zeros and ones.
        auc: of the scores.
        true: (N,) the probabilities that the labels were drawn with.
        blind: (N,) the same without what the effect depends on.

    Returns:
        ``oracle_auc``, ``oracle_logloss``; with ``blind`` also ``blind_auc`` and ``share_of_gap_closed``:
        (auc - blind_auc) / (oracle_auc - blind_auc), None where there is no gap.
    """
    oracle = _defined(measures.auc(label, true))
    found = {"oracle_auc": oracle, "oracle_logloss": _defined(measures.logloss(label, true))}
    if blind is not None:
        floor = _defined(measures.auc(label, blind))
        gap = None if oracle is None or floor is None else oracle - floor
        closed = None if auc is None or floor is None or gap is None or gap < SMALLEST_GAP else (auc - floor) / gap
        found |= {"blind_auc": floor, "share_of_gap_closed": closed}
    return found


def evaluate(
    label: Array,
    score: Array,
    group: Array,
    domain: Array,
    domains: Sequence[str],
    *,
    true_probability: Array | None = None,
    blind_probability: Array | None = None,
) -> dict[str, Any]:
    """Metrics overall and per domain, in the order of ``domains``; rows of an unnamed domain follow as they come.

    Args:
        label: (N,) zeros and ones.
        score: (N,) probabilities.
        group: (N,) what GAUC groups by.
        domain: (N,) domain names.
        domains: the names of the known domains; one without rows has null metrics and ``rows`` 0.
        true_probability: (N,) where the log knows it: the metrics of :func:`compare` are added.
        blind_probability: (N,) likewise.

    Returns:
        ``{"overall": {metric: value}, "domains": {name: {metric: value}}}``, ready for JSON.
    """
    code, names = domain_codes(domain)
    found = list(names)
    listed = [*domains, *(name for name in found if name not in set(domains))]
    scored = Scored(label, score, group)
    everything = np.zeros(len(code), dtype=np.int64)
    per_domain = _records(scored.by(code, len(found)), len(found))
    overall = _records(scored.by(everything, 1), 1)[0]
    if true_probability is not None:
        rows = [np.flatnonzero(code == number) for number in range(len(found))]
        truth = partial(_truth, label, true=true_probability, blind=blind_probability)
        overall |= truth(overall, slice(None))
        per_domain = [values | truth(values, at) for values, at in zip(per_domain, rows, strict=True)]
    known = dict(zip(found, per_domain, strict=True))
    nothing = dict.fromkeys(overall) | {"rows": 0}
    return {"overall": overall, "domains": {name: known.get(name, nothing) for name in listed}}


def domain_codes(domain: Array) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The domain of each row as a number, and the names in alphabetical order."""
    import pandas as pd

    code, names = pd.factorize(np.asarray(domain, dtype=object), sort=True)
    return code.astype(np.int64), [str(name) for name in names]


def _records(found: Mapping[str, Array], groups: int) -> list[dict[str, float | int | None]]:
    """The metrics of each group; what is undefined there (one class, no positives, no rows) is None."""
    return [
        {name: int(values[at]) if name == "rows" else _defined(float(values[at])) for name, values in found.items()}
        for at in range(groups)
    ]


def _truth(label: Array, values: Metrics, at: Any, *, true: Array, blind: Array | None) -> dict[str, float | None]:
    return compare(label[at], values["auc"], true[at], None if blind is None else blind[at])


def largest(metrics: Metrics, count: int = LARGEST) -> list[str]:
    """The names of the ``count`` domains with the most rows, in the order of ``metrics``, none of them empty."""
    domains = {name: values for name, values in metrics["domains"].items() if values["rows"]}
    kept = set(sorted(domains, key=lambda name: -domains[name]["rows"])[:count])
    return [name for name in domains if name in kept]


def summary(metrics: Metrics, *, title: str | None = None) -> Table:
    """AUC, GAUC and PCOC per domain (at most the 50 largest) and overall, for the terminal.

    Beside them, where the log knows its truth, what the truth and the blind truth reach.
    """
    from rich.table import Table

    shown = largest(metrics)
    left = len(metrics["domains"]) - len(shown)
    note = f"{left:,} smaller or empty domains are in metrics.json" if left else None
    truth = [name for name in TRUTH if name in metrics["overall"] and name != "oracle_logloss"]
    padding = (0, 1, 0, 0) if truth else (0, 1)  # all of it within 80 characters
    table = Table(title=title, caption=note, title_justify="left", caption_justify="left", padding=padding)
    table.add_column("domain")
    columns = [*SHOWN, *truth]
    for name in columns:
        table.add_column(HEADINGS[name], justify="right")
    for name in shown:
        table.add_row(name, *_cells(metrics["domains"][name], columns))
    table.add_section()
    table.add_row("overall", *_cells(metrics["overall"], columns), style="bold")
    return table


def page(
    metrics: Metrics,
    *,
    title: str,
    facts: Mapping[str, str],
    pictures: Sequence[tuple[str, str, Path]],
    more: str = "",
) -> str:
    """One HTML page that needs no network and no other file.

    Args:
        metrics: as :func:`evaluate` returns them.
        title: the page's heading.
        facts: name -> value, shown under the heading.
        pictures: (heading, explanation, PNG file), each embedded.
        more: sections after the pictures, HTML already.
    """
    drawn = "".join(figure(*picture) for picture in pictures)
    return document(title=title, facts=facts, body=_table(metrics) + drawn + more)


def document(*, title: str, facts: Mapping[str, str], body: str) -> str:
    """A page of this project's look: heading, name -> value, then ``body``, which is HTML already."""
    facts_html = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    return _PAGE.format(title=html.escape(title), facts=facts_html, body=body)


def figure(heading: str, explanation: str, picture: Path) -> str:
    """A section of a page that carries a PNG file in itself."""
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    return (
        f"<section><h2>{html.escape(heading)}</h2><p>{html.escape(explanation)}</p>"
        f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}"></section>'
    )


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cells(values: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [cell(name, values[name]) for name in names]


def cell(name: str, value: float | None) -> str:
    """A metric as a table shows it."""
    if value is None:
        return "–"
    return f"{value:,}" if name == "rows" else f"{value:.0%}" if name == "share_of_gap_closed" else f"{value:.4f}"


def _table(metrics: Metrics) -> str:
    names = ["rows", "auc", "gauc", "gauc_coverage", "pcoc", "logloss", "ece"]
    names += [name for name in TRUTH if name in metrics["overall"]]
    head = "".join(f"<th>{HEADINGS[n]}</th>" for n in names)
    shown = largest(metrics)
    lines = [(name, metrics["domains"][name], "") for name in shown]
    lines.append(("overall", metrics["overall"], ' class="overall"'))
    body = "".join(
        f"<tr{style}><th>{html.escape(name)}</th>{''.join(f'<td>{c}</td>' for c in _cells(values, names))}</tr>"
        for name, values, style in lines
    )
    left = len(metrics["domains"]) - len(shown)
    note = (
        f"<p>The {len(shown)} largest domains; {left:,} smaller or empty ones are in metrics.json.</p>" if left else ""
    )
    return f"<table><thead><tr><th>domain</th>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1b1b1f; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin: 0 0 .5rem }} h2 {{ font-size: 1.15rem; margin: 2.5rem 0 .25rem }}
p {{ color: #4a4a52; margin: .25rem 0 .75rem; max-width: 46rem }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0 0 1.5rem }}
dt {{ color: #4a4a52 }} dd {{ margin: 0; overflow-wrap: anywhere }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e3e3e8 }}
th:first-child {{ text-align: left; font-weight: normal }} thead th {{ color: #4a4a52; font-weight: 600 }}
tr.overall > * {{ font-weight: 600; border-top: 2px solid #1b1b1f }}
tr.best > * {{ font-weight: 600 }} .wide {{ overflow-x: auto }} .wide :is(th, td) {{ white-space: nowrap }}
details {{ margin: 1.5rem 0 }} summary {{ cursor: pointer }} pre {{ font-size: .85rem; overflow-x: auto }}
img {{ max-width: 100%; height: auto }}
</style></head><body>
<h1>{title}</h1><dl>{facts}</dl>
{body}
</body></html>
"""
