"""Room on a disk: what is said when there is too little, before writing begins or while it goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import DataError


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises a DataError when the disk that holds `folder` has less than `needed` bytes left for `what`."""
    if shutil.disk_usage(folder).free < needed:
        raise disk_full(folder, needed, what)


def disk_full(folder: Path, needed: int, what: str) -> DataError:
    """The one message for a full disk, met before or while writing."""
    return DataError(
        f"The disk is full: {what} needs {needed:,} bytes in {folder}, {shutil.disk_usage(folder).free:,} are free "
        "there. Free some space, or move the data folder to a larger disk."
    )
