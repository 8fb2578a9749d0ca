"""A standalone Spark on this machine: a master and some workers, on loopback, as long as it is needed.

python -m benchmarks.standalone --folder /tmp/spark --workers 2      # prints the master's address; Ctrl-C ends it
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .servers import HOST, end, free_port, kill

MASTER, WORKER = (f"org.apache.spark.deploy.{name}" for name in ("master.Master", "worker.Worker"))


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.standalone", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of logs and work files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=7077)
    parser.add_argument("--memory", default="1g", help="of each worker")
    given = parser.parse_args()
    with running(given.folder, given.workers, port=given.port, memory=given.memory) as address:
        print(f"export MULTIDOMAIN_SPARK_MASTER={address}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


@contextlib.contextmanager
def running(folder: Path, workers: int, *, port: int | None = None, memory: str = "1g") -> Iterator[str]:
    """``spark://host:port`` of a master with so many workers of one core each, all registered.

    Raises:
        RuntimeError: one of them did not come up; with where its log is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    with contextlib.ExitStack() as until_done:
        address = f"spark://{HOST}:{port}"
        log = folder / "master.log"
        until_done.enter_context(
            _started(log, MASTER, "--host", HOST, "--port", str(port), "--webui-port", str(free_port()))
        )
        _await(log, "I have been elected leader")
        for number in range(workers):
            until_done.enter_context(worker(folder, number, address, memory=memory))
        yield address


@contextlib.contextmanager
def worker(folder: Path, number: int, address: str, *, memory: str = "1g") -> Iterator[subprocess.Popen[bytes]]:
    """One worker of a master, with one core."""
    log, work = folder / f"worker{number}.log", folder / f"work{number}"
    ports = ["--webui-port", str(free_port())]
    flags = ["--host", HOST, *ports, "--cores", "1", "--memory", memory, "--work-dir", str(work.resolve())]
    with _started(log, WORKER, *flags, address) as process:
        _await(log, "Successfully registered with master")
        yield process


class Worker:
    """A worker of a master, with one core, which may be killed and started again.

    Args:
        folder: for its log and its files.
        number: of the worker.
        master: ``spark://host:port``.
    """

    def __init__(self, folder: Path, number: int, master: str) -> None:
        self._options = (folder, number, master)
        self._until_stopped = contextlib.ExitStack()

    def start(self) -> None:
        """Start it and wait until it is registered."""
        self._process = self._until_stopped.enter_context(worker(*self._options))

    def kill(self) -> None:
        """SIGKILL, to its executors too."""
        kill(self._process)
        self._until_stopped.close()

    def stop(self) -> None:
        """Ask it to end."""
        self._until_stopped.close()


@contextlib.contextmanager
def _started(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    import pyspark

    home = Path(pyspark.__file__).parent
    settings = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": HOST, "SPARK_DAEMON_MEMORY": "256m"}
    settings |= {"PYSPARK_PYTHON": sys.executable}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(home / "bin/spark-class"), *command],
            env=os.environ | settings,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a worker's executors are its children and end with its group
        )
        try:
            yield process
        finally:
            end(process)


def _await(log: Path, said: str, *, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if said in log.read_text(encoding="utf-8", errors="replace"):
            return
        time.sleep(0.2)
    raise RuntimeError(f"Spark did not come up within {seconds:.0f} s ('{said}' is not in {log})")


if __name__ == "__main__":
    main()
