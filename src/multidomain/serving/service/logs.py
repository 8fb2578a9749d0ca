"""Logs as one JSON object a line. Nothing of what was sent is in them: no user, item, context or body."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from ...errors import UserError

logger = logging.getLogger("multidomain.service")


class JsonLines(logging.Formatter):
    """``time``, ``level``, ``event`` and what the event has."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= told(record.exc_info[1])
        return json.dumps(line, default=str)


def event(name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log that something happened."""
    logger.log(level, name, extra={"fields": fields})


def told(error: BaseException) -> dict[str, Any]:
    """Type and place of an error. Its message may hold what a user sent, so it stays out; a ``UserError``'s too."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "trace": places[-8:]}


def explained(error: BaseException) -> dict[str, Any]:
    """Of an error that no request had a part in: its message too."""
    message = error.message if isinstance(error, UserError) else str(error)
    return told(error) | {"message": message[:2000]}


def start(level: int = logging.INFO) -> None:
    """Everything of this process, uvicorn's lines too, as JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logger.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
