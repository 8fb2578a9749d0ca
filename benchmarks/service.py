"""The service under load from another process: requests per second, milliseconds, and memory over a long time.

    python -m benchmarks.service --dataset movielens --architecture star --soak 10

Starts the service of what ``$MULTIDOMAIN_DATA`` holds (``make run``, then ``kedro run --pipeline=materialize``), or
takes the one at ``--address``, and asks it from a process of its own, over 1, 8 and 32 connections that each ask again
as soon as they are answered. ``failed``: every answer but 200; ``degraded``: without online features.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multidomain import schema

from . import measure
from .measure import Figures
from .serving import drawn

CONNECTIONS = (1, 8, 32)
SECONDS, WARM = 30.0, 3.0
START = 180  # seconds the service may take to load
READING = 10.0  # seconds between two looks at its memory
DRAWN = 500


def main() -> None:
    """Start, ask, tell."""
    parser = measure.parser("service", __doc__)
    parser.add_argument("--dataset", default="movielens")
    parser.add_argument("--architecture", default="star")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--seconds", type=float, help=f"of each number of connections ({SECONDS:g}; quick: 1)")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--soak", type=float, default=0.0, help="minutes at 8 connections, with memory readings (0)")
    parser.add_argument("--address", help="of a service that runs already, such as http://127.0.0.1:8000")
    given = parser.parse_args()
    setting = measure.setting(given)
    seconds = given.seconds or (1.0 if setting.quick else SECONDS)
    variant = schema.load(given.dataset).variant()
    bodies = [
        json.dumps({"user": str(one.user), "domain": str(one.domain), "items": [str(item) for item in one.items]})
        for one in drawn(variant, 20 if setting.quick else DRAWN, given.candidates)
    ]
    content: Figures = {"model": f"{variant.key}, {given.architecture}", "candidates": given.candidates}
    with service(given.dataset, given.architecture, setting.threads, given.address) as (address, process):
        asked(address, bodies, 1, min(WARM, seconds))
        content["runs"] = [asked(address, bodies, count, seconds) for count in given.connections]
        if given.soak:
            content["soak"] = soak(address, bodies, 60 * given.soak, process)
    content["head"] = measure.head(setting) | {"clock": "wall"}
    measure.save(setting, "service", content, markdown(content))


@contextlib.contextmanager
def service(dataset: str, architecture: str, threads: int, address: str | None) -> Iterator[tuple[str, int | None]]:
    """Address and process id of a service, which ends with the benchmark."""
    if address:
        yield address.rstrip("/"), None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--dataset", dataset, "--architecture", architecture, f"--port={port}", f"--threads={threads}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "multidomain.serving.service", *options, "--drain-seconds=0"], stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    told: list[str] = []
    lines = threading.Thread(target=_kept, args=(process.stderr, told), daemon=True)
    lines.start()
    try:
        until = time.monotonic() + START
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        if process.poll() is not None:
            raise SystemExit("The service did not start:\n" + "".join(told[-20:]))
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _kept(stream: Any, told: list[str]) -> None:
    """Read the log so that the service never waits for somebody to do so; keep its end."""
    for line in stream:
        told.append(line.decode())
        del told[:-50]


def asked(address: str, bodies: Sequence[str], connections: int, seconds: float) -> Figures:
    """Ask from another process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found: Figures = pool.apply(load, (address, list(bodies), connections, seconds))
    print({"connections": connections, **found}, file=sys.stderr)
    return {"connections": connections, **found}


def load(address: str, bodies: list[str], connections: int, seconds: float) -> Figures:
    """Requests over so many connections for so long: how many a second, and their milliseconds."""
    return asyncio.run(_load(address, bodies, connections, seconds))


async def _load(address: str, bodies: list[str], connections: int, seconds: float) -> Figures:
    import aiohttp

    taken: list[float] = []
    counted = {"failed": 0, "degraded": 0}
    until = time.perf_counter() + seconds

    async def caller(session: Any, first: int) -> None:
        number = first
        while time.perf_counter() < until:
            start, number = time.perf_counter(), number + connections
            try:
                headers = {"content-type": "application/json"}
                async with session.post(
                    f"{address}/rank", data=bodies[number % len(bodies)], headers=headers
                ) as answer:
                    text = await answer.text()
                    counted["failed"] += answer.status != 200
                    counted["degraded"] += '"degraded":true' in text
            except (aiohttp.ClientError, OSError):
                counted["failed"] += 1
                await asyncio.sleep(0.05)
            taken.append(time.perf_counter() - start)

    start = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        await asyncio.gather(*(caller(session, first) for first in range(connections)))
    passed = time.perf_counter() - start
    p50, p99 = (float(value) for value in np.percentile(1000 * np.array(taken), [50, 99]))
    return {"requests": len(taken), "per_second": len(taken) / passed, "p50": p50, "p99": p99, **counted}


def soak(address: str, bodies: Sequence[str], seconds: float, process: int | None) -> Figures:
    """Eight connections for a long time; the memory of the service again and again."""
    context = multiprocessing.get_context("spawn")
    readings: list[tuple[float, float]] = []
    start = time.perf_counter()
    with context.Pool(1) as pool:
        waiting = pool.apply_async(load, (address, list(bodies), 8, seconds))
        while not waiting.ready():
            if process is not None:
                readings.append((round(time.perf_counter() - start, 1), resident(process)))
            waiting.wait(min(READING, seconds / 4))
        return {"minutes": seconds / 60, **waiting.get(), "memory": readings}


def resident(process: int) -> float:
    """MiB of a process in memory."""
    text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.findall(r"^VmRSS:\s+(\d+)", text, re.MULTILINE)[0]) / 1024


def markdown(content: Figures) -> list[str]:
    """Requests per second and milliseconds by the number of connections; the soak's memory."""
    rows = [[f"{line['connections']}", *_cells(line)] for line in content["runs"]]
    columns = ["connections", "requests", "requests/s", "p50 ms", "p99 ms", "failed", "degraded"]
    what = f"{content['model']}, {content['candidates']} candidates, asked from another process"
    lines = ["# The service under load", "", *measure.head_lines(content["head"], what), *measure.table(columns, rows)]
    if "soak" not in content:
        return lines
    found = content["soak"]
    lines += [
        "",
        f"{found['minutes']:g} minutes at 8 connections:",
        "",
        *measure.table(columns, [["8", *_cells(found)]]),
    ]
    if memory := [mib for _, mib in found["memory"]]:
        parts = [memory[round(i * (len(memory) - 1) / 4)] for i in range(5)]
        told = ", ".join(f"{mib:.0f}" for mib in parts)
        lines += ["", f"Memory of the service at five moments from beginning to end, MiB: {told}."]
    return lines


def _cells(line: Figures) -> list[str]:
    figures = [f"{line['per_second']:.1f}", f"{line['p50']:.1f}", f"{line['p99']:.1f}"]
    return [f"{line['requests']:,}", *figures, str(line["failed"]), str(line["degraded"])]


if __name__ == "__main__":
    main()
