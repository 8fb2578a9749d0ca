"""Fixtures for all tests; telemetry off."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import PROJECT, SHARED

import multidomain.settings  # noqa: F401 - switches telemetry off before any test imports a library that has some


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
