"""What a process holds, and those that it has started."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path


def peak() -> float:
    """The most memory that this process has held, in MiB; pages of mapped files and shared memory count.

    Linux's own account of a program begins with the program; ``getrusage`` also counts what the process that started it
    held just then.
    """
    if (held := _kib(Path("/proc/self/status"), "VmHWM")) is not None:
        return held
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def mapped() -> float | None:
    """Of what it holds now, pages of mapped files, which the system takes back when it needs them; None off Linux."""
    return _kib(Path("/proc/self/status"), "RssFile")


def others() -> float | None:
    """What its descendants hold now, shared pages by their share: loaders and Ray, in MiB; None off Linux."""
    if not Path("/proc/self/smaps_rollup").is_file():
        return None
    return sum(_kib(Path(f"/proc/{child}/smaps_rollup"), "Pss") or 0.0 for child in descendants(os.getpid()))


def descendants(pid: int) -> set[int]:
    """Its children, theirs, and so on."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        parent = _number(status, "PPid")
        if parent is not None:
            parents[int(status.parent.name)] = parent
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def _kib(path: Path, name: str) -> float | None:
    number = _number(path, name)
    return None if number is None else number / 2**10


def _number(path: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+)", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
