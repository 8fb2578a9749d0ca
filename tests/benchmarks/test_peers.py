"""The comparison with the field's libraries: its log, its clock, our side of it, and what the tables say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import data, memory, report, run, settings
from benchmarks.peers.clock import PREPARED, Clock, Stop
from multidomain.evaluation.metrics import auc
from multidomain.tensors import EncodedSplit

SMALL = next(settings.quick())
PAST = replace(SMALL, axis="history", model="din", history=10, rows=3_000, test_rows=2_000)


def test_a_log_is_the_same_every_time_it_is_drawn() -> None:
    first, second = (next(data.drawn(PAST, "train", 500)) for _ in range(2))
    assert first.keys() == {"categorical", "domain", "history", "label"}
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    other = next(data.drawn(PAST, "test", 500))
    assert (other["categorical"] != first["categorical"]).any()


def test_ids_are_log_uniform_and_inside_their_vocabulary() -> None:
    ids = next(data.drawn(SMALL, "train", 20_000))["categorical"]
    assert ids.min() == data.FIRST
    assert ids.max() < data.vocabulary(SMALL)
    span = data.vocabulary(SMALL) - data.FIRST
    below = (ids - data.FIRST + 1 < span**0.5).mean()  # half of the ids lie below the root of their number
    assert below == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("setting", [SMALL, PAST], ids=["dnn", "din"])
def test_labels_can_be_learnt_but_not_guessed(setting: settings.Setting) -> None:
    rows = next(data.drawn(setting, "test", 20_000))
    probability = data.Truth(setting).probability(rows)
    assert 0.1 < rows["label"].mean() < 0.5
    assert rows["label"].mean() == pytest.approx(probability.mean(), abs=0.015)
    assert 0.7 < auc(rows["label"], probability) < 0.95


def test_peers_are_given_what_we_read(tmp_path: Path) -> None:
    folder = data.write(PAST, tmp_path)
    fields, label, domain = data.columns(folder, "test")
    batch = EncodedSplit(folder, "test").batch(slice(0, PAST.test_rows))
    for number, name in enumerate(EncodedSplit(folder, "test").inputs.categorical):
        np.testing.assert_array_equal(fields[name], batch.categorical[:, number])
    np.testing.assert_array_equal(fields[settings.HISTORY], batch.history[settings.HISTORY])
    np.testing.assert_array_equal(label, batch.label)
    np.testing.assert_array_equal(domain, batch.domain)
    assert data.write(PAST, tmp_path) == folder  # it is there: nothing is written again


class Orders:
    """Gives orders to a clock and keeps its answers."""

    def __init__(self, *orders: dict[str, Any]) -> None:
        self._orders, self.answers = iter(orders), list[dict[str, Any]]()

    def clock(self, rows: int = 10_000) -> Clock:
        return Clock(
            orders=lambda: next(self._orders, {"do": "stop"}),
            answer=self.answers.append,
            area=lambda: 0.75,
            batch_size=100,
            rows=rows,
        )


def steps(clock: Clock) -> int:
    """How many steps it lets a trainer make."""
    for number in range(1, 1_000):
        try:
            clock()
        except Stop:
            return number
    raise AssertionError("it never stopped")


def test_a_slice_leaves_out_batches_that_were_ready() -> None:
    orders = Orders({"do": "slice", "seconds": 0.0}, {"do": "slice", "seconds": 0.0})
    assert steps(orders.clock()) == 2 + 2 * (PREPARED + 3)
    assert [answer["rows"] for answer in orders.answers[1:]] == [300, 300]


def test_learning_ends_after_the_rows_and_the_seconds_asked_for() -> None:
    orders = Orders({"do": "learn", "rows": 1_000, "seconds": 0.0})
    assert steps(orders.clock()) == 10
    _, learnt = orders.answers
    assert (learnt["auc_rows"], learnt["rows"]) == (0.75, 1_000)
    assert (learnt["auc_seconds"], learnt["rows_in_seconds"]) == (0.75, 200)


def test_no_order_goes_beyond_the_epoch() -> None:
    orders = Orders({"do": "learn", "rows": 10**9, "seconds": 1e9}, {"do": "slice", "seconds": 1e9})
    assert steps(orders.clock(rows=500)) == 5
    assert orders.answers[1]["rows"] == 500
    assert orders.answers[2]["rows"] == 0


def test_the_most_memory_of_a_program_is_not_that_of_the_one_that_started_it() -> None:
    held = b"x" * (256 << 20)
    program = "from benchmarks.peers import memory; print(memory.peak())"
    peak = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert 0 < float(peak) < 200 < len(held) >> 20


def test_memory_of_processes_that_were_started_is_counted() -> None:
    before = memory.others()
    if before is None:
        pytest.skip("there is no /proc here")
    hold = "import sys; held = b'x' * (64 << 20); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"  # said by the child of the child
        assert 64 < memory.others() - before < 128
        assert process.stdin is not None
        process.stdin.close()


def test_our_side_runs_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = run.measured(SMALL, folder=tmp_path, rounds=2, seconds=0.1, sides=["ours"])
    ours = found["sides"]["ours"]
    assert "reason" not in ours, (tmp_path / "ours.log").read_text()
    assert len(ours["slices"]) == 2
    assert ours["least"] <= ours["rows_per_second"] <= ours["most"]
    assert ours["peak"] > ours["baseline"] > 0
    assert ours["learnt"]["auc_rows"] > 0.55
    report.write({"machine": MACHINE, "settings": [found]}, tmp_path / "peers")
    assert json.loads((tmp_path / "peers.json").read_text())["settings"][0]["sides"]["ours"] == ours


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch_rechub", "fuxictr", "deepctr_torch"])
@pytest.mark.parametrize("setting", list(settings.quick()), ids=lambda one: one.model)
def test_a_peer_runs(name: str, setting: settings.Setting, tmp_path: Path) -> None:
    reason = run.missing(name, setting)
    if reason:
        pytest.skip(f"{name}, {setting.model}: {reason}")
    figures = run.measured(setting, folder=tmp_path, rounds=1, seconds=0.1, sides=[name])["sides"][name]
    assert "reason" not in figures, (tmp_path / f"{name}.log").read_text()
    assert figures["rows_per_second"] > 0
    assert figures["learnt"]["auc_rows"] > 0.5


def test_a_side_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    broken = replace(SMALL, model="no such model")
    ours = run.measured(broken, folder=tmp_path, rounds=1, seconds=0.1, sides=["ours"])["sides"]["ours"]
    assert ours["reason"] == "KeyError: 'no such model'"
    assert "rows_per_second" not in ours


MACHINE = {
    "date": "2026-01-02",
    "processor": "a processor",
    "cores": 2,
    "threads": 1,
    "python": "3.11",
    "versions": {"torch": "2.13.0"},
    "command": "python -m benchmarks.peers",
    "quick": False,
    "load": 0.5,
}


def figures(speed: float, peak: float, area: float, others: float = 0.0) -> dict[str, Any]:
    learnt = {"auc_rows": area, "rows": 500, "seconds": 9.0, "auc_seconds": area + 0.01, "rows_in_seconds": 800}
    return {
        "rows_per_second": speed,
        "rows_per_processor_second": speed / 2,
        "peak": peak,
        "baseline": 300.0,
        "mapped": 250.0,
        "others": others,
        "learnt": learnt,
    }


def measured(ids: int, ours: float) -> dict[str, Any]:
    setting = settings.Setting(axis="ids", model="dnn", ids=ids, learn=500)
    sides = {
        "ours": figures(ours, 900, 0.7012),
        "slow": figures(100.0, 1_800, 0.7),
        "fast": figures(200.0, 800, 0.69, others=1_200.0),
        "gone": {"reason": "ImportError: no | here", "baseline": 1.0},
    }
    return {"setting": vars(setting), "sides": sides}


def test_the_table_divides_by_the_fastest_peer_and_the_smallest() -> None:
    text = report.markdown({"machine": MACHINE, "settings": [measured(20_000, 400.0), measured(1_000_000, 1_000.0)]})
    assert (
        "| dnn, 20,000 ids, batch 2048 | 400 (200) | 100 (50) | 200 (100) | ImportError: no / here | 2.00× | 2.00× |"
        in text
    )
    assert "| dnn, 20,000 ids, batch 2048 | 900 (300; 250) | 1,800 (300; 250) | 800 (300; 250) + 1,200 | – |" in text
    assert "| 20,000 | 1.5× | 2.0× (met) | 0.50 |" in text
    assert "| 1,000,000 | 6× | 5.0× (below) | 0.50 |" in text
    rows = "| dnn, 20,000 ids, batch 2048 | 500 rows | 0.7012 (9 s) | 0.7000 (9 s) | 0.6900 (9 s) | – | +0.0012 |"
    assert rows in text
    assert "| 10 s | 0.7112 (800 rows) |" in text


def test_ours_in_bf16_is_said_apart_and_is_no_peer() -> None:
    one = measured(20_000, 400.0)
    one["sides"]["ours_bf16"] = figures(900.0, 100.0, 0.9)
    text = report.markdown({"machine": MACHINE, "settings": [one]})
    assert "| ours / fastest peer | (processor) | in bf16 / fastest peer |" in text
    assert "| 2.00× | 2.00× | 4.50× |" in text
    assert "| 20,000 | 1.5× | 2.0× (met) | 0.50 |" in text
    assert "| – | 0.9000 (9 s) | +0.0012 |" in text


def test_plots_are_drawn_for_the_axes_that_were_measured(tmp_path: Path) -> None:
    report.draw({"machine": MACHINE, "settings": [measured(20_000, 400.0), measured(1_000_000, 900.0)]}, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["peers_ids.png"]
