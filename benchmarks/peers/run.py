"""Runs the sides of a setting in turn, each in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from .settings import Setting
from .worker import SIDES, side

PATIENCE = 600  # seconds for one answer
Figures = dict[str, Any]


class Failed(Exception):
    """A side that cannot go on, and why."""


class Process:
    """One side of a setting."""

    def __init__(self, name: str, setting: Setting, folder: Path, log: Path) -> None:
        self.name, self.figures = name, Figures()
        given = json.dumps({"side": name, "setting": asdict(setting), "folder": str(folder)})
        with log.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.worker", given],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._log = log

    def ask(self, order: Figures | None = None) -> Figures:
        """The answer to an order, or what it says by itself.

        Raises:
            Failed: it ended, or took longer than ten minutes.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(PATIENCE, self._process.kill)
        watch.start()
        try:
            if order is not None:
                self._process.stdin.write(json.dumps(order) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late = not watch.is_alive()
            watch.cancel()
        if not line:
            code = self._process.wait()
            raise Failed(f"no answer in {PATIENCE} s" if late else f"ended with code {code}, see {self._log}")
        answer: Figures = json.loads(line)
        if "reason" in answer:
            raise Failed(answer["reason"])
        return answer

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write('{"do": "stop"}\n')
            self._process.stdin.close()
            self._process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def measured(
    setting: Setting, *, folder: Path, rounds: int, seconds: float, sides: Sequence[str] = SIDES, profile: int = 0
) -> Figures:
    """The figures of all sides of one setting.

    Args:
        setting: what is trained.
        folder: where logs lie, written there when missing.
        rounds: slices of each side.
        seconds: of one slice.
        sides: who takes part.
        profile: steps of ours to profile after the rounds; 0 for none.
    """
    log = written(setting, folder)
    found: dict[str, Figures] = {name: {"reason": why} for name in sides if (why := missing(name, setting))}
    with ExitStack() as stack:
        going: list[Process] = []
        for name in sides:
            if name not in found:
                going.append(stack.enter_context(started(name, setting, log, folder / f"{name}.log")))
        for process in going:
            said(setting, f"{process.name} starts")
            attempt(process, lambda one: one.figures.update(one.ask() | one.ask()), slices=[])
        for number in range(rounds):
            said(setting, f"round {number + 1} of {rounds}")
            for process in alive(going):
                attempt(process, lambda one: one.figures["slices"].append(one.ask({"do": "slice", "seconds": seconds})))
        for process in alive(going):
            if setting.learn:
                said(setting, f"{process.name} learns {setting.learn:,} rows")
                order = {"do": "learn", "rows": setting.learn, "seconds": setting.seconds}
                attempt(process, lambda one, order=order: one.figures.update(learnt=one.ask(order)))
            if profile and process.name == "ours":
                attempt(process, lambda one: one.figures.update(one.ask({"do": "profile", "steps": profile})))
        found |= {process.name: summary(process.figures) for process in going}
    return {"setting": asdict(setting), "sides": {name: found[name] for name in sides}}


def attempt(process: Process, what: Any, **first: Any) -> None:
    """Asks a side; one that fails says why and is out."""
    process.figures |= first
    try:
        what(process)
    except Failed as failed:
        process.figures["reason"] = str(failed)


def alive(going: list[Process]) -> Iterator[Process]:
    """Those that have not failed."""
    return (process for process in going if "reason" not in process.figures)


@contextmanager
def started(name: str, setting: Setting, log: Path, output: Path) -> Iterator[Process]:
    """A process that ends with the block."""
    process = Process(name, setting, log, output)
    try:
        yield process
    finally:
        process.close()


def written(setting: Setting, folder: Path) -> Path:
    """Where the log of a setting lies."""
    target = folder / setting.log
    if not target.is_dir():
        said(setting, "writes its log")
        command = [sys.executable, "-m", "benchmarks.peers.data", json.dumps(asdict(setting)), str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return target


def missing(name: str, setting: Setting) -> str | None:
    """Why a side is not measured."""
    this = side(name)
    if this.PACKAGE is not None and version(this.PACKAGE) is None:
        return "not installed"
    return this.LACKS.get(setting.model)


def version(package: str) -> str | None:
    """The installed version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def summary(figures: Figures) -> Figures:
    """Medians over the slices; what failed keeps its reason and what was found before."""
    slices = [one for one in figures.get("slices", []) if one["rows"]]
    if not slices:
        return figures | {"reason": figures.get("reason", "the epoch was over before the first round")}
    speeds = [one["rows"] / one["seconds"] for one in slices]
    return figures | {
        "rows_per_second": statistics.median(speeds),
        "least": min(speeds),
        "most": max(speeds),
        "rows_per_processor_second": statistics.median(one["rows"] / one["processor"] for one in slices),
        **{name: slices[-1][name] for name in ("peak", "mapped", "others")},
    }


def said(setting: Setting, what: str) -> None:
    """A line on standard error."""
    print(f"{setting.title}: {what} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
