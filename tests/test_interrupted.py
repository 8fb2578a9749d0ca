"""kill -9 in every stage of preparation, then the same command: the bytes are those of a run that nobody disturbed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from places import PROJECT

from benchmarks.raw_files import ali_ccp, kuairand

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "kedro", "run", "--pipeline=prepare", "--only-missing-outputs"]
NODE = re.compile(r" INFO +· (.+)$")
OF_THE_RUN = ("repository.json", "registry.db", "online_store.db", "feature_store.yaml")  # times, and where the data is


def started(dataset: str, raw: Path, data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, f"--params=dataset={dataset},raw_folder={raw}"],
        cwd=PROJECT,
        env={**os.environ, "MULTIDOMAIN_DATA": str(data), "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def nodes(running: subprocess.Popen[str]) -> Iterator[str]:
    """The nodes of a run as they begin."""
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if found := NODE.search(line):
            yield found[1]
    assert running.wait() in (0, -signal.SIGKILL), "".join(said[-30:])


def content(data: Path) -> dict[str, str]:
    """The sum of every file that is made of the log alone.

    SQLite keeps a journal of a store whose process was killed beside it, until somebody opens the store again.
    """
    for store in data.rglob("online_store.db"):
        with contextlib.closing(sqlite3.connect(store)) as opened:
            assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    stages = ("02_intermediate", "03_primary", "04_feature", "05_model_input")
    files = [path for stage in stages for path in sorted((data / stage).rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in OF_THE_RUN
    }


def end_with_the_same_bytes(dataset: str, folder: Path, victims: Sequence[str]) -> None:
    """Kill one run after the other in these nodes (none given: in every one), then let one end."""
    raw, whole, killed = (folder / name for name in ("raw", "whole", "killed"))
    every = list(nodes(started(dataset, raw, whole)))
    assert {"read log", "validate", "join training frame", "encode"} <= set(every)
    kills = 0
    for delay, victim in zip(itertools.cycle((0, 0.1, 0.2)), victims or every):  # it reads, computes or writes
        running = started(dataset, raw, killed)
        for node in nodes(running):
            if node == victim:
                time.sleep(delay)
                os.killpg(running.pid, signal.SIGKILL)
                kills += 1
    assert kills > len(victims or every) / 2  # one that dies late leaves its node done
    assert list(nodes(started(dataset, raw, killed)))[-1] == every[-1]
    expected, found = content(whole), content(killed)
    assert found.keys() == expected.keys()  # nothing half-written is left
    assert {name for name in expected if found[name] != expected[name]} == set()
    assert any(name.startswith("05_model_input") for name in expected)


def test_a_preparation_killed_in_each_of_its_stages_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    kuairand.write(tmp_path / "raw/kuairand", rows=4_000)
    end_with_the_same_bytes("kuairand", tmp_path, [])


def test_files_that_are_joined_while_read_end_with_the_same_bytes_after_kills(tmp_path: Path) -> None:
    ali_ccp.write(tmp_path / "raw/ali_ccp", rows=4_000)
    end_with_the_same_bytes("ali_ccp", tmp_path, ["read log"] * 3)
