"""The account of a model as sections of its report: intervals, segments, the reference, calibration, cost."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .plots import COLOURS, INK, QUIET, canvas, short
from .report import HEADINGS, LARGEST, cell

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from .plots import Rows

QUANTILES = (5, 25, 50, 75, 95)


def sections(table: pd.DataFrame, about: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """HTML of all of them.

    Args:
        table: of segments, as :func:`account.account` returns it.
        about: likewise.
        cost: parameters and times.
    """
    parts = [_intervals(about), _reference(table, about), _calibration(about), *_segments(table), _cost(cost)]
    return "".join(part for part in parts if part)


def segments(table: pd.DataFrame) -> Figure:
    """AUC with its interval of each segment but the domains; of the reference where there is one."""
    shown = table[~table["by"].isin(["overall", "domain"]) & table["auc"].notna()]
    kinds = list(dict.fromkeys(shown["by"])) or ["segment"]
    figure, axes = canvas(9.6, 3.6, columns=len(kinds))
    overall = float(table.loc[table["by"] == "overall", "auc"].iloc[0])
    for kind, axis in zip(kinds, np.atleast_1d(axes), strict=True):
        rows = shown[shown["by"] == kind]
        place = np.arange(len(rows))
        axis.axhline(overall, color=QUIET, linewidth=1, linestyle=":")
        error = np.stack([rows["auc"] - rows["auc_low"], rows["auc_high"] - rows["auc"]]).astype(float)
        error = np.nan_to_num(error).clip(min=0)  # an interval of no width may miss its middle by a rounding
        axis.errorbar(place, rows["auc"], yerr=error, fmt="o", color=COLOURS[0], markersize=4, capsize=2)
        if "reference_auc" in rows:
            axis.plot(place, rows["reference_auc"], "_", color=COLOURS[1], markersize=9, markeredgewidth=2)
        step = max(1, -(-len(rows) // 8))
        axis.set_xticks(place[::step], [short(name, 16) for name in rows["name"]][::step], rotation=40, ha="right")
        axis.set_title(kind, loc="left", fontsize=10, color=INK)
    np.atleast_1d(axes)[0].set_ylabel("AUC")
    return figure


def distributions(domains: Rows) -> Figure:
    """Scores of clicked and of other impressions, domain by domain: 5 %, quarters, median, 95 %."""
    drawn = {name: rows for name, rows in domains.items() if len(rows[0])}
    figure, axes = canvas(8.4, 1.2 + 0.42 * max(len(drawn), 3))
    for number, (label, score) in enumerate(drawn.values()):
        for value, shift, colour in ((0, 0.14, COLOURS[5]), (1, -0.14, COLOURS[1])):
            chosen = score[label == value]
            if len(chosen):
                low, first, middle, third, high = np.percentile(chosen, QUANTILES)
                axes.plot([low, high], [number + shift] * 2, color=colour, linewidth=1)
                axes.plot([first, third], [number + shift] * 2, color=colour, linewidth=6, solid_capstyle="butt")
                axes.plot(middle, number + shift, "|", color=INK, markersize=8)
    for said, colour in (("label 1", COLOURS[1]), ("label 0", COLOURS[5])):
        axes.plot([], [], color=colour, linewidth=6, label=said)
    axes.set_yticks(range(len(drawn)), [short(name) for name in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlabel("score (predicted probability)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=10)
    return figure


def _intervals(about: Mapping[str, Any]) -> str:
    rows = [
        [HEADINGS[name], _number(one["value"]), f"{_number(one['low'])} to {_number(one['high'])}"]
        for name, one in about["intervals"].items()
    ]
    rows += [
        [f"GAUC by {name}", _number(one["gauc"]), f"covers {_number(one['coverage'])} of the rows"]
        for name, one in about["gauc_by"].items()
    ]
    note = (
        "95 % intervals: what other users' impressions might have given. AUC by DeLong's variance with a user's rows "
        "as one cluster, the others as ratios of sums over users."
    )
    return _section("How sure these figures are", note, _table(["metric", "value", "95 % interval"], rows))


def _reference(table: pd.DataFrame, about: Mapping[str, Any]) -> str:
    found = about["reference"]
    if found is None:
        return ""
    rows = [
        [HEADINGS[name], _signed(one["value"]), f"{_signed(one['low'])} to {_signed(one['high'])}"]
        for name, one in found["differences"].items()
    ]
    worse = found["worse_domains"]
    said = f"Worse beyond its interval in: {', '.join(worse)}." if worse else "In no domain worse beyond its interval."
    domains = table[table["by"] == "domain"].nlargest(LARGEST, "rows")
    listed = [
        [
            *(one["name"], f"{one['rows']:,}", _number(one["auc"]), _number(one["reference_auc"])),
            f"{_signed(one['difference'])} ({_signed(one['difference_low'])} to {_signed(one['difference_high'])})",
            "worse" if one["worse"] else "",
        ]
        for one in domains.to_dict(orient="records")
    ]
    heads = ["domain", "rows", "AUC", "reference", "difference", ""]
    body = _table(["this model minus the reference", "difference", "95 % interval"], rows) + _table(heads, listed)
    return _section(f"Beside {found['model']}", f"Both on the same test rows. {said}", body)


def _calibration(about: Mapping[str, Any]) -> str:
    found = about["calibration"]
    if found is None:
        return ""
    names = list(found["before"])
    rows = [[side, *(_number(found[side][name]) for name in names)] for side in ("before", "after")]
    note = "Curves were fitted on the validation split; these are figures of the test split."
    return _section("Calibration before and after", note, _table(["", *(HEADINGS[name] for name in names)], rows))


def _segments(table: pd.DataFrame) -> Sequence[str]:
    shown = table[~table["by"].isin(["overall", "domain"])]
    notes = {
        "user activity": "By the user's impressions in the training split.",
        "item popularity": "By the item's impressions in the training split.",
    }
    names = ["rows", "auc", "gauc", "pcoc", "logloss", "ece"]
    parts = []
    for kind, rows in shown.groupby("by", sort=False):
        listed = []
        for one in rows.to_dict(orient="records"):
            values = [cell(name, None if one[name] != one[name] else one[name]) for name in names]
            interval = f"{_number(one['auc_low'])} to {_number(one['auc_high'])}"
            listed.append([one["name"], *values, interval])
        heads = [str(kind), *(HEADINGS[name] for name in names), "AUC, 95 % interval"]
        body = f"<details{'' if len(rows) > 12 else ' open'}><summary>{len(rows)} segments</summary>"
        parts.append(_section(f"By {kind}", notes.get(str(kind), ""), f"{body}{_table(heads, listed)}</details>"))
    return parts


def _cost(cost: Mapping[str, Any]) -> str:
    rows = [
        ["parameters of embeddings", f"{cost['parameters_embedding']:,}"],
        ["other parameters", f"{cost['parameters_rest']:,}"],
        ["training, rows per second", f"{cost['training_rows_per_second']:,.0f}"],
        ["scoring 2,000 rows, ms", f"{cost['inference_ms_per_2000_rows']:.2f}"],
    ]
    return _section("Cost", f"On {cost['device']}, {cost['threads']} threads.", _table(["", ""], rows))


def _section(heading: str, note: str, body: str) -> str:
    return f"<section><h2>{html.escape(heading)}</h2><p>{html.escape(note)}</p>{body}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr><th>{html.escape(first)}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in others)}</tr>"
        for first, *others in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:+.4f}"
