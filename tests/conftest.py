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

WRITTEN = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "OMP_NUM_THREADS")
BEFORE = {name: os.environ.get(name) for name in WRITTEN}


@pytest.fixture(autouse=True)
def _no_environment_of_another_test() -> Iterator[None]:
    """MLflow writes the address it was given into the environment, a benchmark its threads.

    Programs and processes that a later test starts would find them there, and those it started before would not: sums
    of one thread differ from those of two in their last bits.
    """
    yield
    for name, value in BEFORE.items():
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
