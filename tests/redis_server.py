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


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """``host:port`` of a server with an empty store."""
    server, environment = program()
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    log = (folder / "redis.log").open("w")
    process = subprocess.Popen([server, *options], env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait(port, process, folder / "redis.log", seconds=30)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()
