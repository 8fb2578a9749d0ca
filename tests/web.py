"""A web server for tests: what it gives, how it answers and where it cuts the connection is up to the test."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file, and how the server gives it.

    ``cuts``: after so many bytes each answer ends, one number per answer, then whole ones. ``statuses``: likewise.
    """

    content: bytes
    kind: str = "application/octet-stream"
    ranges: bool = True
    tag: str | None = '"1"'
    length: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    pause: float = 0.0  # seconds after each 64 KiB


@dataclass
class Server:
    """Its address, the files by path, and what was asked for: the path and the value of ``Range``."""

    address: str
    files: dict[str, Served]
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    @property
    def ranges(self) -> list[str | None]:
        return [given for _, given in self.asked]


@contextmanager
def serving(files: Mapping[str, Served]) -> Iterator[Server]:
    """A server on a free port of this machine, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].lstrip("/")
            server.asked.append((name, self.headers.get("Range")))
            self.close_connection = True
            if name not in server.files:
                self.send_error(404)
                return
            _give(self, server.files[name])

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    server = Server(address=f"http://127.0.0.1:{running.server_address[1]}", files=dict(files))
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        running.shutdown()
        running.server_close()


def _give(handler: BaseHTTPRequestHandler, file: Served) -> None:
    status = file.statuses.pop(0) if file.statuses else 200
    if status != 200:
        handler.send_error(status)
        return
    start, size = _start(handler, file), len(file.content)
    if start > 0 and start >= size:
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{size}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    body = file.content[start:]
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
    if file.tag:
        handler.send_header("ETag", file.tag)
    handler.send_header("Content-Type", file.kind)
    if file.length:
        handler.send_header("Content-Length", str(len(body)))
    else:
        handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    _send(handler, file, body[: file.cuts.pop(0)] if file.cuts else body)


def _start(handler: BaseHTTPRequestHandler, file: Served) -> int:
    """Where the answer begins: at the first byte, unless a later one of this very version is asked for."""
    given = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    condition = handler.headers.get("If-Range")
    if given is None or not file.ranges or condition not in (None, file.tag):
        return 0
    return int(given[1])


def _send(handler: BaseHTTPRequestHandler, file: Served, body: bytes) -> None:
    try:
        for first in range(0, len(body), 1 << 16):
            piece = body[first : first + (1 << 16)]
            handler.wfile.write(piece if file.length else b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.flush()
            time.sleep(file.pause)
        if not file.length:
            handler.wfile.write(b"0\r\n\r\n")
    except OSError:
        pass  # the other side has gone
