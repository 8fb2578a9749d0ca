"""``python -m benchmarks.peers``: see the package."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import date
from pathlib import Path

from .. import measure
from . import __doc__ as about
from . import report, settings
from .run import Figures, measured, version
from .worker import APART, SIDES, side

RESULTS = Path(__file__).parents[1] / "results"
NAME = "peers"


def main() -> None:
    """Measure, write, draw."""
    given = options()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    wanted = [
        one
        for one in (settings.quick() if given.quick else settings.full())
        if one.axis in given.axes
        and (not given.models or one.model in given.models)
        and (given.quick or not given.batches or one.batch_size in given.batches)
        and (not given.at or one.place in given.at)
    ]
    given.results.mkdir(parents=True, exist_ok=True)
    content: Figures = {"machine": machine(given), "settings": []}
    for number, setting in enumerate(wanted, start=1):
        print(f"--- {number} of {len(wanted)}: {setting.title}", file=sys.stderr, flush=True)
        found = measured(
            setting,
            folder=given.folder,
            rounds=given.rounds or (2 if given.quick else 5),
            seconds=0.2 if given.quick else 1.0,
            sides=given.sides,
            profile=50 if given.profile else 0,
        )
        content["settings"].append(found)
        report.write(content, given.results / NAME)
        print(report.brief(found), file=sys.stderr, flush=True)
    report.draw(content, given.results)
    print((given.results / f"{NAME}.md").read_text(encoding="utf-8"))


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small settings, two rounds: figures without meaning")
    parser.add_argument("--axes", nargs="+", choices=settings.AXES, default=settings.AXES)
    parser.add_argument("--models", nargs="+", choices=("dnn", "din", *settings.TASKS))
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--at", nargs="+", type=int, help="places on the axes: so many ids, domains, events")
    parser.add_argument("--sides", nargs="+", choices=(*SIDES, APART), default=SIDES)
    parser.add_argument("--bf16", action="store_true", help="ours with products in bf16 beside all others")
    parser.add_argument("--rounds", type=int, help="slices of every side (5)")
    parser.add_argument("--threads", type=int, default=1, help="of every side's arithmetic; loaders have their own")
    parser.add_argument("--profile", action="store_true", help="where a step of ours spends its time")
    parser.add_argument("--folder", type=Path, default=Path("build/peers"), help="where logs are written and kept")
    parser.add_argument("--results", type=Path, help="where tables go: benchmarks/results; of --quick, beside the logs")
    given = parser.parse_args()
    if given.bf16 and APART not in given.sides:
        given.sides = [*given.sides, APART]
    given.results = given.results or (given.folder if given.quick else RESULTS)
    return given


def machine(given: argparse.Namespace) -> Figures:
    """Where and when, and of what."""
    packages = {name: side(name).PACKAGE for name in given.sides}
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": given.threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", *filter(None, packages.values()))},
        "command": measure.command(),
        "quick": given.quick,
        "load": round(os.getloadavg()[0], 1),
    }


def processor() -> str:
    """Its name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
