"""uvicorn, and an end that drops nothing.

SIGTERM: for ``drain_seconds`` ``/ready`` says no, so that a load balancer sends requests elsewhere, while those that
come are answered and their connections closed; then no more are taken, and those held are answered. A second signal
ends that at once.
"""

from __future__ import annotations

import asyncio
import math
from types import FrameType

import uvicorn

from . import logs
from .app import create
from .service import Service


class Server(uvicorn.Server):
    """Serves a service whose model is loaded."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self._service = service
        super().__init__(
            uvicorn.Config(
                create(service),
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(settings.timeout_seconds) + 1,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; on a second signal stop."""
        if self._service.draining:
            super().handle_exit(sig, frame)
            return
        self._service.draining = True
        asyncio.get_running_loop().call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        seconds = self._service.settings.drain_seconds
        logs.event("draining", seconds=seconds, held=self._service.held)
        asyncio.get_running_loop().call_later(seconds, self._stop)

    def _stop(self) -> None:
        self.should_exit = True
