"""Writing without leaving anything half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; when the block ends well it takes the target's place, else it goes.

    Works for files and folders alike. A full disk becomes a message that says where and how much is free.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if target.is_dir() or (temporary.is_dir() and target.exists()):
            old = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.old")
            os.rename(target, old)
            os.rename(temporary, target)
            with contextlib.suppress(OSError):
                remove(old)
        else:
            os.replace(temporary, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(target.parent).free
            raise DataError(
                f"The disk is full: {target} could not be written ({free / 2**20:.0f} MiB free in {target.parent}). "
                "Nothing was left half-written. Free some space, or point $MULTIDOMAIN_DATA at a larger disk."
            ) from error
        raise
    finally:
        remove(temporary)


@contextlib.contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for what making it takes. It goes at the end; after a kill, when next asked for."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    folder = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove what a killed process left of an earlier attempt at this target."""
    start = f".{target.name}."
    for name in os.listdir(target.parent):
        if name.startswith(start) and name.endswith((".tmp", ".old")):
            owner = name.removeprefix(start).split("-", 1)[0]
            if not (owner.isdigit() and runs(int(owner))):
                remove(target.parent / name)


def runs(process: int) -> bool:
    """Whether there is a process with this id: what has a temporary name of its is in use."""
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
