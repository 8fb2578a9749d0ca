"""What grows with the rows of a log, and how: three sizes are measured, a fourth is predicted and then measured.

    python -m benchmarks.scaling                                 # 250 k, 500 k, 1 M rows; 2 M predicted
    python -m benchmarks.scaling --sizes 100000 200000 400000 --next 1600000

Each is a simulated log of STAR's Table 1 with as many rows per user and item, taken through ``train_star`` with one
epoch from an empty folder. The prediction is a straight line through the three: something that every run pays, and
something for each row. `docs/scaling.md` goes on from there to the papers' sizes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import yaml

from . import measure
from .measure import Figures
from .nodes import START, Watched, kedro_run
from .stages import stages

SIZES, NEXT = (250_000, 500_000, 1_000_000), 2_000_000
QUICK_SIZES, QUICK_NEXT = (2_000, 4_000, 6_000), 8_000
PER_USER, PER_ITEM = 200, 1000  # rows
NAME = "scaled"
LAYERS = ("02_intermediate", "03_primary", "04_feature", "05_model_input", "06_models", "07_model_output")


def main() -> None:
    """Run the sizes, predict, run the next, tell."""
    parser = measure.parser("scaling", __doc__)
    parser.add_argument("--sizes", type=int, nargs=3, metavar="ROWS")
    parser.add_argument("--next", type=int, metavar="ROWS")
    given = parser.parse_args()
    setting = measure.setting(given)
    os.environ["OMP_NUM_THREADS"] = str(setting.threads)
    sizes = given.sizes or (QUICK_SIZES if setting.quick else SIZES)
    last = given.next or (QUICK_NEXT if setting.quick else NEXT)
    named = stages()
    runs = {rows: taken(rows, named) for rows in (*sizes, last)}
    content: Figures = {"runs": runs, "lines": lines({rows: runs[rows] for rows in sizes}), "next": last}
    content["head"] = measure.head(setting) | {"clock": "cpu"}
    measure.save(setting, "scaling", content, markdown(content))


def taken(rows: int, named: Mapping[str, str]) -> dict[str, float]:
    """A run with so many rows: CPU seconds of each stage, most memory, bytes of each layer of the data."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, run = Path(temporary), Watched()
        schema = yaml.safe_load((measure.ROOT / "conf/base/datasets/simulated.yml").read_text(encoding="utf-8"))
        users, items = max(50, rows // PER_USER), max(50, rows // PER_ITEM)
        schema["simulation"] |= {"rows": rows, "users": users, "items": items}
        (folder / f"{NAME}.yml").write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
        os.environ["MULTIDOMAIN_SCHEMAS"] = temporary
        options = f"dataset={NAME},star.training.epochs=1,raw_folder={folder / 'raw'}"
        kedro_run(run, ["--pipeline=train_star", f"--params={options}"], folder / "data")
        found = {"most memory, MiB": float(run.peak_mib), "seconds on the wall": run.seconds}
        for node, one in run.nodes.items():
            stage = f"{named.get(node, 'other' if node != START else START)}, CPU s"
            found[stage] = found.get(stage, 0.0) + one["cpu"]
        found["all, CPU s"] = sum(one["cpu"] for one in run.nodes.values())
        for layer in LAYERS:
            files = (folder / "data" / layer).rglob("*")
            found[f"{layer}, MiB"] = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
    return found


def lines(runs: Mapping[int, Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Of every figure the straight line through the sizes: at no rows, and for a million."""
    rows = np.array(list(runs)) / 1e6
    found = {}
    for name in _names(runs.values()):
        slope, start = np.polyfit(rows, [run.get(name, 0.0) for run in runs.values()], 1)
        found[name] = (float(start), float(slope))
    return found


def markdown(content: Figures) -> list[str]:
    """A line per figure: what was measured, the line through it, the prediction and what came."""
    runs, last = {int(rows): run for rows, run in content["runs"].items()}, content["next"]
    sizes = [rows for rows in runs if rows != last]
    columns = ["figure", *(f"{rows:,}" for rows in sizes), "fixed", "per million", f"{last:,} predicted", "measured"]
    rows = []
    for name, (start, slope) in content["lines"].items():
        told = start + slope * last / 1e6
        found = [runs[size].get(name, 0.0) for size in sizes]
        cells = [*found, start, slope, told, runs[last].get(name, 0.0)]
        rows.append([name, *(f"{cell:,.1f}" for cell in cells), f"{_off(told, cells[-1])}"])
    what = "one run of each size"
    head = ["# What grows with the rows", "", *measure.head_lines(content["head"], what)]
    return [*head, *measure.table([*columns, "measured / predicted"], rows)]


def _off(told: float, found: float) -> str:
    return f"{found / told:.2f}" if told > 0 else ""


def _names(runs: Iterable[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run))


if __name__ == "__main__":
    main()
