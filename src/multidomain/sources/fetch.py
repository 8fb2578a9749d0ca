"""Bringing a log's raw files to where they are looked for: with pip, or from their address on the web."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ..errors import DataError, SchemaError
from ..io.download import download, verify
from ..io.remote import is_address
from ..schema import RawFile, Schema
from . import files
from .text import archives

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Download:
    """One address, where what it gives is put, and which entries of the schema's ``files`` are in it."""

    address: str
    place: Path
    checksum: str | None
    files: tuple[str, ...]


def fetch(schema: Schema, raw_folder: Path | str) -> dict[str, Path]:
    """Bring every raw file of a log that a program can get and that is not there.

    Where ``raw_folder`` is an address, all of them lie in that store.

    An archive that holds several of them is downloaded once, under its own name, into their folder; what is there is
    held to its checksum.

    Returns:
        The files, as :func:`multidomain.sources.files.locate` gives them.

    Raises:
        SchemaError: two entries of the schema contradict each other.
        DataError: a file cannot be fetched, or is another than expected; or, once all others are there, some have to be
            downloaded by a person (all are named).
    """
    if is_address(raw_folder):
        return files.locate(schema, raw_folder)
    for one in downloads(schema, raw_folder):
        _bring(schema, one, raw_folder)
    left: list[tuple[Path, RawFile]] = []
    for file in schema.files.values():
        place = Path(raw_folder) / file.path
        if not is_address(file.path) and not files.find(raw_folder, file):
            if file.requirement:
                files.fetch_requirement(place, file)
            elif not file.optional:
                left.append((place, file))
    if left:
        raise DataError(
            f"Data set '{schema.name}': some files cannot be fetched by a program, because their vendor asks for an "
            f"account or gives no address of the file itself.\n{files.remedy(schema, left, raw_folder)}"
        )
    return files.locate(schema, raw_folder)


def downloads(schema: Schema, raw_folder: Path | str) -> list[Download]:
    """What is to be downloaded for a log, each address once, whether it is there or not.

    Raises:
        SchemaError: an address cannot give what its entry says, or two entries disagree on an address or its checksum.
    """
    found: dict[Path, Download] = {}
    for name, file in schema.files.items():
        if file.online is None:
            continue
        place = _place(schema, name, file, Path(raw_folder))
        whole = f"sha256:{file.sha256}" if file.sha256 and place == Path(raw_folder) / file.path else None
        one = Download(address=file.online, place=place, checksum=file.checksum or whole, files=(name,))
        other = found.get(place, one)
        if (other.address, other.checksum) != (one.address, one.checksum):
            raise SchemaError(
                f"{schema.path}: files.{name}: {other.files[0]} gets {place.name} too, but from another address or "
                "with another checksum. Give both the same, or put them into folders of their own."
            )
        found[place] = dataclasses.replace(other, files=tuple(dict.fromkeys((*other.files, name))))
    return list(found.values())


def _place(schema: Schema, name: str, file: RawFile, raw_folder: Path) -> Path:
    """Where what an address gives is put: an archive under its own name, a file at its path."""
    place = raw_folder / file.path
    given = PurePosixPath(unquote(urlsplit(file.online or "").path)).name
    if archives.is_archive(Path(given)) or (files.is_pattern(file) and files.fits(Path(given), place)):
        return place.with_name(given)
    if files.is_pattern(file):
        raise SchemaError(
            f"{schema.path}: files.{name}: {file.online} gives one file, and {file.path} stands for several: name an "
            f"archive ({', '.join(archives.ZIP + archives.TAR)}), or one file for each address."
        )
    return place


def _bring(schema: Schema, one: Download, raw_folder: Path | str) -> None:
    """Download one address, unless that was done or its files are there unpacked."""
    if one.place.is_file():
        verify(one.place, one.checksum, place=one.place, remedy="Delete it and run again: it is then fetched anew.")
    elif _absent(schema, one, raw_folder):
        log.info("Fetching %s into %s.", one.address, one.place.parent)
        download(one.address, one.place, checksum=one.checksum)
    else:
        log.info("%s is not needed: its files are there.", one.place.name)
        return
    if absent := _absent(schema, one, raw_folder):
        wanted = ", ".join(Path(schema.files[name].path).name for name in absent)
        raise DataError(
            f"{one.place} holds no {wanted} (files.{absent[0]} of {schema.path}). Has the vendor changed it? Correct "
            "the path or the address in the schema."
        )


def _absent(schema: Schema, one: Download, raw_folder: Path | str) -> list[str]:
    """The files of a download that have to be there and are not."""
    wanted = [name for name in one.files if not schema.files[name].optional or one.files == (name,)]
    return [name for name in wanted if not files.find(raw_folder, schema.files[name])]
