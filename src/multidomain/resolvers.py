"""Values that configuration files ask for: ``${data:…}``, ``${env:…}`` and ``${variant:…}``."""

from __future__ import annotations

import os
from pathlib import Path

from . import schema
from .errors import ConfigurationError


def data(default: str) -> str:
    """The absolute data folder: ``$MULTIDOMAIN_DATA`` where it is set, else ``default`` below the project.

    Raises:
        ConfigurationError: it is not on a file system.
    """
    given = os.environ.get("MULTIDOMAIN_DATA")
    return (local(given) if given else schema.project_root() / default).absolute().as_posix()


def local(place: str, *, name: str = "$MULTIDOMAIN_DATA") -> Path:
    """A folder given as a path or as ``file:///…``; ``name`` is what it was given as.

    Raises:
        ConfigurationError: another address: tensors are mapped into memory, and Feast's registry is locked, as files.
    """
    if "://" not in place:
        return Path(place)
    from fsspec.core import url_to_fs

    scheme = place.split("://", 1)[0]
    if scheme not in ("file", "local"):
        raise ConfigurationError(
            f"{name} is {place}: data is worked on in folders, and {scheme}:// is none. Name a folder (on a cluster "
            "one that all machines have under the same path). Raw logs may lie in an object store (raw in globals.yml, "
            "or --params=raw_folder=s3://bucket/prefix), and outputs are copied to one, and taken from there, with "
            "output_store in globals.yml or $MULTIDOMAIN_OUTPUT_STORE=s3://bucket/prefix."
        )
    return Path(url_to_fs(place)[1])


def env(name: str, default: str | None = None) -> str | None:
    """A variable of the environment; ``default`` where it is not set or empty."""
    return os.environ.get(name) or default


def project() -> str:
    """The project's folder."""
    return str(schema.project_root())


def variant(name: str, domain: str | None, split: str | None, features: str | None, label: str | None) -> str:
    """``<dataset>/<domain>-<split>-<features>-<label>``, what is not given being the schema's first."""
    return schema.load(name).variant(domain=domain, split=split, features=features, label=label).key
