"""A Redis that lives as long as the tests that use it, on a free port; they skip where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import Redis, redis_program


class Server(Redis):
    """A Redis that has been started, and may be killed and started again.

    Args:
        folder: for its log, and where ``kept`` says so for every command it has answered.
    """

    def __init__(self, folder: Path, *, kept: bool = False) -> None:
        try:
            redis_program()
        except FileNotFoundError as error:
            pytest.skip(str(error))
        super().__init__(folder, kept=kept)
        self.start()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """``host:port`` of a server with an empty store."""
    server = Server(folder)
    try:
        yield server.address
    finally:
        server.stop()
