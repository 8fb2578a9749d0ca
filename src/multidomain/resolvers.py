"""Values that configuration files ask for: ``${data:…}``, ``${env:…}`` and ``${variant:…}``."""

from __future__ import annotations

import os
from pathlib import Path

from . import schema


def data(default: str) -> str:
    """The absolute data folder: ``$MULTIDOMAIN_DATA`` where it is set, else ``default`` below the project."""
    return Path(os.environ.get("MULTIDOMAIN_DATA") or schema.project_root() / default).absolute().as_posix()


def env(name: str, default: str | None = None) -> str | None:
    """A variable of the environment; ``default`` where it is not set or empty."""
    return os.environ.get(name) or default


def variant(name: str, domain: str | None, split: str | None, features: str | None, label: str | None) -> str:
    """``<dataset>/<domain>-<split>-<features>-<label>``, what is not given being the schema's first."""
    return schema.load(name).variant(domain=domain, split=split, features=features, label=label).key
