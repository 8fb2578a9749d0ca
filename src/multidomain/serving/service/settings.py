"""The service's options."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ...errors import ConfigurationError, unknown_key
from ...schema import project_root

SECTION = "service"
LEAST: Mapping[str, float] = {
    "poll_seconds": 0.05,
    "threads": 1,
    "max_items": 1,
    "max_bytes": 64,
    "queue": 1,
    "timeout_seconds": 0.001,
    "readers": 1,
    "store_timeout_seconds": 0.001,
    "store_failures": 1,
    "batch_requests": 1,
    "batch_rows": 1,
    "cache_rows": 1,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options as ``conf/base/parameters/serve.yml`` describes them.

    Raises:
        ConfigurationError: one is of another type, or too small.
    """

    host: str
    port: int
    alias: str
    poll_seconds: float
    threads: int
    max_items: int
    max_bytes: int
    queue: int
    retry_after_seconds: int
    timeout_seconds: float
    readers: int
    store_timeout_seconds: float
    store_failures: int
    store_retry_seconds: float
    cache_seconds: float
    cache_rows: int
    batch_requests: int
    batch_rows: int
    batch_wait_ms: float
    drain_seconds: float

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _check(name, getattr(self, name), kind)


def _check(name: str, value: Any, kind: type) -> None:
    if kind is str:
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{SECTION}.{name} must be a text, got {value!r}")
        return
    least, whole = LEAST.get(name, 0), kind is int
    allowed = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value) or value < least:
        what = "a whole number" if whole else "a number"
        raise ConfigurationError(f"{SECTION}.{name} must be {what} from {least} up, got {value!r}")
    if name == "port" and value > 65535:
        raise ConfigurationError(f"{SECTION}.port must be at most 65535, got {value!r}")


def load(changed: Mapping[str, Any] | None = None, folders: list[Path] | None = None) -> Settings:
    """The section ``service`` of ``parameters/serve.yml`` below ``conf/base``, then ``conf/local``, then ``changed``.

    Raises:
        ConfigurationError: an option is unknown, missing, of another type or too small; the message names it.
    """
    root = project_root() / "conf"
    options: dict[str, Any] = {}
    for folder in folders or [root / "base", root / "local"]:
        path = folder / "parameters" / "serve.yml"
        if path.is_file():
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            options |= _known(content.get(SECTION) or {}, str(path))
    options |= _known(changed or {}, "the command line")
    if missing := [name for name in names() if name not in options]:
        raise ConfigurationError(f"{SECTION}: {', '.join(missing)} must be given in conf/base/parameters/serve.yml.")
    return Settings(**options)


def names() -> list[str]:
    """Of all options."""
    return [option.name for option in dataclasses.fields(Settings)]


def _known(options: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"{where}: {SECTION} must be options by name, got {options!r}")
    for name in options:
        if name not in names():
            raise ConfigurationError(f"{where}: {SECTION}: {unknown_key(name, names())}")
    return options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Each option as one of the command line."""
    group = parser.add_argument_group("options in the place of those in conf/base/parameters/serve.yml")
    for name in names():
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", type=yaml.safe_load)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that were."""
    return {name: getattr(arguments, name) for name in names() if getattr(arguments, name) is not None}
