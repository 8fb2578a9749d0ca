"""Rows/s of a training step against the number of domains and of ids, beside STAR with all towers on all rows.

    python -m benchmarks.domains                # an hour; --quick: less than a minute
    python -m benchmarks.domains --only mixed   # one part; what was found of the others stays

- ``mixed``: batches of 4096 rows of all domains, 3 to 300 of them, with even shares and with Zipf's (1, 1/2, 1/3 …);
- ``domain``: batches of 4096 rows of one domain each, drawn by its share;
- ``large``: batches of 16384 mixed rows, 300 domains;
- ``ids``: the embedding alone (lookup, backward, lazy update), 1 and 10 million ids;
- ``adaptdhm``: the widths of its paper (512-256-128-64-32), 9 clusters, batches of 2048, 33 and 100 domains.

Networks of 256-128-64 on 20 fields of width 16; rows are drawn. Ours: forward, backward, guard and optimizers of the
training loop. MMoE has four experts of these widths, PLE one level of one expert per domain and a shared one, Shared
Bottom shares the embeddings alone. "All towers" is in :mod:`benchmarks.towers`; it and Cross-Stitch, whose equations
want every domain's network on every row, are measured up to --every domains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from multidomain.inputs import InputSchema
from multidomain.layers.products import Linear

from . import measure
from .drawn import Draw
from .measure import Figures, Setting
from .training_step import EmbeddingStep, TrainingStep

FIELDS, WIDTH = 20, 16
TURN = 0.3  # seconds at least of one turn
ALL_TOWERS, PLAIN, PYTORCHS = "all towers", "dnn", "dnn, PyTorch's"
EVERY_ROW = ("cross_stitch", ALL_TOWERS)
PARTS = ("mixed", "domain", "large", "ids", "adaptdhm")
MODELS = (PLAIN, PYTORCHS, "star", "shared_bottom", "adaptdhm", "mmoe", "cross_stitch", "ple", ALL_TOWERS)
BY_DOMAIN = (PLAIN, PYTORCHS, "star", "shared_bottom", "adaptdhm")
CLUSTERS = 9  # the paper's best on its public data set
PLAIN_INPUTS = {"embedding_dim": WIDTH, "auxiliary": False}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured."""

    domains: Sequence[int] = (3, 30, 100, 300)
    widths: Sequence[int] = (256, 128, 64)
    batch: int = 4096
    large: tuple[int, int] = (300, 16384)
    ids: Sequence[int] = (1_000_000, 10_000_000)
    paper: Sequence[int] = (33, 100)
    paper_widths: Sequence[int] = (512, 256, 128, 64, 32)
    paper_batch: int = 2048
    few_ids: int = 20_000
    batches: int = 16


QUICK = Sizes(
    domains=(3, 10),
    widths=(16, 8),
    batch=256,
    large=(10, 512),
    ids=(20_000, 200_000),
    paper=(3, 10),
    paper_widths=(16, 8),
    paper_batch=256,
    batches=4,
)


def main() -> None:
    """Measure, tell."""
    parser = measure.parser("domains", __doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--every", type=int, default=100, help="domains up to which every row meets all (100)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    given = parser.parse_args()
    setting = measure.setting(given)
    sizes = QUICK if setting.quick else Sizes()
    target = setting.results / "domains.json"
    content: Figures = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    steps: dict[str, Callable[[], Any]] = {
        "mixed": lambda: by_domains(given, setting, sizes, one_domain=False),
        "domain": lambda: by_domains(given, setting, sizes, one_domain=True),
        "large": lambda: large(given, setting, sizes),
        "ids": lambda: by_ids(setting, sizes),
        "adaptdhm": lambda: paper(setting, sizes),
    }
    for name in given.only:
        runs = steps[name]()
        content[name] = {"head": measure.head(setting), "runs": runs}
        content["shows"] = shows(content)
        measure.keep(setting, "domains", content, markdown(content))
    print("\n".join(markdown(content)))
    if target.parent.is_dir():
        plot(content, target.with_suffix(".png"))


# --- what is measured --------------------------------------------------------------------------------------------


def by_domains(given: argparse.Namespace, setting: Setting, sizes: Sizes, *, one_domain: bool) -> list[Figures]:
    """Every model at every number of domains, both kinds of shares."""
    return [
        taken(given, setting, sizes, domains=domains, skewed=skewed, one_domain=one_domain, rows=sizes.batch)
        for skewed in (False, True)
        for domains in sizes.domains
    ]


def large(given: argparse.Namespace, setting: Setting, sizes: Sizes) -> list[Figures]:
    """Many domains, large batches."""
    domains, rows = sizes.large
    return [taken(given, setting, sizes, domains=domains, skewed=s, rows=rows) for s in (False, True)]


def paper(setting: Setting, sizes: Sizes) -> list[Figures]:
    """AdaptDHM beside both kinds of STAR, as in its Figure 3."""
    models = argparse.Namespace(models=("adaptdhm", "star", PLAIN, ALL_TOWERS), every=max(sizes.paper))
    widths, rows = sizes.paper_widths, sizes.paper_batch
    return [taken(models, setting, sizes, domains=d, widths=widths, rows=rows) for d in sizes.paper]


def taken(
    given: argparse.Namespace,
    setting: Setting,
    sizes: Sizes,
    *,
    domains: int,
    rows: int,
    widths: Sequence[int] | None = None,
    skewed: bool = False,
    one_domain: bool = False,
) -> Figures:
    """One row of a table: seconds per step of each model, all in turn."""
    chosen = [m for m in given.models if m not in EVERY_ROW or (domains <= given.every and rows <= sizes.batch)]
    if one_domain:
        chosen = [m for m in chosen if m in BY_DOMAIN]
    draw = Draw(schema=inputs(domains, sizes.few_ids), shares=zipf(domains) if skewed else None)
    batches = draw.batches(rows, 4 * sizes.batches if one_domain else sizes.batches, one_domain=one_domain)
    steps = {name: step(name, draw.schema, batches, widths or sizes.widths) for name in chosen}
    found = measure.interleaved(
        steps, rounds=setting.rounds, clock=setting.clock, at_least=0 if setting.quick else TURN
    )
    line = {"domains": domains, "rows": rows, "shares": "Zipf" if skewed else "even", "seconds": found}
    print({**line, "seconds": {name: statistics.median(s) for name, s in found.items()}}, file=sys.stderr)
    return line


def step(name: str, schema: InputSchema, batches: Sequence[Any], widths: Sequence[int]) -> Any:
    """A training step of that model with these widths."""
    if name == ALL_TOWERS:
        from .towers import AllTowersStar, DenseStep

        return DenseStep(AllTowersStar(schema, hidden=list(widths)), batches)
    if name == PYTORCHS:
        made = step(PLAIN, schema, batches, widths)
        for module in made.model.modules():
            if type(module) is Linear:
                module.__class__ = nn.Linear
        return made
    options: dict[str, dict[str, Any]] = {
        "shared_bottom": {"hidden": [], "tower": list(widths)},
        "adaptdhm": {"hidden": list(widths), "clusters": CLUSTERS},
        "mmoe": {"hidden": list(widths), "tower": []},
        "ple": {"hidden": list(widths), "tower": [], "levels": 1},
    }
    own = options.get(name, {"hidden": list(widths)})
    return TrainingStep(name, schema, batches, model={**PLAIN_INPUTS, **own})


def by_ids(setting: Setting, sizes: Sizes) -> list[Figures]:
    """The embedding alone: lookup, backward, update."""
    steps = {}
    for ids in sizes.ids:
        draw = Draw(schema=inputs(1, ids))
        steps[f"{ids:,}"] = EmbeddingStep(draw.schema, draw.batches(sizes.batch, sizes.batches), features=WIDTH)
    at_least = 0 if setting.quick else TURN
    found = measure.interleaved(steps, rounds=setting.rounds, clock=setting.clock, at_least=at_least)
    return [{"rows": sizes.batch, "seconds": found}]


def inputs(domains: int, ids: int) -> InputSchema:
    """Fields that share the ids evenly."""
    sizes = {f"field_{number}": max(ids // FIELDS, 3) for number in range(FIELDS)}
    return InputSchema(domains=domains, vocabularies=sizes, categorical=tuple(sizes))


def zipf(domains: int) -> list[float]:
    """Shares that fall as 1, 1/2, 1/3 …"""
    weights = [1 / (number + 1) for number in range(domains)]
    return [weight / sum(weights) for weight in weights]


# --- what it shows -----------------------------------------------------------------------------------------------


def shows(content: Figures) -> list[Figures]:
    """The ratios that are promised, each with its floor or ceiling and what was found; those that were measured."""
    found = []

    def say(what: str, value: float | None, bound: float | None, *, at_most: bool = False) -> None:
        if value is not None:
            met = None if bound is None else (value <= bound if at_most else value >= bound)
            found.append({"what": what, "found": value, "bound": bound, "at_most": at_most, "met": met})

    def beside(where: str, line: Figures, bound: float) -> None:
        say(f"STAR / plain tower, {where}", speed(line, "star", PLAIN), bound)
        say(f"STAR / plain tower with PyTorch's products, {where}", speed(line, "star", PYTORCHS), None)

    for line in lines_of(content, "mixed"):
        if line["domains"] == 100:
            beside(f"100 domains, mixed, {line['shares']} shares", line, 0.4)
            say(
                f"STAR / all towers, 100 domains, mixed, {line['shares']} shares", speed(line, "star", ALL_TOWERS), None
            )
    for line in lines_of(content, "domain"):
        if line["domains"] == 100:
            beside(f"100 domains, one per batch, {line['shares']} shares", line, 0.85)
    for line in lines_of(content, "large"):
        beside(f"{line['domains']} domains, batch {line['rows']:,}, {line['shares']} shares", line, 0.4)
    for line in lines_of(content, "ids"):
        few, many = line["seconds"]
        say(f"time of the embedding, {many} ids / {few}", speed(line, few, many), 1.25, at_most=True)
    for line in lines_of(content, "adaptdhm"):
        of = f"AdaptDHM's time, {line['domains']} domains"
        say(f"{of} / all-towers STAR's", speed(line, ALL_TOWERS, "adaptdhm"), 0.5, at_most=True)
        say(f"{of} / our STAR's", speed(line, "star", "adaptdhm"), None)
    return found


def lines_of(content: Figures, part: str) -> list[Figures]:
    runs: list[Figures] = content.get(part, {}).get("runs", [])
    return runs


def speed(line: Figures, name: str, base: str) -> float | None:
    """Rows/s of one model over those of another: the median over rounds."""
    seconds = line["seconds"]
    return measure.ratio(seconds[base], seconds[name]) if name in seconds and base in seconds else None


TITLES = {
    "mixed": "Mixed batches",
    "domain": "Batches of one domain each",
    "large": "Large mixed batches",
    "adaptdhm": f"AdaptDHM with {CLUSTERS} clusters, the widths of its paper",
}


def markdown(content: Figures) -> list[str]:
    """All figures, the ratios first."""
    lines = ["# Training against the number of domains and of ids", ""]
    rows = [
        [one["what"], f"{one['found']:.2f}", _bound(one), {True: "yes", False: "no", None: ""}[one["met"]]]
        for one in content["shows"]
    ]
    lines += measure.table(["ratio of rows/s, or of time", "found", "wanted", "met"], rows)
    for part, title in TITLES.items():
        if part not in content:
            continue
        runs = content[part]["runs"]
        names = [name for name in MODELS if any(name in line["seconds"] for line in runs)]
        lines += ["", f"## {title}", "", *measure.head_lines(content[part]["head"])]
        lines += ["Rows/s, and of the plain tower's:", ""]
        columns = ["domains", "shares", "rows", *names]
        lines += measure.table(columns, [_cells(line, names) for line in runs])
    if "ids" in content:
        lines += ["", "## The embedding alone", "", *measure.head_lines(content["ids"]["head"])]
        line = content["ids"]["runs"][0]
        rows = [
            [ids, f"{1000 * statistics.median(s):.2f}", f"{line['rows'] / statistics.median(s):,.0f}"]
            for ids, s in line["seconds"].items()
        ]
        lines += measure.table(["ids", "ms per step", "rows/s"], rows)
    return lines


def _bound(one: Figures) -> str:
    return "" if one["bound"] is None else f"{'≤' if one['at_most'] else '≥'} {one['bound']:g}"


def _cells(line: Figures, names: Sequence[str]) -> list[str]:
    cells = [f"{line['domains']:,}", line["shares"], f"{line['rows']:,}"]
    for name in names:
        seconds = line["seconds"].get(name)
        of_plain = None if name == PLAIN else speed(line, name, PLAIN)
        share = "" if of_plain is None else f" ({of_plain:.2g})"
        cells.append(f"{line['rows'] / statistics.median(seconds):,.0f}{share}" if seconds else "")
    return cells


def plot(content: Figures, target: Any) -> None:
    """Rows/s against domains, mixed batches and those of one domain, even shares."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = [part for part in ("mixed", "domain") if part in content]
    if not parts:
        return
    figure, axes = pyplot.subplots(
        1, len(parts), figsize=(5 * len(parts) + 1.5, 4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, part in zip(axes[0], parts, strict=True):
        runs = [line for line in content[part]["runs"] if line["shares"] == "even"]
        for name in MODELS:
            points = [
                (r["domains"], r["rows"] / statistics.median(r["seconds"][name])) for r in runs if name in r["seconds"]
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="domains", title=TITLES[part])
        axis.set_xticks(ticks := sorted({line["domains"] for line in runs}), [str(tick) for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("rows/s of a training step")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
