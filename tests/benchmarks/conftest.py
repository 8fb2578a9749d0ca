"""A benchmark run in the smallest setting, its tables in a folder of the test's."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import measure


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """``quick("steps", "--models", "dnn")`` runs ``python -m benchmarks.steps --quick …`` in this process.

    Returns the figures that it wrote and the text beside them.
    """
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)

    def run(module, *options, name=None):
        given = ["--quick", "--rounds", "1", "--results", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", [module, *given])
        importlib.import_module(f"benchmarks.{module}").main()
        kept = tmp_path / f"{name or module}.json"
        return json.loads(kept.read_text()), kept.with_suffix(".md").read_text()

    return run


@pytest.fixture(scope="session")
def head():
    """What stands above a table."""
    return measure.head(measure.Setting(quick=True, rounds=3, threads=1, results=Path("/dev/null"), clock="cpu"))
