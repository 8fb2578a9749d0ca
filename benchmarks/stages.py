"""Where the time of ``make run`` goes: seconds of every stage and node of a pipeline.

    python -m benchmarks.stages                                     # the default pipeline, from nothing
    python -m benchmarks.stages --params domain=genre --raw data/01_raw
    python -m benchmarks.stages --quick                             # a small drawn log

Every round starts with an empty data folder, so files are fetched again unless ``--raw`` says where they lie. One round
unless asked for more. CPU seconds of the process are beside those that passed: on a shared machine they tell more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from . import measure
from .measure import Figures
from .nodes import START, Watched, kedro_run

QUICK = ("--env=smoke", "--params=dataset=simulated")


def main() -> None:
    """Run, tell."""
    given = arguments()
    given.rounds = given.rounds or 1
    given.clock = "wall"
    setting = measure.setting(given)
    options = list(QUICK) if setting.quick else asked(given)
    runs = []
    for _ in range(setting.rounds):
        with tempfile.TemporaryDirectory() as data:
            run = Watched()
            kedro_run(run, options, Path(data))
            runs.append(run)
    content: Figures = {"runs": [asdict(run) for run in runs], "stages": stages(), "head": measure.head(setting)}
    measure.save(setting, "stages", content, markdown(content))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measure.parser("stages", __doc__)
    parser.add_argument("--pipeline", help="the default one")
    parser.add_argument("--params", default="", help="as of kedro run")
    parser.add_argument("--env", help="as of kedro run")
    parser.add_argument("--raw", type=Path, help="the folder of raw files")
    return parser.parse_args(words)


def asked(given: argparse.Namespace) -> list[str]:
    """The options of ``kedro run``."""
    params = [given.params] if given.params else []
    params += [f"raw_folder={given.raw.resolve()}"] if given.raw else []
    named = {"pipeline": given.pipeline, "env": given.env, "params": ",".join(params)}
    return [f"--{name}={value}" for name, value in named.items() if value]


def stages() -> dict[str, str]:
    """Node -> the package of its function, as the log names nodes."""
    from kedro.framework.project import configure_project, pipelines

    configure_project("multidomain")
    found = {}
    for pipeline in pipelines.values():
        for node in pipeline.nodes:
            module = getattr(node.func, "func", node.func).__module__
            found[node.name.replace("_", " ")] = module.removeprefix("multidomain.pipelines.").split(".")[0]
    return found


def markdown(content: Figures) -> list[str]:
    """Per stage and node: seconds, CPU seconds, share of the whole, most memory; medians over rounds."""
    whole = statistics.median(run["seconds"] for run in content["runs"])
    cells = per_node(content["runs"])
    stage_of = {START: START, **content["stages"]}
    rows: list[Sequence[object]] = []
    for stage in dict.fromkeys(stage_of.get(name, "other") for name in cells):
        inside = {name: one for name, one in cells.items() if stage_of.get(name, "other") == stage}
        rows.append(_row(f"**{stage}**", inside.values(), whole))
        if len(inside) > 1:
            rows += [_row(name, [one], whole) for name, one in inside.items()]
    rows.append(_row("**all**", cells.values(), whole))
    title = ["# Where the time of a run goes", "", *measure.head_lines(content["head"], "medians of {rounds} runs")]
    return [*title, *measure.table(["stage or node", "seconds", "CPU seconds", "share", "most memory"], rows)]


def per_node(runs: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """The median of each figure of each node."""
    return {
        name: {
            key: statistics.median(run["nodes"][name][key] for run in runs if name in run["nodes"]) for key in figures
        }
        for name, figures in runs[-1]["nodes"].items()
    }


def _row(name: str, figures: object, whole: float) -> Sequence[object]:
    found: list[Mapping[str, float]] = list(figures)  # type: ignore[call-overload]
    seconds, cpu = (sum(one[key] for one in found) for key in ("seconds", "cpu"))
    peak = max(one["peak_mib"] for one in found)
    return [name, f"{seconds:.1f}", f"{cpu:.1f}", f"{seconds / whole:.0%}", f"{peak:,.0f} MiB"]


if __name__ == "__main__":
    main()
