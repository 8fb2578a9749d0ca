"""A Redis that lives as long as the tests that use it, on a free port, with nothing on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port, wait

UNPACKED = Path(__file__).parents[1] / ".redis"  # where `make redis` puts Debian's package


def program() -> tuple[str, dict[str, str]]:
    """The server and the environment it needs; skips the test where there is none."""
    if found := shutil.which("redis-server"):
        return found, dict(os.environ)
    unpacked = UNPACKED / "usr/bin/redis-server"
    if not unpacked.is_file():
        pytest.skip("there is no redis-server here: `make redis` unpacks Debian's, or install it")
    libraries = ":".join(str(folder) for folder in (UNPACKED / "usr/lib").glob("*-linux-gnu"))
    return str(unpacked), os.environ | {"LD_LIBRARY_PATH": libraries}


class Server:
    """A Redis on a free port, which may be killed and started again there.

    Args:
        folder: for its log, and where ``kept`` says so for every command it has answered.
    """

    def __init__(self, folder: Path, *, kept: bool = False) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._kept = ["--appendonly", "yes", "--appendfsync", "always"] if kept else ["--appendonly", "no"]
        self.start()

    def start(self) -> None:
        program_, environment = program()
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(self.folder)]
        log = self.folder / "redis.log"
        with log.open("a") as told:
            self._process = subprocess.Popen(
                [program_, *options, *self._kept], env=environment, stdout=told, stderr=subprocess.STDOUT
            )
        wait(self.port, self._process, log, seconds=30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=20)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """``host:port`` of a server with an empty store."""
    server = Server(folder)
    try:
        yield server.address
    finally:
        server.stop()
