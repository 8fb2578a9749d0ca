"""Servers on this machine, on loopback, which may be killed and started again at the same address: Redis, MLflow's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
UNPACKED = Path(__file__).parents[1] / ".redis"  # where `make redis` puts Debian's package


class Server:
    """A program that listens on a free port.

    Args:
        folder: for its log and what it keeps.
    """

    name = ""
    seconds = 30.0  # it may take so long to start

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens: ``host:port``."""
        return f"{HOST}:{self.port}"

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The program with its options, and the environment that it needs."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it can be asked."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
            return True
        return False

    def start(self) -> None:
        """Start it, or start it again where it was.

        Raises:
            RuntimeError: it ended or did not answer in time; with the end of its log.
        """
        command, environment = self.command()
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{self.name}.log"
        with log.open("ab") as told:
            self._process = subprocess.Popen(
                command, env=environment, stdout=told, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            until = time.monotonic() + self.seconds
            while not self.answers():
                if self._process.poll() is not None or time.monotonic() > until:
                    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise RuntimeError(f"{self.name} does not answer at {self.address}:\n{end}")
                time.sleep(0.05)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL, to it and to what it started."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    def stop(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            end(self._process)
            self._process = None


class Redis(Server):
    """A Redis.

    Args:
        folder: for its log.
        kept: every command that it has answered is on disk, and there again after it was killed.
    """

    name = "redis"

    def __init__(self, folder: Path, *, kept: bool = False) -> None:
        super().__init__(folder)
        self._kept = ["--appendonly", "yes", "--appendfsync", "always"] if kept else ["--appendonly", "no"]

    def command(self) -> tuple[list[str], dict[str, str]]:
        program, environment = redis_program()
        options = ["--bind", HOST, "--port", str(self.port), "--save", "", "--dir", str(self.folder)]
        return [program, *options, *self._kept], environment


def redis_program() -> tuple[str, dict[str, str]]:
    """The server and the environment that it needs.

    Raises:
        FileNotFoundError: there is none.
    """
    if found := shutil.which("redis-server"):
        return found, dict(os.environ)
    unpacked = UNPACKED / "usr/bin/redis-server"
    if not unpacked.is_file():
        raise FileNotFoundError("there is no redis-server here: `make redis` unpacks Debian's, or install it")
    libraries = ":".join(str(folder) for folder in (UNPACKED / "usr/lib").glob("*-linux-gnu"))
    return str(unpacked), os.environ | {"LD_LIBRARY_PATH": libraries}


class MLflow(Server):
    """A tracking server with its registry in SQLite, which keeps runs and models in its folder."""

    name = "mlflow"
    seconds = 120.0

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> tuple[list[str], dict[str, str]]:
        kept = ["--backend-store-uri", f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"]
        kept += ["--artifacts-destination", str(self.folder.resolve() / "artifacts")]
        options = ["--host", HOST, "--port", str(self.port), "--workers", "1"]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        return [sys.executable, "-m", "mlflow", "server", *options, *kept], environment

    def answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=1) as answer:
            return bool(answer.status == 200)
        return False


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def end(process: subprocess.Popen[Any]) -> None:
    """SIGTERM to a process and all of its group; when it has ended, or after 30 s, SIGKILL to what is left of them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    kill(process)


def kill(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to a process and all of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
