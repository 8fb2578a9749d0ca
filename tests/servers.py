"""A server of a test: a free port for it, and the moment from which it answers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.servers import free_port

__all__ = ["free_port", "wait"]


def wait(port: int, server: subprocess.Popen[bytes], report: Path, *, seconds: float) -> None:
    """Until the server answers.

    Raises:
        AssertionError: with what it printed into ``report``, when it ended or took too long.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert server.poll() is None, report.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers on port {port}: {report.read_text()}")
