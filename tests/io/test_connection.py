"""The table engine's own files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

SPILL = """
import os, sys
from multidomain.io import connection
engine = connection().con
print(engine.sql("select current_setting('temp_directory')").fetchone()[0], flush=True)
sys.stdin.read()
"""


def started(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with an engine, and where the engine spills to."""
    process = subprocess.Popen(
        [sys.executable, "-c", SPILL],
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_spilled_goes_with_the_next_start_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    killed, left = started(tmp_path)
    running, used = started(tmp_path)
    (left / "spilled").write_text("much", encoding="utf-8")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.is_dir()
    last, own = started(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([used, own])
    for process in (running, last):
        process.communicate()
    assert not list(tmp_path.iterdir())
