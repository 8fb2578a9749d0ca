"""How long ``prepare`` takes on raw files of growing size, stage by stage, and how much memory it holds.

    python -m benchmarks.prepare ali_ccp --rows 2000000 20000000 --folder /somewhere/large

Raw files are written first where they are missing. One run each: figures of a shared machine are good for their ratios.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
NODE = re.compile(r" INFO +· (.+)$")
EVERY = 0.5  # seconds between two looks at the memory


@dataclass(kw_only=True)
class Run:
    """One ``prepare``: seconds and peak memory in MiB, of the whole and of each node."""

    rows: int
    raw_mib: int
    seconds: float = 0.0
    peak_mib: int = 0
    anonymous_mib: int = 0  # without the pages of files that are mapped
    nodes: dict[str, dict[str, float]] = field(default_factory=dict)


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
    command = [sys.executable, "-m", "kedro", "run", "--pipeline=prepare"]
    command.append(f"--params=dataset={dataset},raw_folder={raw.parent.resolve()}")
    start = time.time()
    with subprocess.Popen(
        command,
        env=os.environ | {"MULTIDOMAIN_DATA": str(data.resolve())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        _watch(process, run, start)
    if process.returncode:
        raise SystemExit(f"prepare failed with {process.returncode}; its data is in {data}")
    run.seconds = time.time() - start
    return run


def _watch(process: subprocess.Popen[str], run: Run, start: float) -> None:
    """Which node runs, since when, and the most memory seen during it."""
    current = {"name": "start", "since": start}
    run.nodes["start"] = {"seconds": 0.0, "peak_mib": 0}

    def look() -> None:
        while process.poll() is None:
            resident, anonymous = _memory(process.pid)
            run.peak_mib, run.anonymous_mib = max(run.peak_mib, resident), max(run.anonymous_mib, anonymous)
            node = run.nodes[str(current["name"])]
            node["peak_mib"] = max(node["peak_mib"], resident)
            time.sleep(EVERY)

    watcher = threading.Thread(target=look)
    watcher.start()
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", file=sys.stderr)
        found = NODE.search(line)
        if found:
            now = time.time()
            run.nodes[str(current["name"])]["seconds"] = now - float(current["since"])
            run.nodes[found[1]] = {"seconds": 0.0, "peak_mib": 0}
            current.update(name=found[1], since=now)
    process.wait()
    run.nodes[str(current["name"])]["seconds"] = time.time() - float(current["since"])
    watcher.join()


def _memory(pid: int) -> tuple[int, int]:
    """Resident and anonymous memory of a process, in MiB."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    kib = {name: int(value) for name, value in re.findall(r"^(VmRSS|RssAnon):\s+(\d+)", text, re.MULTILINE)}
    return kib.get("VmRSS", 0) >> 10, kib.get("RssAnon", 0) >> 10


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
