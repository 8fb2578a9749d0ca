"""Files that lie in a zip or tar archive, read in place: ``ml-1m.zip/ml-1m/ratings.dat`` is a path like any other."""

from __future__ import annotations

import contextlib
import functools
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

ZIP = (".zip", ".whl")
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)  # what reading a damaged archive raises
_PIECE = 1 << 22


def is_archive(path: Path) -> bool:
    """Whether a file is one that others lie in, by its name."""
    return path.name.lower().endswith(ZIP + TAR)


def outermost(path: Path) -> Path:
    """The file on disk that holds ``path``: itself, or the archive among its parents."""
    return next((place for place in (path, *path.parents) if place.is_file()), path)


def members(archive: Path) -> list[Path]:
    """The files in an archive, as paths below it. A tar archive is read through to its end for that."""
    return [archive / name for name in _listed(archive, archive.stat().st_mtime_ns)]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A stream of the bytes of a file, wherever it lies.

    Raises:
        FileNotFoundError: it is in no archive either.
    """
    outer = outermost(path)
    if outer == path:
        with path.open("rb") as stream:
            yield stream
        return
    member = str(PurePosixPath(path.relative_to(outer)))
    if outer.name.lower().endswith(ZIP):
        with zipfile.ZipFile(outer) as archive, archive.open(_there(archive.namelist(), member, outer)) as inner:
            yield cast(BinaryIO, inner)
    else:
        with tarfile.open(outer, "r|*") as tar:
            for entry in tar:
                if entry.isfile() and _plain(entry.name) == member:
                    yield cast(BinaryIO, tar.extractfile(entry))
                    return
        raise FileNotFoundError(f"{outer} holds no {member}")


def size(path: Path) -> int:
    """The bytes of a file as :func:`opened` gives them; 0 where only reading would tell."""
    outer = outermost(path)
    if outer == path:
        return path.stat().st_size
    if outer.name.lower().endswith(ZIP):
        with zipfile.ZipFile(outer) as archive:
            return archive.getinfo(str(PurePosixPath(path.relative_to(outer)))).file_size
    return 0


def skip(stream: BinaryIO, count: int) -> None:
    """Go on ``count`` bytes further, by reading where a stream cannot jump."""
    if isinstance(getattr(stream, "raw", None), io.FileIO):
        stream.seek(count, io.SEEK_CUR)
        return
    while count > 0 and (piece := stream.read(min(count, _PIECE))):
        count -= len(piece)


@functools.cache
def _listed(archive: Path, changed: int) -> tuple[str, ...]:
    del changed  # part of the key
    if archive.name.lower().endswith(ZIP):
        with zipfile.ZipFile(archive) as opened_zip:
            return tuple(name for name in opened_zip.namelist() if not name.endswith("/"))
    with tarfile.open(archive, "r|*") as tar:
        return tuple(_plain(entry.name) for entry in tar if entry.isfile())


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _there(names: list[str], member: str, archive: Path) -> str:
    if member not in names:
        raise FileNotFoundError(f"{archive} holds no {member}")
    return member
