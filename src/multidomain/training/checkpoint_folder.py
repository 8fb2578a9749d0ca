"""Folders that are there whole or not at all, of which the newest counts."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from ..disk import disk_full, require_space

_WRITING = "a training checkpoint"


class CheckpointFolder:
    """Checkpoints in one folder: each is written under a hidden name and then renamed; only the newest is kept.

    Args:
        folder: made when needed; nobody else's.
        prefix: of their names, which sort in order of age: ``epoch``.
    """

    def __init__(self, folder: Path | str, prefix: str) -> None:
        self.folder, self._pattern = Path(folder), f"{prefix}-*"

    def newest_first(self) -> list[Path]:
        """What is there."""
        return sorted(self.folder.glob(self._pattern), reverse=True)

    def sweep(self) -> None:
        """Removes what a killed process left unfinished."""
        for left_over in self.folder.glob(".*"):
            shutil.rmtree(left_over, ignore_errors=True)

    def write(self, name: str, fill: Callable[[Path], None], *, needed: int) -> None:
        """Makes the checkpoint ``name`` and removes the others.

        Args:
            name: of its folder.
            fill: writes its files into an empty folder.
            needed: bytes that it takes.

        Raises:
            DataError: the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        require_space(self.folder, needed + (1 << 20), _WRITING)
        unfinished = self._hidden("unfinished")
        try:
            unfinished.mkdir()
            fill(unfinished)
            for file in unfinished.rglob("*"):
                if file.is_file():
                    _to_disk(file)
            self._replace(unfinished, self.folder / name)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
                raise disk_full(self.folder, needed, _WRITING) from error
            raise

    def clear(self) -> None:
        """Removes all checkpoints."""
        for path in self.newest_first():
            self._discard(path)

    def _replace(self, unfinished: Path, path: Path) -> None:
        older = self.newest_first()
        if path in older:  # of another run: a rename cannot replace a folder that holds files
            self._discard(path)
        os.replace(unfinished, path)
        for other in older:
            if other != path:
                self._discard(other)

    def _discard(self, path: Path) -> None:
        """Removes a checkpoint under a hidden name, so that half of one is never taken for a whole."""
        hidden = self._hidden("discarded")
        os.replace(path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def _hidden(self, purpose: str) -> Path:
        return self.folder / f".{purpose}-{os.urandom(6).hex()}"


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
