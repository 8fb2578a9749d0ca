"""Tables and plots of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .settings import AXES, Setting

Figures = dict[str, Any]
OURS, APART = OURSELVES = ("ours", "ours_bf16")
FLOORS = {20_000: 1.5, 1_000_000: 6.0, 10_000_000: 40.0}  # of ours against the fastest peer: dnn, batch 2048
ALLOWED = 0.001  # of AUC
BETWEEN = 0.05  # of the height of a panel: two names
LABELS = {"ids": "ids of all fields", "domains": "domains", "history": "events in the history"}


def write(content: Figures, target: Path) -> None:
    """``<target>.json`` and ``<target>.md``."""
    from multidomain.io.atomic import replacing

    for suffix, text in ((".json", json.dumps(content, indent=1)), (".md", markdown(content))):
        with replacing(target.with_suffix(suffix)) as made:
            made.write_text(text + "\n", encoding="utf-8")


def markdown(content: Figures) -> str:
    """All tables."""
    machine = content["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        f"Training beside the field's libraries ({machine['date']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} thread each, load {machine['load']} before; {versions}; Python {machine['python']})",
        "",
        f"`{machine['command']}`" + (": small, to see that it works; the figures mean nothing" * machine["quick"]),
        "",
        "Each library's own trainer, loader, tables and Adam on the same rows, ours with `training.fit`; 20 fields × "
        "16, network 128-64-32, fp32. Sides work in turn; medians over rounds. How: `benchmarks/peers/__init__.py`.",
    ]
    for axis in AXES:
        found = [one for one in content["settings"] if one["setting"]["axis"] == axis]
        if found:
            lines += ["", f"## By {LABELS[axis]}", "", *speeds(found), "", *memories(found)]
            if any(one["setting"]["learn"] for one in found):
                lines += ["", *areas(found)]
    lines += ["", *floors(content["settings"])]
    profiles = [(one, one["sides"].get(OURS, {}).get("profile")) for one in content["settings"]]
    for one, text in profiles:
        if text:
            lines += ["", f"## A step of ours: {Setting(**one['setting']).title}", "", "```", text.rstrip(), "```"]
    return "\n".join(lines)


def speeds(found: list[Figures]) -> list[str]:
    """Rows per second of every side."""
    sides = list(found[0]["sides"])
    apart = ["in bf16 / fastest peer"] if APART in sides else []
    lines = ["Training rows/s (per second of the process's processor time in brackets)", ""]
    lines += _head(["setting", *sides, "ours / fastest peer", "(processor)", *apart])
    for one in found:
        cells = [_speed(one["sides"][name]) for name in sides]
        ratios = [ratio(one, key) for key in ("rows_per_second", "rows_per_processor_second")]
        ratios += [ratio(one, "rows_per_second", APART) for _ in apart]
        lines.append(_row([Setting(**one["setting"]).title, *cells, *(_times(value) for value in ratios)]))
    return lines


def memories(found: list[Figures]) -> list[str]:
    """Peak memory of every side."""
    sides = list(found[0]["sides"])
    about = "(after its imports alone; pages of mapped files in it), + processes of its loader"
    lines = [f"Most memory of the training process, MiB {about}", "", *_head(["setting", *sides])]
    for one in found:
        cells = [_memory(figures) for figures in one["sides"].values()]
        lines.append(_row([Setting(**one["setting"]).title, *cells]))
    return lines


def areas(found: list[Figures]) -> list[str]:
    """AUC after equal rows and after equal seconds."""
    sides = list(found[0]["sides"])
    lines = ["Test AUC after as many rows (seconds it took), and after as many seconds (rows by then)", ""]
    lines += _head(["setting", "after", *sides, "ours − best peer"])
    for one in found:
        setting = Setting(**one["setting"])
        if not setting.learn:
            continue
        learnt = {name: figures.get("learnt") for name, figures in one["sides"].items()}
        for key, beside, unit, after in (
            ("auc_rows", "seconds", "s", f"{setting.learn:,} rows"),
            ("auc_seconds", "rows_in_seconds", "rows", f"{setting.seconds:g} s"),
        ):
            cells = [f"{one[key]:.4f} ({one[beside]:,.0f} {unit})" if one else "–" for one in learnt.values()]
            best = max((one[key] for name, one in learnt.items() if one and name not in OURSELVES), default=None)
            ours = learnt.get(OURS)
            lead = f"{ours[key] - best:+.4f}" if ours and best is not None else "–"
            lines.append(_row([setting.title, after, *cells, lead]))
    return lines


def floors(found: list[Figures]) -> list[str]:
    """What was promised beside what came out; nothing where nothing of it was measured."""
    lines = []
    for one in found:
        setting = Setting(**one["setting"])
        floor = FLOORS.get(setting.ids)
        if setting.axis != "ids" or setting.batch_size != 2048 or floor is None:
            continue
        got, share = ratio(one, "rows_per_second"), lightest(one)
        memory = "–" if share is None else f"{share:.2f}"
        speed = "–" if got is None else f"{got:.1f}× ({'met' if got >= floor else 'below'})"
        lines.append(_row([f"{setting.ids:,}", f"{floor:g}×", speed, memory]))
    if not lines:
        return []
    head = _head(["ids", "floor", "ours / fastest peer", "our memory / the smallest peer's"])
    return ["## Floors (dnn, batch 2048)", "", *head, *lines]


def ratio(one: Figures, key: str, side: str = OURS) -> float | None:
    """Ours against the fastest peer; None where either is missing."""
    speeds = [found[key] for name, found in one["sides"].items() if name not in OURSELVES and key in found]
    ours: float | None = one["sides"].get(side, {}).get(key)
    return ours / max(speeds) if speeds and ours is not None else None


def lightest(one: Figures) -> float | None:
    """Ours against the memory of the smallest peer, processes of its loader included; None where either is missing."""
    held = {name: held["peak"] + (held["others"] or 0) for name, held in one["sides"].items() if "peak" in held}
    ours, _ = (held.pop(name, None) for name in OURSELVES)
    return ours / min(held.values()) if held and ours is not None else None


def brief(one: Figures) -> str:
    """One setting in a few lines, for whoever waits."""
    found = [f"  {name}: {_speed(figures)}" for name, figures in one["sides"].items()]
    return "\n".join([*found, f"  ours / fastest peer: {_times(ratio(one, 'rows_per_second'))}"])


def draw(content: Figures, folder: Path) -> None:
    """``peers_<axis>.png``: rows/s against the axis, a panel for each model and batch size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for axis in AXES:
        panels: dict[tuple[str, int], list[Figures]] = {}
        for one in content["settings"]:
            if one["setting"]["axis"] == axis:
                panels.setdefault((one["setting"]["model"], one["setting"]["batch_size"]), []).append(one)
        if not panels:
            continue
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(4.4 * len(panels), 3.8), squeeze=False, sharey=True, layout="constrained"
        )
        ends = [_panel(place, found, axis) for place, found in zip(axes[0], panels.values(), strict=True)]
        for place, (model, batch_size), labels in zip(axes[0], panels, ends, strict=True):
            place.set_title(f"{model}, batch {batch_size}", fontsize=10)
            _label(place, labels)
        axes[0][0].set_ylabel("training rows per second")
        figure.savefig(folder / f"peers_{axis}.png", dpi=130)
        pyplot.close(figure)


def _panel(place: Any, found: list[Figures], axis: str) -> list[tuple[str, str, tuple[float, float]]]:
    """Draws the lines of a panel; name, colour and last point of each."""
    ends = []
    for number, name in enumerate(found[0]["sides"]):
        points = [
            (Setting(**one["setting"]).place, one["sides"][name]["rows_per_second"])
            for one in found
            if "rows_per_second" in one["sides"][name]
        ]
        if not points:
            continue
        colour = f"C{number}"
        place.plot(*zip(*points, strict=True), marker="o", color=colour, linewidth=2.4 if name in OURSELVES else 1.4)
        ends.append((name, colour, points[-1]))
    places = sorted({Setting(**one["setting"]).place for one in found})
    place.set_xscale("log")
    place.set_yscale("log")
    place.set_xticks(places, [_short(value) for value in places])
    place.minorticks_off()
    place.set_xlim(places[0] / 1.5, places[-1] * (places[-1] / places[0] if len(places) > 1 else 4) ** 0.4 * 1.5)
    place.set_xlabel(LABELS[axis])
    place.grid(alpha=0.3)
    place.spines[["top", "right"]].set_visible(False)
    return ends


def _label(place: Any, ends: list[tuple[str, str, tuple[float, float]]]) -> None:
    """Names at the ends of their lines, one above the other where those meet."""
    taken = -1.0
    for name, colour, (x, y) in sorted(ends, key=lambda end: end[2][1]):
        right, height = place.transAxes.inverted().transform(place.transData.transform((x, y)))
        taken = max(height, taken + BETWEEN)
        where = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
        place.annotate(name, (right, taken), xytext=(6, 0), color=colour, fontsize=8, **where)


def _short(value: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return str(value)


def _speed(figures: Figures) -> str:
    if "rows_per_second" not in figures:
        return figures.get("reason", "–").replace("|", "/")
    return f"{figures['rows_per_second']:,.0f} ({figures['rows_per_processor_second']:,.0f})"


def _memory(figures: Figures) -> str:
    if "peak" not in figures:
        return "–"
    mapped = "" if figures["mapped"] is None else f"; {figures['mapped']:,.0f}"
    others = f" + {figures['others']:,.0f}" if figures["others"] else ""
    return f"{figures['peak']:,.0f} ({figures['baseline']:,.0f}{mapped}){others}"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def _head(names: list[str]) -> list[str]:
    return [_row(names), "|---" * len(names) + "|"]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
