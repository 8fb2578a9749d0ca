"""What every request meets: a body within limits, its key, refusals, and a line in the log without its content."""

from __future__ import annotations

import hmac
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from . import logs
from .metrics import Metrics
from .wire import Problem, Wrong, wrong

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEY = "MULTIDOMAIN_API_KEY"
HEADER = "X-API-Key"
PATIENCE = 16  # times the limit of a body that is still read, and thrown away, so that its sender hears the answer
ROUTES = ("/rank", "/score", "/health", "/ready", "/metrics", "/openapi.json", "/docs")
STATUSES: Mapping[int, str] = {
    401: "The API key is missing or wrong",
    408: "The body did not come in time",
    413: "Too many bytes",
    415: "The body is not declared to be JSON",
    422: "The body is not what it should be; `fields` says which of its fields",
    500: "The service failed",
    503: "The queue is full: try again after the seconds of Retry-After",
    504: "There was no answer in time",
}


class Refusal(Exception):
    """A request that gets no answer: ``status``, why, which fields, further headers."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        fields: Sequence[Wrong] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})
        self.problem = Problem(error=reason, message=message, fields=list(fields))

    def response(self) -> Response:
        """As JSON."""
        return answer(self.problem, self.status, self.headers)


def answer(content: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON."""
    return Response(content.model_dump_json(), status, headers=dict(headers or {}), media_type="application/json")


def require_key(request: Request) -> None:
    """Refuse a request without the key of ``$MULTIDOMAIN_API_KEY``, where one is set."""
    key = os.environ.get(KEY)
    if key and not hmac.compare_digest(request.headers.get(HEADER, "").encode(), key.encode()):
        raise Refusal(401, "key", f"The header {HEADER} must hold the API key.", headers={"WWW-Authenticate": "ApiKey"})


async def body(request: Request, limit: int) -> bytes:
    """The bytes of a request, which must be JSON, at most ``limit`` of them."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "media type", "The header Content-Type must be application/json.")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > PATIENCE * limit:
            break
    if size > limit:
        message = f"The body has more than {limit:,} bytes. Send fewer items at a time."
        raise Refusal(413, "bytes", message, [Wrong(field="body", message=message)], {"Connection": "close"})
    return b"".join(parts)


def parsed(form: type[BaseModel], content: bytes) -> Any:
    """The body as the model of a request; refused with 422."""
    try:
        return form.model_validate_json(content)
    except ValidationError as error:
        fields = wrong(error)
        message = "; ".join(f"{one.field}: {one.message}" for one in fields[:5])
        raise Refusal(422, "body", message, fields) from None


class Watch:
    """ASGI around all routes: counts, logs, an ``X-Request-Id``, and an end to connections while the service drains."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, state: Any) -> None:
        self._app, self._metrics, self._state = app, metrics, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, told = time.perf_counter(), {"status": 500}
        name = uuid.uuid4().hex
        facts: dict[str, Any] = {}
        scope.setdefault("state", {})["facts"] = facts

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
                if self._state.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._done(scope["path"], told["status"], time.perf_counter() - start, name, facts)

    def _done(self, path: str, status: int, seconds: float, name: str, facts: Mapping[str, Any]) -> None:
        route = path if path in ROUTES else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        level = logging.INFO if route in ("/rank", "/score") else logging.DEBUG
        level = logging.ERROR if status == 500 else level
        logs.event("request", level=level, id=name, route=route, status=status, ms=round(1000 * seconds, 2), **facts)
