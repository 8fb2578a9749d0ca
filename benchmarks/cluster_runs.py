"""A cluster of its own on this machine, whose servers may be killed one by one, and what is run on it."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import standalone
from .servers import MLflow, Redis, kill

PROJECT = Path(__file__).parents[1]
LIMIT = 1200.0  # seconds of one run
NODE = re.compile(r" INFO +(· .+)$")
Action = tuple[float, Callable[[], None]]  # seconds after a line, and what to do then


class Stoppable(Protocol):
    """A server that can be killed and started again."""

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...


class Cluster:
    """Servers by name, and which of them are up.

    Args:
        servers: none of them is up yet.
        environment: where a run finds them.
    """

    def __init__(self, servers: Mapping[str, Stoppable], environment: Mapping[str, str]) -> None:
        self._servers, self.environment = dict(servers), dict(environment)
        self._up: set[str] = set()

    def start(self, names: Sequence[str] | None = None) -> None:
        """Those of them that are not up; all where no names are given."""
        for name in self._servers if names is None else names:
            if name not in self._up:
                print(f"   starting {name} …", flush=True)
                self._servers[name].start()
                self._up.add(name)

    def kill(self, names: Sequence[str]) -> None:
        """SIGKILL."""
        for name in names:
            print(f"   SIGKILL to {name}", flush=True)
            self._servers[name].kill()
            self._up.discard(name)

    def stop(self) -> None:
        """All of them, those too that were killed: their logs are closed."""
        with contextlib.ExitStack() as all_of_them:
            for server in self._servers.values():
                all_of_them.callback(server.stop)


@contextlib.contextmanager
def clustered(folder: Path) -> Iterator[Cluster]:
    """A cluster, nothing of which outlives the block."""
    redis, mlflow = Redis(folder, kept=True), MLflow(folder)
    with standalone.running(folder / "spark", 0) as master:
        workers = {f"worker {number}": standalone.Worker(folder / "spark", number, master) for number in (1, 2)}
        environment = {
            "MULTIDOMAIN_SPARK_MASTER": master,
            "MULTIDOMAIN_REDIS": redis.address,
            "MLFLOW_TRACKING_URI": mlflow.address,
        }
        cluster = Cluster({**workers, "redis": redis, "mlflow": mlflow}, environment)
        try:
            yield cluster
        finally:
            cluster.stop()


def command(pipeline: str) -> list[str]:
    """The command of a run, as its user would give it."""
    return ["kedro", "run", "--env=cluster", f"--pipelines={pipeline}", "--only-missing-outputs"]


@dataclass(frozen=True)
class Run:
    """How a command ended.

    Attributes:
        code: its exit status.
        lines: what it printed.
        left: how many actions were not due when it ended, all of them where the line was never printed.
    """

    code: int
    lines: list[str]
    left: int


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs on one data folder.

    Attributes:
        cluster: where they compute.
        parameters: of each.
        data: the data folder.
        logs: what they print is kept there.
        environment: more variables of each.
    """

    cluster: Cluster
    parameters: str
    data: Path
    logs: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, pipeline: str, log: str, *, at: str | None = None, actions: Sequence[Action] = ()) -> Run:
        """Run a pipeline to its end; what ``at`` and ``actions`` do is said at :func:`followed`."""
        said = command(pipeline)
        print(f"   {' '.join(said)}", flush=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        return followed(
            [sys.executable, "-m", *said, f"--params={self.parameters}"],
            self.logs / f"{log}.log",
            environment={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "MULTIDOMAIN_DATA": str(self.data),
                **self.cluster.environment,
                **self.environment,
            },
            at=at,
            actions=actions,
        )


def followed(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    at: str | None = None,
    actions: Sequence[Action] = (),
) -> Run:
    """Run a command to its end, and act so many seconds after it has printed a line.

    Args:
        command: its program and arguments.
        log: what it prints is kept there.
        environment: its variables.
        at: part of the line.
        actions: seconds after the line, and what to do then, in order.

    Raises:
        RuntimeError: it takes longer than ``LIMIT``. It has been ended then, as after any error.
    """
    until = time.monotonic() + LIMIT
    due: list[Action] = []
    lines: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    printed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, printed), daemon=True).start()
    try:
        with log.open("w", encoding="utf-8") as file:
            while True:
                while due and time.monotonic() >= due[0][0]:
                    due.pop(0)[1]()
                if time.monotonic() > until:
                    raise RuntimeError(f"A run was not over within {LIMIT:.0f} s: see {log}")
                try:
                    line = printed.get(timeout=0.1)
                except queue.Empty:
                    continue
                if line is None:
                    return Run(process.wait(timeout=60), lines, len(due) if at is None else len(due) + len(actions))
                lines.append(line)
                file.write(line + "\n")
                file.flush()
                if node := NODE.search(line):
                    print(f"      {node[1]}", flush=True)
                if at is not None and at in line:
                    at, now = None, time.monotonic()
                    due = [(now + seconds, action) for seconds, action in actions]
    finally:
        kill(process)


def _read(process: subprocess.Popen[str], printed: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        printed.put(line.rstrip("\n"))
    printed.put(None)
