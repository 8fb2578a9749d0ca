"""Timing in turn, ratios, tables and what stands above them."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from benchmarks import measure


def given(**options: object) -> measure.Setting:
    values = {"quick": False, "rounds": 3, "threads": 1, "results": Path("/dev/null"), "clock": "wall"}
    return measure.Setting(**(values | options))  # type: ignore[arg-type]


def test_all_are_timed_once_before_any_comes_again_and_every_second_round_goes_backwards():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    taken = measure.interleaved(calls, rounds=3)
    assert "".join(order) == "abc" + "abc" + "cba" + "abc"  # the first time of each does not count
    assert [len(figures) for figures in taken.values()] == [3, 3, 3]


def test_a_short_call_is_made_several_times_in_a_turn(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(1000))
    monkeypatch.setitem(measure.CLOCKS, "wall", lambda: float(next(clock)))  # every call takes one second
    made: list[int] = []
    taken = measure.interleaved({"a": lambda: made.append(1)}, rounds=2, at_least=4.0)
    assert len(made) == 2 + 2 * 4
    assert taken == {"a": [0.25, 0.25]}


def test_a_ratio_is_the_median_of_the_ratios_within_rounds():
    assert measure.ratio([1.0, 8.0, 3.0], [2.0, 2.0, 2.0]) == 1.5  # of 0.5, 4 and 1.5
    found = measure.ratios({"ours": [1.0, 10.0, 2.0], "theirs": [2.0, 30.0, 5.0]}, "ours")
    assert found == {"ours": 1.0, "theirs": 2.5}  # of 2, 3 and 2.5


def test_a_table_is_markdown():
    assert measure.table(["model", "ms"], [["star", 1.5]]) == ["| model | ms |", "|---|---:|", "| star | 1.5 |"]


def test_the_command_keeps_the_last_part_of_a_path(monkeypatch: pytest.MonkeyPatch):
    main = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="benchmarks.steps"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["x", "--encoded", "/home/someone/encoded", "--rounds", "3"])
    assert measure.command() == "python -m benchmarks.steps --encoded …/encoded --rounds 3"
    main.__spec__.name = "benchmarks.peers.__main__"
    assert measure.command().startswith("python -m benchmarks.peers --encoded")


def test_the_head_says_where_figures_are_from():
    head = measure.head(given(clock="cpu"))
    text = "\n".join(measure.head_lines(head))
    assert head["torch"] == torch.__version__
    assert head["threads"] == 1
    assert "1 thread, " in text
    assert "time that the process worked, medians of 3 interleaved rounds." in text
    assert measure.revision(measure.ROOT) in text


def test_figures_are_kept_beside_their_table(tmp_path: Path):
    measure.save(given(results=tmp_path / "new"), "some", {"a": 1}, ["# Some", "", "text"])
    assert (tmp_path / "new" / "some.md").read_text() == "# Some\n\ntext\n"
    assert json.loads((tmp_path / "new" / "some.json").read_text()) == {"a": 1}


def test_a_quick_run_writes_nothing_unless_told_where(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    quick = measure.setting(measure.parser("x", None).parse_args(["--quick"]))
    assert (quick.rounds, str(quick.results), quick.clock) == (2, "/dev/null", "cpu")
    full = measure.setting(measure.parser("x", None).parse_args(["--threads", "2"]))
    assert (full.rounds, full.results, full.clock) == (7, measure.RESULTS, "wall")
