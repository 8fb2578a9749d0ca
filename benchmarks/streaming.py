"""Simulated days with morning and evening peaks as a stream: the buffer beside chronological order (STAR, section 4.4).

The run with the buffer is killed (kill -9) on the way and started again; the ledger says how often each row was learnt,
and a third, undisturbed run whether the weights are the same. Memory is that of the process that trains.

Each model is judged twice: on the rows that come next, before it learns them, and at the end of every window on the
same rows of whole days that nobody learns. The first asks how well it follows the day, the second how much the day
changes it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from . import measure

if TYPE_CHECKING:
    from multidomain.streaming.stream import Stream

MODEL = {"embedding_dim": 16, "hidden": [128, 64, 32]}
RATE = 0.001
LIMIT = 6 * 3600  # seconds of one run
AT_ONCE = 10_000  # held-out rows scored together


def child(folder: Path, kept: Path, settings: dict[str, Any]) -> None:
    """One run, in a process of its own: what ``stream_star`` does, with a look at held-out rows for each version."""
    import torch

    from multidomain.encoder import Encoder
    from multidomain.streaming.folder import FolderSource
    from multidomain.streaming.options import StreamOptions
    from multidomain.streaming.rows import wanted
    from multidomain.streaming.stream import Beginning, Stream
    from multidomain.training.config import TrainingConfig

    os.environ.setdefault("OMP_NUM_THREADS", str(settings["threads"]))
    torch.set_num_threads(settings["threads"])
    encoder = Encoder.load(folder / "encoder")
    stream = Stream(
        architecture=settings["architecture"],
        config=MODEL,
        begin=lambda: Beginning(encoder=encoder),
        options=StreamOptions.read(settings["stream"]),
        training=TrainingConfig(batch_size=settings["batch_size"], learning_rate=RATE),
        seed=1,
        folder=kept,
        device="cpu",
        package=Looks(folder, kept, settings["stream"]["package_rows"]),
    )
    progress = stream.run(FolderSource(folder / "files", wanted(encoder), poll_seconds=0.1))
    sizes = {name: len(values) for name, values in stream.encoder.vocabularies.items()}
    (kept / "ended.json").write_text(json.dumps({**vars(progress), "vocabularies": sizes}))


class Looks:
    """What the model of a stream says of the rows that are held out, again and again, as windows of metrics.

    Args:
        folder: of the stream's files.
        kept: of the run; gets the windows, in ``held_out``.
        every: rows of the stream between two looks.
    """

    def __init__(self, folder: Path, kept: Path, every: int) -> None:
        self.rows, self.kept, self.every = pq.read_table(folder / "held_out.parquet"), kept / "held_out", every

    def __call__(self, stream: Stream) -> None:
        """One look; the same again after a crash takes its place."""
        from multidomain.streaming.prequential import Prequential, Window
        from multidomain.streaming.rows import arrays, typed, wanted

        table, progress = typed(self.rows, wanted(stream.encoder), "held_out.parquet"), stream.progress
        found = Prequential(self.kept, stream.encoder.domains, len(table))
        found.window = Window(number=progress.rows // self.every, start=progress.rows)
        for start in range(0, len(table), AT_ONCE):
            part = table.slice(start, AT_ONCE)
            encoded = arrays(stream.encoder, part)
            found.saw(encoded["label"], stream.score(part), encoded["domain"])


def follow(folder: Path, kept: Path, settings: dict[str, Any], *, kill_at: list[int]) -> dict[str, Any]:
    """Run it to its end, kill it when its checkpoints have come so far, and watch its memory."""
    kept.mkdir(parents=True)
    (kept / "settings.json").write_text(json.dumps(settings))
    start, watched, killed = time.perf_counter(), [], 0
    while not (kept / "ended.json").exists():
        command = [sys.executable, "-m", "benchmarks.streaming", "--child", str(folder), str(kept)]
        process = subprocess.Popen(command, cwd=measure.ROOT, stderr=(kept / "log.txt").open("a"))
        while process.poll() is None:
            time.sleep(0.2)
            rows = _rows(kept)
            if memory := _memory(process.pid):
                watched.append((time.perf_counter() - start, killed, rows, memory))
            if kill_at and rows >= kill_at[0]:
                kill_at = kill_at[1:]
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            if time.perf_counter() - start > LIMIT:
                process.kill()
        if process.returncode not in (0, -signal.SIGKILL):
            raise SystemExit((kept / "log.txt").read_text()[-3000:])
    return {"seconds": time.perf_counter() - start, "killed": killed, "memory": watched, **_told(kept)}


def _rows(kept: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in (kept / "checkpoints").glob("rows-*")), default=0)


def _memory(process: int) -> int:
    """MiB that it holds now."""
    try:
        found = re.findall(r"^VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[0]) >> 10 if found else 0


def _told(kept: Path) -> dict[str, Any]:
    parts = [pq.read_table(path, columns=["impression_id"]) for path in sorted((kept / "ledger").glob("*.parquet"))]
    ids = np.concatenate([part.column(0).to_numpy() for part in parts])
    counts = np.bincount(ids)
    ended = json.loads((kept / "ended.json").read_text())
    return {
        "ended": ended,
        "rows_learnt": len(ids),
        "learnt_once": int((counts == 1).sum()),
        "learnt_twice_or_more": int((counts > 1).sum()),
        "missing": ended["rows"] - int((counts > 0).sum()),
    }


def windows(kept: Path) -> pd.DataFrame:
    """The prequential windows of a run, or its looks at held-out rows."""
    from multidomain.streaming.prequential import windows

    return windows(kept).to_pandas()


def steadiness(table: pd.DataFrame, from_row: int) -> dict[str, float]:
    """How the windows after a row differ: of all rows together, and of domains with 20 clicks or more in a window."""
    late = table[table["first_row"] >= from_row]
    overall = late[late["domain"] == "(overall)"]
    domains = late[~late["domain"].str.startswith("(") & (late["positives"] >= 20)]
    by_domain = domains.groupby("domain")
    return {
        "windows": len(overall),
        "auc": float(np.average(overall["auc"], weights=overall["rows"])),
        "logloss": float(np.average(overall["logloss"], weights=overall["rows"])),
        "auc_deviation": float(overall["auc"].std()),
        "pcoc_deviation": float(overall["pcoc"].std()),
        "pcoc_low": float(overall["pcoc"].min()),
        "pcoc_high": float(overall["pcoc"].max()),
        "pcoc_error_of_domains": float((domains["pcoc"] - 1).abs().mean()),
        "pcoc_deviation_of_domains": float(by_domain["pcoc"].std().mean()),
        "auc_deviation_of_domains": float(by_domain["auc"].std().mean()),
    }


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits."""
    found = []
    for kept in (one, other):
        (checkpoint,) = (kept / "checkpoints").glob("rows-*")
        found.append([(checkpoint / f"{name}.safetensors").read_bytes() for name in ("model", "optimizers")])
    return found[0] == found[1]


def lines(content: dict[str, Any]) -> list[str]:
    """The table."""
    runs, steady, held_out = content["runs"], content["steady"], content["held_out"]
    first = next(iter(runs.values()))
    shown = ["seconds", "killed", "rows_learnt", "learnt_once", "learnt_twice_or_more", "missing"]
    rows = [[key.replace("_", " "), *(f"{run[key]:,.0f}" for run in runs.values())] for key in shown]
    for name, share in (("a fifth", 0.2), ("half", 0.5), ("the end", 1.0)):
        rows.append([f"MiB at {name}", *(f"{_at(run, share):,}" for run in runs.values())])
    for key, label in (("entered", "values entered"), ("left", "values left")):
        rows.append([label, *(f"{run['ended'][key]:,}" for run in runs.values())])
    judged = [
        [key.replace("_", " "), *(f"{found[name][key]:.4g}" for found in (steady, held_out) for name in found)]
        for key in next(iter(steady.values()))
    ]
    return [
        "# A stream with morning and evening peaks",
        "",
        *measure.head_lines(content["head"], "one run each"),
        f"{first['ended']['rows']:,} rows of {content['days']} simulated days, star {MODEL['hidden']}, batches of "
        f"{content['batch_size']:,}, a buffer of {content['buffer_rows']:,} rows, windows of "
        f"{content['report_rows']:,}. With the buffer, the first step comes when it is full.",
        "",
        *measure.table(["", *runs], rows),
        "",
        "The undisturbed run with the buffer ended with "
        + ("the same weights and optimizer states, bit by bit." if content["same"] else "OTHER weights.")
        if content["same"] is not None
        else "No undisturbed run with the buffer was made.",
        "",
        "Windows of the last day: of the rows that come next, scored before they are learnt, and of the same held-out "
        "rows of whole days at the end of each window:",
        "",
        *measure.table(["", *(f"{name}, {kind}" for kind in ("next", "held out") for name in steady)], judged),
        "",
        "![AUC and PCOC over the stream](streaming.png)",
        "",
        "![AUC and PCOC of held-out rows](streaming_held_out.png)",
    ]


def _at(run: dict[str, Any], share: float) -> int:
    """Memory around a share of the rows: the median of 20 looks."""
    total = run["ended"]["rows"]
    looks = [memory for *_, rows, memory in run["memory"] if rows >= 0.8 * share * total][:20]
    if share == 1.0:
        looks = [memory for *_, memory in run["memory"]][-20:]
    return int(statistics.median(looks)) if looks else 0


def main() -> None:
    """Draw, follow, tell."""
    if sys.argv[1:2] == ["--child"]:
        folder, kept = Path(sys.argv[2]), Path(sys.argv[3])
        child(folder, kept, json.loads((kept / "settings.json").read_text()))
        return
    parser = measure.parser("streaming", __doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--architecture", default="star")
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--buffer-share", type=float, default=0.25, help="rows of the buffer, of a day's (0.25)")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where all is kept (a temporary folder)")
    parser.add_argument("--no-undisturbed", action="store_true", help="leave out the third run")
    given = parser.parse_args()
    setting = measure.setting(given)
    rows = 40_000 if given.quick else given.rows
    with tempfile.TemporaryDirectory() as temporary:
        compare(given, setting, rows, given.folder or Path(temporary))


def compare(given: argparse.Namespace, setting: measure.Setting, rows: int, folder: Path) -> None:
    """All runs over one stream."""
    from multidomain.evaluation.plots import save
    from multidomain.streaming.picture import compared

    from . import streaming_day

    if not (folder / "files" / "_SUCCESS").exists():
        print(f"drawing {rows:,} rows …", flush=True)
        streaming_day.write(folder, rows=rows, days=given.days)
    per_day = rows // given.days
    options = {
        "buffer_rows": max(int(per_day * given.buffer_share), given.batch_size),
        "report_rows": max(rows // 50, 2000),
        "checkpoint_rows": max(rows // 20, 2000),
        "package_rows": max(rows // 50, 2000),
        "gate_rows": given.batch_size,
        "ledger": True,
        "vocabulary": {"every": max(per_day // 16, 2000), "minimum_count": 3, "forget_after": per_day // 2},
    }
    runs: dict[str, Any] = {}
    places = {name: folder / name for name in ("buffer", "chronological", "undisturbed")}
    kills = [rows * (number + 1) // (given.kills + 1) for number in range(given.kills)]
    for name, order, kill_at in (
        ("buffer", "buffer", kills),
        ("chronological", "chronological", []),
        *([] if given.no_undisturbed else [("undisturbed", "buffer", [])]),
    ):
        print(f"{name} …", flush=True)
        settings = {
            "architecture": given.architecture,
            "threads": given.threads,
            "batch_size": given.batch_size,
            "stream": {**options, "order": order},
        }
        runs[name] = follow(folder, places[name], settings, kill_at=kill_at)
    orders = ("buffer", "chronological")
    tables = {name: windows(places[name]) for name in orders}
    looks = {name: windows(places[name] / "held_out") for name in orders}
    content = {
        "head": {**measure.head(setting), "clock": "wall"},
        "days": given.days,
        "batch_size": given.batch_size,
        **{name: options[name] for name in ("buffer_rows", "report_rows")},
        "runs": runs,
        "steady": {name: steadiness(table, rows - per_day) for name, table in tables.items()},
        "held_out": {name: steadiness(table, rows - per_day) for name, table in looks.items()},
        "same": None if given.no_undisturbed else same_weights(places["buffer"], places["undisturbed"]),
        "windows": {name: table.to_dict(orient="list") for name, table in tables.items()},
        "looks": {name: table.to_dict(orient="list") for name, table in looks.items()},
    }
    if setting.results != Path(os.devnull):
        setting.results.mkdir(parents=True, exist_ok=True)
        save(compared(tables), setting.results / "streaming.png")
        save(compared(looks, of="held-out"), setting.results / "streaming_held_out.png")
    for run in runs.values():  # enough of them to see a slope
        run["memory"] = run["memory"][:: max(len(run["memory"]) // 200, 1)]
    measure.save(setting, "streaming", content, lines(content))


if __name__ == "__main__":
    main()
