"""What the benchmarks share: timing in turn, medians and ratios, tables, and where figures are from."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
ROUNDS = 7  # of a full measurement; a quick one has fewer, which show that it runs and little else
Figures = dict[str, Any]
CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a benchmark was asked to run.

    Attributes:
        quick: the smallest sizes and few rounds.
        rounds: how often everything is timed in turn.
        threads: of PyTorch.
        results: where tables are written.
        clock: wall (seconds that pass) or cpu (seconds that this process works, which others do not lengthen as much).
    """

    quick: bool
    rounds: int
    threads: int
    results: Path
    clock: str


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; :func:`setting` reads them."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="small sizes, two rounds: does it run?")
    made.add_argument("--rounds", type=int, help=f"everything in turn so often ({ROUNDS}; quick: 2)")
    made.add_argument("--threads", type=int, default=1, help="of PyTorch (1)")
    made.add_argument("--clock", choices=CLOCKS, help="cpu in one thread, wall in several")
    made.add_argument("--results", type=Path, help="where tables go (benchmarks/results; quick: nowhere)")
    return made


def setting(given: argparse.Namespace) -> Setting:
    """Take the options, and set the number of threads."""
    import torch

    torch.set_num_threads(given.threads)
    folder = given.results or (Path(os.devnull) if given.quick else RESULTS)
    return Setting(
        quick=given.quick,
        rounds=given.rounds or (2 if given.quick else ROUNDS),
        threads=given.threads,
        results=folder,
        clock=given.clock or ("cpu" if given.threads == 1 else "wall"),
    )


# --- timing ------------------------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any], times: int = 1, clock: str = "wall") -> float:
    """What a call takes, the mean of so many."""
    now = CLOCKS[clock]
    start = now()
    for _ in range(times):
        call()
    return (now() - start) / times


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, rounds: int, clock: str = "wall", at_least: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each call, round by round: all of them once before any comes again.

    Whatever else the machine does meets all of them, so the ratio of two calls within a round is good where the seconds
    themselves are not. Every second round goes backwards. One call of each before the first round does not count.

    Args:
        calls: by name.
        rounds: how many figures each gets.
        clock: one of ``CLOCKS``.
        at_least: seconds of one turn; a shorter call is made several times in it, and their mean is its figure.
    """
    times = {}
    for name, call in calls.items():
        call()
        times[name] = 1 if at_least == 0 else max(1, math.ceil(at_least / seconds(call)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else list(reversed(calls)):
            taken[name].append(seconds(calls[name], times[name], clock))
    return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over rounds of one figure over another of the same round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def spread(above: Sequence[float], below: Sequence[float]) -> str:
    """The median of the ratios within rounds, and the smallest and the largest of them: how far to trust it."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def ratios(taken: Mapping[str, Sequence[float]], base: str) -> dict[str, float]:
    """Of every name, :func:`ratio` to ``base``."""
    return {name: ratio(figures, taken[base]) for name, figures in taken.items()}


# --- telling -----------------------------------------------------------------------------------------------------


def head(setting: Setting) -> Figures:
    """Machine, versions, revision and command: what stands above every table."""
    import torch

    return {
        "date": date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {len(os.sched_getaffinity(0))} of them used",
        "threads": setting.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "revision": revision(ROOT),
        "command": command(),
        "load": "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg()),
        "rounds": setting.rounds,
        "clock": setting.clock,
    }


def head_lines(head: Figures, what: str = "medians of {rounds} interleaved rounds") -> list[str]:
    """The head as Markdown; ``what`` says what a figure is."""
    clock = {"cpu": "time that the process worked", "wall": "time that passed"}[head["clock"]]
    return [
        f"{head['date']}, {head['machine']}, {head['threads']} thread{'s' * (head['threads'] > 1)}, "
        f"PyTorch {head['torch']}, Python {head['python']}; load average at the end {head['load']}. "
        f"Revision {head['revision']}: `{head['command']}`; {clock}, {what.format(**head)}.",
        "",
    ]


def processor() -> str:
    """Its name, and the widest vectors it has: they decide what a matrix product costs."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    facts = {}  # of the last core
    for line in text.splitlines():
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    flags = facts.get("flags", "").split()
    widest = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    return f"{facts.get('model name', platform.processor() or platform.machine())} ({(widest or ['no vectors'])[0]})"


def revision(folder: Path) -> str:
    """The commit of a checkout, marked where files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "conf")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def command() -> str:
    """The command line, with the last part of every path."""
    module = getattr(sys.modules["__main__"].__spec__, "name", None)
    name = (module or Path(sys.argv[0]).name).removesuffix(".__main__")
    words = [f"…/{Path(word).name}" if os.sep in word else word for word in sys.argv[1:]]
    return " ".join(["python -m", name, *words])


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table; the first column is on the left, the others on the right."""
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return [*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)]


def save(setting: Setting, name: str, content: Figures, lines: Sequence[str]) -> None:
    """Print the lines, and keep them."""
    print("\n".join(lines))
    keep(setting, name, content, lines)


def keep(setting: Setting, name: str, content: Figures, lines: Sequence[str]) -> None:
    """Write the lines to ``<name>.md`` and the figures to ``<name>.json``, unless there is no folder for results."""
    if setting.results == Path(os.devnull):
        return
    setting.results.mkdir(parents=True, exist_ok=True)
    (setting.results / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (setting.results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def peak_mib() -> int:
    """The most memory this process ever had, mapped files included, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[0]) >> 10
