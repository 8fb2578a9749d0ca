"""An S3-compatible server (moto's) for tests: what was asked of it, and what happens before it answers."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import pytest

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """Its address, each request (``GET /bucket/key``) in order, and what to call before one is answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda request: None
        self.pause = threading.Event()  # set: bodies of objects stop halfway until it is cleared
        self.port = 0

    def start(self) -> None:
        """Answer, from a second time on at the same address, with what there was."""
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *arguments: Any, **more: Any) -> None:
                pass

        moto = DomainDispatcherApplication(create_backend_app)

        def application(environ: Any, answer: Any) -> Any:
            request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
            self.asked.append(request)
            self.before(request)
            body = moto(environ, answer)
            return self._slowly(b"".join(body)) if self.pause.is_set() and self.copies([request]) else body

        self._server = make_server("127.0.0.1", self.port, application, threaded=True, request_handler=Quiet)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _slowly(self, body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        while self.pause.is_set():
            time.sleep(0.02)
        yield body[len(body) // 2 :]

    def stop(self) -> None:
        """Nobody listens from now on."""
        self._server.shutdown()
        self._server.server_close()

    def copies(self, asked: list[str] | None = None) -> list[str]:
        """The objects whose bytes were asked for."""
        asked = self.asked if asked is None else asked
        return [one.removeprefix("GET /") for one in asked if one.startswith("GET /") and one.count("/") > 1]

    def post(self, what: str, body: bytes = b"") -> None:
        """Tell moto something about itself."""
        kind = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{self.address}/moto-api/{what}", body, kind, method="POST"))


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """A server with nothing in it; skips the test where the server or the driver is not installed."""
    pytest.importorskip("moto", reason="there is no S3-compatible server here: pip install 'moto[s3]'")
    pytest.importorskip("s3fs", reason="there is no driver of s3:// here: pip install 'multidomain[s3]'")
    from s3fs import S3FileSystem

    server = S3Server()
    server.start()
    try:
        S3FileSystem.clear_instance_cache()  # they know the address of another test's
        server.post("reset")
        yield server
    finally:
        server.pause.clear()
        with contextlib.suppress(OSError):
            server.stop()


@contextlib.contextmanager
def reached(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that the drivers of this process find, and no configuration of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    with running() as started:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": started.address}.items():
            monkeypatch.setenv(name, value)
        yield started


@contextlib.contextmanager
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty one: within this process (memory), or of the fixture ``server`` (s3)."""
    if request.param == "s3":
        request.getfixturevalue("server")
    address = f"{request.param}://shop"
    fs, top = fsspec.url_to_fs(address, use_listings_cache=False)
    fs.mkdir(top)
    yield address
    if request.param == "memory":
        fs.rm(top, recursive=True)
