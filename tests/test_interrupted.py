"""kill -9 in every stage of preparation, then the same command: the bytes are those of a run that nobody disturbed."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import PROJECT

from benchmarks.raw_files import kuairand

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "kedro", "run", "--pipeline=prepare", "--only-missing-outputs"]
NODE = re.compile(r" INFO +· (.+)$")
OF_THE_RUN = ("repository.json", "registry.db", "online_store.db", "feature_store.yaml")  # times, and where the data is


def started(raw: Path, data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, f"--params=dataset=kuairand,raw_folder={raw}"],
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
    """The sum of every file that is made of the log alone."""
    stages = ("02_intermediate", "03_primary", "04_feature", "05_model_input")
    files = [path for stage in stages for path in sorted((data / stage).rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in OF_THE_RUN
    }


def test_a_preparation_killed_in_each_of_its_stages_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    kuairand.write(tmp_path / "raw/kuairand", rows=4_000)
    whole = list(nodes(started(tmp_path / "raw", tmp_path / "whole")))
    assert {"read log", "validate", "join training frame", "encode"} <= set(whole)
    for number, victim in enumerate(whole):
        running = started(tmp_path / "raw", tmp_path / "killed")
        for node in nodes(running):
            if node == victim:
                time.sleep(0.1 * (number % 3))  # while it reads, computes or writes
                os.killpg(running.pid, signal.SIGKILL)
    assert list(nodes(started(tmp_path / "raw", tmp_path / "killed")))[-1] == whole[-1]
    expected, found = content(tmp_path / "whole"), content(tmp_path / "killed")
    assert found.keys() == expected.keys()  # nothing half-written is left
    assert {name for name in expected if found[name] != expected[name]} == set()
    assert any(name.startswith("05_model_input") for name in expected)
