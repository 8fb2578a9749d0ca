"""A pipeline run in a process of its own, watched from outside: seconds and memory of every node."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NODE = re.compile(r" INFO +· (.+)$")  # what ProjectHooks says before a node runs
START = "start"
EVERY = 0.5  # seconds between two looks at the memory


@dataclass(kw_only=True)
class Watched:
    """A run: seconds and peak memory in MiB, of the whole and of each node; a node's CPU seconds."""

    seconds: float = 0.0
    peak_mib: int = 0
    anonymous_mib: int = 0  # without the pages of files that are mapped
    nodes: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._current, self._since, self._worked, self._cpu = START, time.time(), 0.0, 0.0

    def saw(self, resident: int, anonymous: int, cpu: float) -> None:
        """A look at the process, in MiB and the CPU seconds it has used."""
        self.peak_mib, self.anonymous_mib = max(self.peak_mib, resident), max(self.anonymous_mib, anonymous)
        node = self.nodes.setdefault(self._current, {"seconds": 0.0, "cpu": 0.0, "peak_mib": 0})
        node["peak_mib"] = max(node["peak_mib"], resident)
        self._cpu = max(self._cpu, cpu)

    def read(self, line: str, now: float) -> None:
        """A line of the log: perhaps a node begins."""
        found = NODE.search(line.rstrip("\n"))
        if found:
            self.ended(now)
            self._current = found[1]

    def ended(self, now: float) -> None:
        """What ran last has come to its end."""
        node = self.nodes.setdefault(self._current, {"seconds": 0.0, "cpu": 0.0, "peak_mib": 0})
        node["seconds"] += now - self._since
        node["cpu"] += self._cpu - self._worked
        self._since, self._worked = now, self._cpu


def kedro_run(run: Watched, options: Sequence[str], data: Path) -> None:
    """``kedro run`` with these options and this data folder; its log goes to standard error.

    Raises:
        SystemExit: it failed.
    """
    start = time.time()
    run.ended(start)
    with subprocess.Popen(
        [sys.executable, "-m", "kedro", "run", *options],
        env=os.environ | {"MULTIDOMAIN_DATA": str(data.resolve())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        _watch(process, run)
    if process.returncode:
        raise SystemExit(f"kedro run {' '.join(options)} failed with {process.returncode}; its data is in {data}")
    run.seconds = time.time() - start


def _watch(process: subprocess.Popen[str], run: Watched) -> None:
    def look() -> None:
        while process.poll() is None:
            run.saw(*_memory(process.pid), _cpu(process.pid))
            time.sleep(EVERY)

    watcher = threading.Thread(target=look)
    watcher.start()
    assert process.stdout is not None
    follow(process.stdout, run, process.pid)
    process.wait()
    watcher.join()
    run.ended(time.time())


def follow(lines: Iterable[str], run: Watched, pid: int) -> None:
    """Every line to standard error and to the run."""
    for line in lines:
        print(line, end="", file=sys.stderr)
        if NODE.search(line.rstrip("\n")):
            run.saw(*_memory(pid), _cpu(pid))
        run.read(line, time.time())


def _memory(pid: int) -> tuple[int, int]:
    """Resident and anonymous memory of a process, in MiB."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    kib = {name: int(value) for name, value in re.findall(r"^(VmRSS|RssAnon):\s+(\d+)", text, re.MULTILINE)}
    return kib.get("VmRSS", 0) >> 10, kib.get("RssAnon", 0) >> 10


def _cpu(pid: int) -> float:
    """Seconds that a process and those it has waited for have worked."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    ticks = text.rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
