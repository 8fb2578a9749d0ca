"""Raw files that lie in an object store: copied to a local folder, and only when they are not there or have changed.

``s3://bucket/prefix`` and the like, by fsspec. The copies lie in ``01_raw/objects/<scheme>/<bucket>/…`` of the data
folder under the names they have in the store; ``01_raw/objects/.versions/`` holds a small file for each that says which
version it is a copy of. A copy follows its object: it is brought again when the object's size or mark (the store's tag,
checksum or date) is another, and goes when the object has gone. :mod:`multidomain.io.remote` says how it is reached.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, DataError, UserError
from ..io import remote
from ..io.atomic import replacing
from ..progress import progress
from ..resolvers import data
from .patterns import choose, split, wild

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from tqdm import tqdm

log = logging.getLogger(__name__)
TRIES = 3  # of an object that changes while it is copied
FOLDER = "objects"  # of the raw folder
VERSIONS = ".versions"  # of that
_MARKS = (
    *("ETag", "etag", "md5Hash", "content_md5", "checksum", "generation"),
    *("mtime", "LastModified", "last_modified", "updated", "modified", "created"),
)


@dataclass(frozen=True, kw_only=True)
class Version:
    """What tells versions of an object apart: its size, and the first mark that the store has of it, if any."""

    size: int | None
    mark: str | None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Version:
        """From what fsspec says of a file; a list and a question about one may write its date differently."""
        mark = next((info[name] for name in _MARKS if info.get(name)), None)
        mark = mark.timestamp() if isinstance(mark, datetime) else mark
        return cls(size=info.get("size"), mark=None if mark is None else str(mark).strip('"'))


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What an entry of a schema's ``files`` stands for in a store.

    Attributes:
        root: ``s3://bucket/prefix``, without a wildcard.
        path: below it; may be a pattern.
    """

    root: str
    path: str

    def __str__(self) -> str:
        return f"{self.root}/{self.path}"

    @property
    def scheme(self) -> str:
        """``s3``"""
        return remote.scheme_of(self.root)

    @property
    def bucket(self) -> str:
        """``s3://bucket``"""
        return "/".join(self.root.split("/")[:3])

    @property
    def mirror(self) -> Path:
        """The local folder that stands for the root."""
        return _below(Path(data("data")) / "01_raw" / FOLDER, self.root)

    @property
    def versions(self) -> Path:
        """Where the versions of the copies are noted."""
        return _below(Path(data("data")) / "01_raw" / FOLDER / VERSIONS, self.root)

    def address(self, copy: Path) -> str:
        """The object that a local file, or the archive it lies in, is a copy of."""
        return f"{self.root}/{copy.relative_to(self.mirror).as_posix()}"


def _below(folder: Path, root: str) -> Path:
    scheme, rest = root.split("://", 1)
    return folder / scheme / rest


def stored(raw_folder: Path | str, path: str) -> Stored | None:
    """Where a path of the schema lies in a store; None where it is a local one.

    Raises:
        ConfigurationError: an address without a bucket, or of a kind that no list of files can be had of.
    """
    if not remote.is_address(path) and (not remote.is_address(raw_folder) or Path(path).is_absolute()):
        return None
    address = path if remote.is_address(path) else f"{raw_folder}/{path}"
    scheme = remote.scheme_of(address)
    if scheme in ("http", "https"):
        raise ConfigurationError(
            f"{address}: raw files are listed in an object store (s3://bucket/prefix), and {scheme}:// gives no list. "
            "A file with an address on the web has it as 'fetch' in the schema, and its place as 'path'."
        )
    _, bucket, parts = remote.parsed(address)
    if not bucket or not parts or wild(bucket) or ".." in parts:
        raise ConfigurationError(f"{address} names no files in a bucket. Expected: {scheme}://bucket/prefix/name.")
    if remote.is_address(path):
        return Stored(root=f"{scheme}://{bucket}", path="/".join(parts))
    here = PurePosixPath(path).parts
    prefix = parts[: len(parts) - len(here)]
    if any(wild(part) for part in prefix):
        raise ConfigurationError(f"{raw_folder} (raw_folder) holds a wildcard: those belong into 'path' of the schema.")
    return Stored(root="/".join([f"{scheme}://{bucket}", *prefix]), path="/".join(here))


def bring(source: Stored) -> list[Path]:
    """Local copies of what the path stands for, or may lie in; none where nothing fits.

    What is there and unchanged in the store is not brought again. A copy gets its name only when it is whole.

    Raises:
        DataError: the store is not reached, refuses, or an object changes while it is copied; the disk is full.
        ConfigurationError: the driver is missing.
    """
    fs, top = _open(source)
    there, whole = _list(fs, top, source)
    chosen = {path: there[path] for path in _chosen(source, there)}
    if whole:
        _forget(source, there)
    wanted = {path: version for path, version in chosen.items() if not _is_copied(source, path, version)}
    if wanted:
        _copy(fs, top, source, wanted)
    elif chosen:
        log.info("%s: %s of %s, unchanged since copied.", source, _count(chosen), source.mirror)
    return [source.mirror / path for path in chosen]


def stamp(source: Stored) -> list[list[Any]]:
    """Name, size and mark of each object that the path stands for, without copying any.

    Where the store cannot be asked, of each as it was last copied, with a warning.

    Raises:
        DataError: it cannot be asked, and nothing was copied from it before.
    """
    try:
        there, _ = _list(*_open(source), source)
    except UserError as error:
        if not any(source.versions.rglob("*.json")):
            raise
        log.warning("%s\nUntil then its objects count as unchanged since they were copied.", error)
        there = _noted(source)
    return [[str(path), there[path].size, there[path].mark] for path in _chosen(source, there)]


def remedy(absent: list[Stored]) -> str:
    """Of entries that nothing in a store fits: which, what is there instead, and what to do."""
    lines = []
    for source in absent:
        fs, top = _open(source)
        there, _ = _list(fs, top, source)
        some = ", ".join(str(path) for path in sorted(there)[:3]) + (", …" if len(there) > 3 else "")
        with _asking(source):
            known = bool(there) or fs.exists(source.bucket)
        base = "/".join([source.root, *split(source.path)[0].parts])
        beside = f"Below {base} there are {len(there):,}: {some}" if there else f"Below {base} there is none"
        lines.append(f"  no object fits {source}. {beside if known else f'There is no bucket {source.bucket}'}.")
    return "\n".join([*lines, "Put them there, or correct raw_folder or the path in the schema."])


# --- what is in the store ----------------------------------------------------------------------------------------


def _open(source: Stored) -> tuple[AbstractFileSystem, str]:
    """The driver, and the root as it names it."""
    with _asking(source):
        return remote.opened(source.root, meant=str(source))


def _list(fs: AbstractFileSystem, top: str, source: Stored) -> tuple[dict[PurePosixPath, Version], bool]:
    """The objects that a path is looked for among, relative to the root; and whether these are all there can be."""
    base, wanted = split(source.path)
    with _asking(source):
        fs.invalidate_cache()
        if not wild(source.path):  # one question, where it is there
            with contextlib.suppress(FileNotFoundError):
                info = fs.info(f"{top}/{source.path}")
                if info["type"] == "file":
                    return {base / wanted: Version.of(info)}, False
        try:
            if base.parts or len(wanted.parts) > 1:
                found = fs.find("/".join([top, *base.parts]), detail=True)
            else:
                found = {info["name"]: info for info in fs.ls(top, detail=True)}
        except FileNotFoundError:  # no such bucket or prefix
            return {}, False
    listed: dict[PurePosixPath, Version] = {}
    for name, info in found.items():
        relative = name.removeprefix(f"{top}/")
        if info["type"] != "file" or name.endswith("/"):
            continue
        if {"", ".", ".."} & set(relative.split("/")):
            log.warning("%s/%s cannot be the name of a file: it is left out.", source.root, relative)
            continue
        listed[PurePosixPath(relative)] = Version.of(info)
    return listed, bool(listed)


def _chosen(source: Stored, there: Mapping[PurePosixPath, Version]) -> list[PurePosixPath]:
    base, wanted = split(source.path)
    below = [path.relative_to(base) for path in there if path.is_relative_to(base)]
    return [base / path for path in choose(below, wanted, deeper=bool(base.parts))]


# --- what has been copied ----------------------------------------------------------------------------------------


def _note(source: Stored, path: PurePosixPath) -> Path:
    return source.versions / f"{path}.json"


def _noted(source: Stored) -> dict[PurePosixPath, Version]:
    """What each copy is a copy of."""
    notes = [PurePosixPath(note.relative_to(source.versions)) for note in source.versions.rglob("*.json")]
    paths = [note.with_name(note.name.removesuffix(".json")) for note in notes if not note.name.startswith(".")]
    read = {path: _read(source, path) for path in paths}
    return {path: version for path, version in read.items() if version}


def _read(source: Stored, path: PurePosixPath) -> Version | None:
    try:
        return Version(**json.loads(_note(source, path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _is_copied(source: Stored, path: PurePosixPath, version: Version) -> bool:
    copy = source.mirror / path
    return _read(source, path) == version and copy.is_file() and version.size in (None, copy.stat().st_size)


def _forget(source: Stored, there: Mapping[PurePosixPath, Version]) -> None:
    """Remove the copies of objects that have gone."""
    for path in _chosen(source, _noted(source)):
        if path not in there:
            log.warning("%s/%s is no longer in the store: it is left out, and its copy removed.", source.root, path)
            (source.mirror / path).unlink(missing_ok=True)
            _note(source, path).unlink(missing_ok=True)


# --- copying -----------------------------------------------------------------------------------------------------


class _Changed(Exception):
    """The object is another than when it was asked for."""


class _Stopped(Exception):
    """Another object could not be copied."""


def _copy(fs: AbstractFileSystem, top: str, source: Stored, wanted: Mapping[PurePosixPath, Version]) -> None:
    """Bring some objects, several at a time; the first that fails ends it, and those that are whole stay."""
    total = sum(version.size or 0 for version in wanted.values())
    _make_room(source, total)
    log.info("%s: copying %s (%s bytes) to %s.", source, _count(wanted), f"{total:,}", source.mirror)
    stop = threading.Event()
    with progress(total=total, what=f"copy {source.path}", unit="B") as bar:
        pool = ThreadPoolExecutor(min(remote.AT_ONCE, len(wanted)), thread_name_prefix="copy")
        callback = _callback(bar, stop)
        try:
            made = [pool.submit(_copy_one, fs, top, source, path, wanted[path], callback) for path in sorted(wanted)]
            for one in as_completed(made):
                one.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _copy_one(
    fs: AbstractFileSystem, top: str, source: Stored, path: PurePosixPath, listed: Version, callback: Any
) -> None:
    """Copy an object; where it changes meanwhile, again.

    Noted is what the list said of it: if it has changed since then, the next list differs, and it is brought again.
    """
    one, name, noted = dataclasses.replace(source, path=str(path)), f"{top}/{path}", listed
    for _ in range(TRIES):
        with _asking(one):
            if _attempt(fs, name, source, path, noted, callback):
                return
            noted = Version.of(fs.info(name))
        log.warning("%s has changed while it was copied: again.", one)
    raise DataError(f"{one} changes while it is copied ({TRIES} times). Run again when nobody writes to it.")


def _attempt(
    fs: AbstractFileSystem, name: str, source: Stored, path: PurePosixPath, noted: Version, callback: Any
) -> bool:
    """Copy an object under a temporary name; give it its name, and note its version, if it did not change meanwhile."""
    copy, note = source.mirror / path, _note(source, path)
    before = Version.of(fs.info(name))
    try:
        with replacing(copy) as temporary:
            fs.get_file(name, str(temporary), callback=callback)
            fs.invalidate_cache()
            if Version.of(fs.info(name)) != before:
                raise _Changed
            size = temporary.stat().st_size
            if before.size not in (None, size):
                raise OSError(f"{size:,} of {before.size:,} bytes came")
            note.unlink(missing_ok=True)  # a copy without a note is brought again
    except _Changed:
        return False
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(vars(noted)), encoding="utf-8")
    return True


def _callback(bar: tqdm[Any], stop: threading.Event) -> Any:
    """What fsspec is to call after each piece: moves the bar, and ends a copy when another has failed."""
    from fsspec.callbacks import Callback

    class Advance(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            if stop.is_set():
                raise _Stopped
            bar.update(inc)

    return Advance()


def _make_room(source: Stored, total: int) -> None:
    source.mirror.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(source.mirror).free
    if total > free:
        raise DataError(
            f"{source} has {total:,} bytes to copy, and {source.mirror} has {free:,} free. Free some space, or point "
            "$MULTIDOMAIN_DATA at a larger disk."
        )


def _count(objects: Mapping[PurePosixPath, Version]) -> str:
    return f"{len(objects):,} object{'s' if len(objects) != 1 else ''}"


# --- what a store says -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _asking(source: Stored) -> Iterator[None]:
    """Turn whatever a driver raises into one message; each has errors of its own."""
    try:
        yield
    except (UserError, _Stopped):
        raise
    except Exception as error:
        raise DataError(_said(source, error)) from error


def _said(source: Stored, error: Exception) -> str:
    """What was wrong, and what to do."""
    if isinstance(error, OSError) and error.filename:
        return f"{source} could not be copied: {error.strerror} ({error.filename})."
    first = remote.first_line(error)
    if isinstance(error, FileNotFoundError):
        return f"{source} is no longer there ({first}): it went while the log was copied. Run again."
    if refused := remote.refused(error, source.scheme):
        return f"{source} may not be read: {refused}"
    copies = ""
    if source.mirror.is_dir():
        copies = f" The copies lie in {source.mirror}: as raw_folder, that is read without the store."
    return (
        f"{source}: the store could not be reached, or did not answer as it should ({type(error).__name__}: {first}).\n"
        f"Run again when it can be: copies that are whole stay, the others are brought then.{copies}"
    )
