"""Fixtures for all tests; telemetry off."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import PROJECT, SHARED

import multidomain.settings  # noqa: F401 - switches telemetry off before any test imports a library that has some

MAIN = sys.modules["__main__"]
if MAIN.__spec__ is None and not hasattr(
    MAIN, "__file__"
):  # a worker of pytest-xdist: PySpark, which Great Expectations
    MAIN.__spec__ = types.SimpleNamespace(name=None)  # imports where it is installed, takes it for doctests and exits

ADDRESSES = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}


@pytest.fixture(autouse=True)
def _no_address_of_another_test() -> Iterator[None]:
    """MLflow writes the address it was given into the environment, where programs that a test starts would find it."""
    yield
    for name, value in ADDRESSES.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


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
