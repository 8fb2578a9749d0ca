"""The metrics of a large split."""

import sys

import pytest

from benchmarks import metrics


def test_it_runs_in_the_smallest_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["metrics", "--rows", "5000", "--domains", "3"])
    metrics.main()
    printed = capsys.readouterr().out
    assert printed.startswith("5,000 rows, 3 domains:")
    assert float(printed.rsplit(" ", 1)[1]) < 1e-12
