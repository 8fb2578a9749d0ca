"""The point-in-time join at scale: speed and memory of the training frame, cost per row of short and of long keys.

    python -m benchmarks.asof --folder /somewhere/large

Measured in processes of their own: ``TrainingFrame`` on written tables of growing size, held to plain SQL on every row
(``frames``); one call for all those rows at once (``calls``); slices of one number of rows in keys of ten and of very
many rows (``keys``); the same beside Feast's own DuckDB store, on few rows because its join pairs all rows of a key
(``few``). ``--only`` measures some of them again and keeps what was found of the others. Figures of a shared machine
are good for their ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from . import asof_tables
from .measure import RESULTS, Figures, peak_mib

STORES = {"as-of": "multidomain.features.asof.AsofOfflineStore", "Feast's own": "duckdb"}
PARTS = ("frames", "calls", "keys", "few")


def main() -> None:
    """Write, join, check, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asof", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000], help="of the training frames")
    parser.add_argument("--keys", type=int, nargs=3, default=[2_000_000, 10, 100_000], help="rows; rows per key, twice")
    parser.add_argument("--few", type=int, nargs=3, default=[20_000, 10, 2_000], help="the same, for both stores")
    parser.add_argument("--turns", type=int, nargs=2, default=[5, 3], help="of the runs by keys; of both stores")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(**json.loads(given.child))))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], list[Figures]]] = {
        "frames": lambda: [frame(given.folder, rows) for rows in given.rows],
        "calls": lambda: [frame(given.folder, rows, steps=("write", "call")) for rows in given.rows],
        "keys": lambda: by_key(given.folder, given.keys, ["as-of"], given.turns[0]),
        "few": lambda: by_key(given.folder, given.few, list(STORES), given.turns[1]),
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / "asof.json"
    kept = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    content = kept | {"date": date.today().isoformat(), "cores": os.cpu_count()}
    for name in given.only:
        content[name] = parts[name]()
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = markdown(content)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def frame(folder: Path, rows: int, steps: tuple[str, ...] = ("write", "frame", "check")) -> Figures:
    """Written tables and views, the join, the check; nothing of them is left."""
    place, found = folder / f"frame-{rows}", {"rows": rows}
    for step in steps:
        options = {"rows": rows} if step == "write" else {}
        found[step] = measured(place, step=step, folder=str(place), **options)
    shutil.rmtree(place)
    return found


def by_key(folder: Path, shape: list[int], stores: list[str], turns: int) -> list[Figures]:
    """So many rows in keys of one length and of another, each store and length in its turn."""
    rows, *lengths = shape
    runs: dict[tuple[str, int], list[Figures]] = {(store, length): [] for store in stores for length in lengths}
    for length in lengths:
        asof_tables.keyed(folder / f"keys-{length}", rows, length)
    for _ in range(turns):
        for store, length in runs:
            place = folder / f"keys-{length}"
            runs[store, length].append(measured(place, step="join", folder=str(place), store=STORES[store]))
    for length in lengths:
        shutil.rmtree(folder / f"keys-{length}")
    return [{"store": store, "rows": rows, "length": length, "runs": found} for (store, length), found in runs.items()]


# --- one process each --------------------------------------------------------------------------------------------


def measured(place: Path, **what: Any) -> Figures:
    """What a step found, its seconds and CPU seconds without imports, and the most memory its process ever held."""
    print(what, file=sys.stderr)
    command = [sys.executable, "-m", "benchmarks.asof", "--folder", str(place), "--child", json.dumps(what)]
    environment = os.environ | {"MULTIDOMAIN_DATA": str((place / "data").resolve())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    print(found, file=sys.stderr)
    return found


def child(*, step: str, folder: str, **options: Any) -> Figures:
    """Run one step of :mod:`benchmarks.asof_tables` or :func:`join`."""
    steps = {
        "write": asof_tables.write,
        "frame": asof_tables.join,
        "call": asof_tables.call,
        "check": asof_tables.check,
    }
    return (steps | {"join": join})[step](Path(folder), **options) | {"peak_mib": peak_mib()}


def join(folder: Path, *, store: str) -> Figures:
    """All entity rows of the folder through ``get_historical_features``, in slices as of a training frame."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from multidomain.features.frame import SLICE

    opened = asof_tables.opened(folder, store)
    slices = pq.ParquetFile(folder / "asked.parquet")
    refs = ["state:value", "state:items"]

    def ask(entities: Any) -> int:
        entities = entities.to_pandas() if store == "duckdb" else entities
        return opened.get_historical_features(features=refs, entity_df=entities).to_arrow().num_rows

    ask(pa.Table.from_batches([next(slices.iter_batches(batch_size=100))]))  # imports, and the registry's first look
    came, start, cpu = 0, time.perf_counter(), time.process_time()
    for batch in slices.iter_batches(batch_size=SLICE):
        came += ask(pa.Table.from_batches([batch]))
    taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    if came != slices.metadata.num_rows:
        raise SystemExit(f"{slices.metadata.num_rows} rows went in, {came} came out.")
    return taken


# --- the table ---------------------------------------------------------------------------------------------------


def markdown(content: Figures) -> str:
    """All figures, with what they are of."""
    lines = [
        f"The point-in-time join ({content['date']}, {content['cores']} shared cores)",
        "",
        "Training frames, one run each: six views, among them histories of 20 and counts after every instant; users of "
        "1 to tens of thousands of rows. Cells are held to a window query of plain SQL, all of them.",
        "",
        "| rows | views written | frame | rows/s | most memory | longest key | rows checked | cells that differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in content["frames"]:
        written, joined, checked = run["write"], run["frame"], run["check"]
        cells = [
            f"{run['rows']:,}",
            f"{written['seconds']:,.0f} s",
            f"{joined['seconds']:,.0f} s",
            f"{run['rows'] / joined['seconds']:,.0f}",
            f"{joined['peak_mib']:,} MiB",
            f"{checked['longest']:,} rows",
            f"{checked['rows']:,} × {checked['views']} views",
            f"{checked['differing']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "One call of `get_historical_features` for all of those rows, in no order, and all their features but the "
        "lists; the result is part of the memory.",
        "",
        "| rows | seconds | rows/s | most memory | of that the result |",
        "|---|---|---|---|---|",
    ]
    for run in content["calls"]:
        rows, called = run["rows"], run["call"]
        lines.append(
            f"| {rows:,} | {called['seconds']:,.0f} s | {rows / called['seconds']:,.0f} | {called['peak_mib']:,} MiB "
            f"| {called['result_mib']:,} MiB |"
        )
    for name, text in (("keys", "As many rows in short keys and in long ones"), ("few", "Both stores, few rows")):
        turns = len(content[name][0]["runs"])
        lines += [
            "",
            f"{text}: a number and a list of ten per feature row, as many entity rows as feature rows; medians of "
            f"{turns} runs, in turn.",
            "",
            "| store | rows | rows per key | µs per row | CPU µs per row | against short keys | most memory |",
            "|---|---|---|---|---|---|---|",
            *_by_key(content[name]),
        ]
    return "\n".join(lines) + "\n"


def _by_key(runs: list[Figures]) -> list[str]:
    lines, short = [], {}
    for run in runs:
        wall, cpu = (1e6 * statistics.median(r[name] for r in run["runs"]) / run["rows"] for name in ("seconds", "cpu"))
        base = short.setdefault(run["store"], (wall, cpu))
        most = max(r["peak_mib"] for r in run["runs"])
        lines.append(
            f"| {run['store']} | {run['rows']:,} | {run['length']:,} | {wall:,.2f} | {cpu:,.2f} "
            f"| {wall / base[0]:.2f} (CPU {cpu / base[1]:.2f}) | {most:,} MiB |"
        )
    return lines


if __name__ == "__main__":
    main()
