"""How long ``prepare`` takes on raw files of growing size, stage by stage, and how much memory it holds.

    python -m benchmarks.prepare ali_ccp --rows 2000000 20000000 --folder /somewhere/large

Raw files are written first where they are missing. One run each: figures of a shared machine are good for their ratios.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from .measure import RESULTS
from .nodes import Watched, kedro_run


@dataclass(kw_only=True)
class Run(Watched):
    """One ``prepare``."""

    rows: int
    raw_mib: int


def main() -> None:
    """Write, run, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    runs = [measure(given.dataset, rows, given.folder / f"{given.dataset}-{rows}") for rows in given.rows]
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"prepare_{given.dataset}"
    content = {"date": date.today().isoformat(), "cores": os.cpu_count(), "runs": [asdict(run) for run in runs]}
    target.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = markdown(given.dataset, runs)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def measure(dataset: str, rows: int, folder: Path) -> Run:
    """One ``prepare`` from nothing but raw files."""
    raw = folder / "raw" / dataset
    if not raw.exists():
        importlib.import_module(f"benchmarks.raw_files.{dataset}").write(raw, rows=rows)
    run = Run(rows=rows, raw_mib=sum(path.stat().st_size for path in raw.rglob("*") if path.is_file()) >> 20)
    data = folder / f"data-{int(time.time())}"
    kedro_run(run, ["--pipeline=prepare", f"--params=dataset={dataset},raw_folder={raw.parent.resolve()}"], data)
    return run


def markdown(dataset: str, runs: list[Run]) -> str:
    """The table of all runs."""
    lines = [
        f"`prepare` on written raw files of `{dataset}` ({date.today()}, {os.cpu_count()} shared cores, one run each)",
        "",
    ]
    lines.append("| | " + " | ".join(f"{run.rows:,} rows, {run.raw_mib:,} MiB" for run in runs) + " |")
    lines.append("|---" * (len(runs) + 1) + "|")
    for name in runs[-1].nodes:
        cells = [_cell(run.nodes.get(name), run.rows) for run in runs]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    whole = [f"{run.seconds:,.0f} s, {run.rows / run.seconds:,.0f} rows/s, {run.peak_mib:,} MiB" for run in runs]
    lines.append("| **all** | " + " | ".join(whole) + " |")
    lines.append("| without mapped files | " + " | ".join(f"{run.anonymous_mib:,} MiB" for run in runs) + " |")
    return "\n".join(lines) + "\n"


def _cell(node: dict[str, float] | None, rows: int) -> str:
    if node is None:
        return "–"
    return f"{node['seconds']:,.0f} s, {rows / max(node['seconds'], 0.1):,.0f} rows/s, {node['peak_mib']:,.0f} MiB"


if __name__ == "__main__":
    main()
