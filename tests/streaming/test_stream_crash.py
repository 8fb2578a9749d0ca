"""Killed and started again: the weights of a stream that nobody disturbed, every row learnt once."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_stream import arrive, learnt, log, same, source, stream, with_column

from multidomain.errors import ConfigurationError, DataError
from multidomain.streaming import stream as stream_module
from multidomain.streaming.prequential import windows
from multidomain.streaming.stream import Stream

ROWS = 500
PROCESSES = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    PROCESSES.set_forkserver_preload(["torch._dynamo", "multidomain.streaming.stream", "multidomain.models.star"])


class Crash(Exception):
    """Power is off."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Stream]:
    """The files, and the stream that followed them undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    arrive(folder / "files", log(ROWS), [200, 77])
    return folder, run(folder, folder / "kept")


def run(folder: Path, kept: Path) -> Stream:
    made = stream(kept)
    made.run(source(folder / "files"))
    return made


def alike(one: Stream, other: Stream, first: Path, second: Path) -> None:
    assert same(one, other)
    assert sorted(learnt(second)) == list(range(ROWS))
    assert learnt(first) == learnt(second)
    assert windows(first).equals(windows(second))
    assert dataclasses.replace(one.progress, saves=0) == dataclasses.replace(other.progress, saves=0)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_every_checkpoint_loses_and_repeats_nothing(whole, tmp_path, monkeypatch, moment):
    """The run dies at its second checkpoint, each time, before or just after it is written: it still ends, the same."""
    folder, undisturbed = whole
    save, crashes = Stream._save, 0

    def dying(self, at):
        self.count = getattr(self, "count", 0) + 1
        if self.count > 1 and moment == "before":
            raise Crash
        save(self, at)
        if self.count > 1 and moment == "after":
            raise Crash

    monkeypatch.setattr(Stream, "_save", dying)
    for _ in range(20):
        made = stream(tmp_path / "kept")
        try:
            made.run(source(folder / "files"))
            break
        except Crash:
            crashes += 1
    assert crashes >= 4
    alike(undisturbed, made, folder / "kept", tmp_path / "kept")


def test_a_crash_in_every_kind_of_work_between_checkpoints_changes_nothing(whole, tmp_path, monkeypatch):
    folder, undisturbed = whole
    for method, at in (("_learn", 5), ("_grow", 1), ("_write_parts", 2), ("_score", 4), ("_learn", 3)):
        inner, count = getattr(Stream, method), [0]

        def dying(self, *given, inner=inner, count=count, at=at):
            count[0] += 1
            if count[0] == at:
                raise Crash
            return inner(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(Stream, method, dying)
            with pytest.raises(Crash):
                run(folder, tmp_path / "kept")
    alike(undisturbed, run(folder, tmp_path / "kept"), folder / "kept", tmp_path / "kept")


def test_what_the_gate_looks_at_is_the_same_after_a_crash(whole, tmp_path, monkeypatch):
    """The latest rows and their scores, whatever was kept of them by the checkpoint."""
    folder, _ = whole
    settings = {"package_rows": 480, "gate_rows": 100}
    seen = {}

    def follow(name):
        def package(one):
            seen[name] = one.recent

        made = stream(tmp_path / name, package=package, **settings)
        made.run(source(folder / "files"))

    follow("undisturbed")
    inner, count = Stream._learn, [0]

    def dying(self):
        count[0] += 1
        if count[0] == 10:
            raise Crash
        inner(self)

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "_learn", dying)
        with pytest.raises(Crash):
            follow("crashed")
    follow("crashed")
    assert len(seen["crashed"]) == 100
    assert seen["crashed"].equals(seen["undisturbed"])


@pytest.mark.parametrize("method", ["_save", "_score", "_write_parts"])
def test_a_crash_among_bad_rows_writes_each_of_them_once(tmp_path, monkeypatch, method):
    """Most rows are bad: they make checkpoints too, and the parts of after the last one are made again."""
    monkeypatch.setattr(stream_module, "MOST_BAD", 30)
    rows = log(ROWS)
    label = [None if row % 100 < 70 else 1 for row in range(ROWS)]
    arrive(tmp_path / "files", with_column(rows, "label", label), [200, 77])
    undisturbed = run(tmp_path, tmp_path / "whole")
    inner, count = getattr(Stream, method), [0]

    def dying(self, *given):
        count[0] += 1
        if count[0] % 3 == 0:
            if method != "_score":
                inner(self, *given)
            raise Crash
        return inner(self, *given)

    crashes = 0
    with monkeypatch.context() as patch:
        patch.setattr(Stream, method, dying)
        for _ in range(20):
            try:
                ended = run(tmp_path, tmp_path / "kept")
                break
            except Crash:
                crashes += 1
    assert crashes >= 2
    assert same(undisturbed, ended)
    parts = [pq.read_table(path) for path in sorted((tmp_path / "kept/rejected").glob("*"))]
    found = pa.concat_tables(parts).column("row").to_pylist()
    assert [json.loads(row)["impression_id"] for row in found] == [row for row in range(ROWS) if label[row] is None]
    assert max(map(len, parts)) <= 2 * 30
    assert ended.progress.rejected == len(found) == 350
    assert learnt(tmp_path / "kept") == learnt(tmp_path / "whole")


def child(folder: Path, kept: Path) -> None:
    run(folder, kept)


def test_a_killed_process_goes_on_where_its_checkpoint_was(whole, tmp_path):
    folder, undisturbed = whole
    kept, killed = tmp_path / "kept", 0
    for wanted in (2, 5, 99):
        process = PROCESSES.Process(target=child, args=(folder, kept))
        process.start()
        until = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < until and saves(kept) < wanted:
            time.sleep(0.001)
        if wanted < 99:
            os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 1  # a very fast machine may be done before
    assert process.exitcode == 0
    alike(undisturbed, stream(kept), folder / "kept", kept)


def saves(kept: Path) -> int:
    return max((int(path.name.rpartition("-")[2]) for path in (kept / "checkpoints").glob("rows-*")), default=0)


def test_other_settings_than_those_of_the_checkpoint_are_named(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(ConfigurationError, match=r"went on with other settings up to .*stream: .*'buffer_rows': 90"):
        stream(folder / "kept", buffer_rows=91)


def test_a_damaged_checkpoint_stops_the_run_and_is_not_passed_over(whole, tmp_path):
    folder, _ = whole
    run(folder, tmp_path / "kept")
    (file,) = (tmp_path / "kept/checkpoints").glob("rows-*/model.safetensors")
    file.write_bytes(b"half")
    with pytest.raises(DataError, match=r"cannot be read: .* nobody knows which rows were learnt"):
        stream(tmp_path / "kept")


def test_a_checkpoint_with_counts_of_another_version_is_told(whole, tmp_path):
    folder, _ = whole
    run(folder, tmp_path / "kept")
    (file,) = (tmp_path / "kept/checkpoints").glob("rows-*/state.json")
    file.write_text(file.read_text().replace('"learnt"', '"learned"'))
    with pytest.raises(DataError, match=r"cannot be read: .*learned"):
        stream(tmp_path / "kept")
