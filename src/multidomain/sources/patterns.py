"""What a path of the schema stands for, on disk and in an object store alike.

A file is looked for at its path, then anywhere in its folder, then in the archives there. A pattern whose folders hold
wildcards too (``clicks/day=*/part-*.parquet``) stands for the files at just that depth.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath

from ..schema import RawFile
from .text import archives


def is_pattern(file: RawFile) -> bool:
    """Whether a path stands for several files."""
    return wild(file.path)


def wild(path: str) -> bool:
    """Whether a text holds a wildcard."""
    return any(sign in path for sign in "*?[")


def fits(path: PurePath, place: PurePath) -> bool:
    """Whether a file has the name that a place, which may be a pattern, asks for."""
    return fnmatch.fnmatchcase(path.name, place.name)


def split(path: str) -> tuple[PurePosixPath, PurePosixPath]:
    """The folder where a path is looked for, which has no wildcard, and the rest."""
    parts = PurePosixPath(path).parts
    end = next((i for i, part in enumerate(parts[:-1]) if wild(part)), len(parts) - 1)
    return PurePosixPath(*parts[:end]), PurePosixPath(*parts[end:])


def choose(there: Iterable[PurePosixPath], wanted: PurePosixPath, *, deeper: bool) -> list[PurePosixPath]:
    """Which files of a folder ``wanted`` stands for, or may lie in, in order; all are relative to the folder.

    Args:
        there: the files, at any depth.
        wanted: a name or a pattern.
        deeper: whether a file that is not at its place may lie further down, or in an archive.
    """
    paths = sorted(there)
    if wanted in paths:
        return [wanted]
    if len(wanted.parts) > 1 or not deeper:
        return [path for path in paths if len(path.parts) == len(wanted.parts) and path.match(str(wanted))]
    return [path for path in paths if fits(path, wanted)] or [path for path in paths if archives.is_archive(Path(path))]


def identity(path: PurePosixPath) -> str:
    """What tells a file from others of its pattern: its name, and the ``key=value`` folders it lies in."""
    return "/".join([*(part for part in path.parts[:-1] if "=" in part), path.name])
