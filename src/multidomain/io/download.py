"""Downloads over http(s) that go on where they were cut off, and get their name only when they are whole.

The bytes are kept in ``<name>.part`` beside the place. ``<name>.part.json`` says which version of the file they are of,
so that bytes of two versions are never joined: the server is asked to go on only if the file is still that one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..errors import DataError
from ..progress import progress
from .atomic import replacing

log = logging.getLogger(__name__)
PIECE = 1 << 20  # bytes taken at a time
TIMEOUT = 60.0  # seconds without a byte, after which a connection counts as cut
TRIES = 5  # answers in a row that bring nothing new
WAIT = 1.0  # seconds before the next try, twice as long after each that brought nothing
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_GUARDED = (401, 402, 403, 407)
_PAGE = ("text/html", "application/xhtml+xml")
_AGAIN = "Run again; if it stays so, the vendor has changed the file: compare its checksum with the one in the schema."


class _Cut(Exception):
    """The connection ended early, or the server has no time: ask again."""


class _Refused(Exception):
    """Asking again would not help."""


def download(address: str, place: Path, *, checksum: str | None = None) -> None:
    """Bring what ``address`` gives to ``place``; what an earlier run has brought of it is not asked for again.

    Args:
        address: ``https://…`` or ``http://…``.
        place: the file to make; its folder is made too.
        checksum: ``md5:…`` or ``sha256:…`` of the whole; without one the size that the server names is all that is
            checked.

    Raises:
        DataError: the server is not there, refuses, or gives something else than the checksum describes; the disk is
            full; another run is at it. Nothing stands at ``place`` then.
    """
    with _Part(address, place) as part:
        try:
            _receive(part)
        except _Refused as refused:
            raise DataError(part.failure(refused)) from refused
        try:
            verify(part.path, checksum, place=place, remedy=f"It came from {address} and was not kept. {_AGAIN}")
        except DataError:
            part.clear()
            raise
        os.replace(part.path, place)


def verify(path: Path, checksum: str | None, *, place: Path, remedy: str) -> None:
    """Hold a file, meant for ``place``, to its ``md5:…`` or ``sha256:…``; without one anything will do.

    Raises:
        DataError: it is another; with both sums, and the remedy.
    """
    if checksum is None:
        return
    kind, expected = checksum.split(":")
    found = digest(path, kind)
    if found != expected.lower():
        raise DataError(
            f"{place} is not the expected file: it was cut short or altered.\n"
            f"  expected {kind} {expected}\n"
            f"  found    {kind} {found} ({path.stat().st_size:,} bytes)\n"
            f"{remedy}"
        )


def digest(path: Path, kind: str) -> str:
    """The md5 or sha256 of a file of any size."""
    made = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file, progress(total=path.stat().st_size, what=f"check {path.name}", unit="B") as bar:
        while piece := file.read(PIECE):
            made.update(piece)
            bar.update(len(piece))
    return made.hexdigest()


# --- the part ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Which version of which file some bytes are of: its tag or date, and its size, where the server says them."""

    address: str
    mark: str | None
    total: int | None


class _Part:
    """What there is of a download so far, held by one process at a time.

    Attributes:
        version: what the bytes are of; None where there are none.
    """

    def __init__(self, address: str, place: Path) -> None:
        self.address, self.place = address, place
        self.path, self._note = (place.with_name(f"{place.name}.part{end}") for end in ("", ".json"))
        self.version: _Version | None = None

    def __enter__(self) -> _Part:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise DataError(f"{self.place} cannot be written: {error.strerror} ({error.filename}).") from error
        try:
            self._lock()
        except BaseException:
            self._file.close()
            raise
        self.version = self._noted()
        if self.version is None:  # of another address, or who knows of what
            self.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.size == 0:
            self.path.unlink(missing_ok=True)
        if not self.path.exists():  # nothing came, or it has its name
            self._note.unlink(missing_ok=True)
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return os.fstat(self._file.fileno()).st_size

    def clear(self) -> None:
        """Forget what has come so far."""
        self._file.truncate(0)
        self.version = None

    def begin(self, version: _Version) -> None:
        """Start from the first byte, and note of what."""
        self.clear()
        self.version = version
        with replacing(self._note) as temporary:
            temporary.write_text(json.dumps(vars(version)), encoding="utf-8")

    def make_room(self, more: int) -> None:
        """See that so many bytes fit onto the disk."""
        free = shutil.disk_usage(self.path.parent).free
        if more > free:
            raise DataError(
                f"{self.place} needs {more:,} more bytes, and {self.path.parent} has {free:,} free. Free some space, "
                "or point $MULTIDOMAIN_DATA at a larger disk."
            )

    def write(self, piece: bytes) -> None:
        """Append bytes; each is on its way to the disk when this returns."""
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cause = "The disk is full" if full else f"The disk cannot be written ({error.strerror})"
            raise DataError(
                f"{cause}: {self.place} could not be fetched whole. {self._kept()}Put that right and run again."
            ) from error

    def failure(self, why: Exception) -> str:
        """What to say when asking again would not help."""
        return (
            f"{self.address} could not be fetched: {why}.\n{self._kept()}"
            f"Run again when the address can be reached; or get the file by other means and put it at {self.place}."
        )

    def _kept(self) -> str:
        total = f" of {self.version.total:,}" if self.version and self.version.total else ""
        return f"{self.size:,}{total} bytes are kept in {self.path}: the next run goes on there.\n" if self.size else ""

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())  # else it just got its name
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise DataError(f"{self.place} is being fetched by another run just now: wait for its end, then run again.")

    def _noted(self) -> _Version | None:
        try:
            version = _Version(**json.loads(self._note.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return version if self.size and version.address == self.address else None


# --- asking ------------------------------------------------------------------------------------------------------


def _receive(part: _Part) -> None:
    """Ask until the part is whole, or ``TRIES`` times in a row for nothing."""
    fruitless, met = 0, False
    while not (part.version and part.version.total == part.size):  # it may have been killed before it got its name
        before = part.size
        try:
            with _ask(part) as answer:
                met = True
                _take(answer, part)
            return
        except _Cut as cut:
            fruitless = 0 if part.size > before else fruitless + 1
            nobody = type(cut.__cause__) is urllib.error.URLError and not met
            if nobody or fruitless >= TRIES:
                raise _Refused(str(cut)) from cut
            log.warning("%s: %s; going on after %s bytes.", part.place.name, cut, f"{part.size:,}")
            time.sleep(WAIT * 2**fruitless)


def _ask(part: _Part) -> http.client.HTTPResponse:
    """The server's answer: from where the part ends, if it can do that and the file is still the same."""
    headers = {"User-Agent": "multidomain", "Accept-Encoding": "identity"}
    if part.version is not None:
        headers["Range"] = f"bytes={part.size}-"
        headers |= {"If-Range": part.version.mark} if part.version.mark else {}
    try:
        request = urllib.request.Request(part.address, headers=headers)
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        return answer
    except urllib.error.HTTPError as error:
        said = f"the server answered {error.code} {error.reason}"
        if error.code == 416:  # the part is not the beginning of what is there now
            part.clear()
        if error.code == 416 or error.code in _BUSY:
            raise _Cut(said) from error
        why = ": it asks for an account, or does not hand this out to programs" if error.code in _GUARDED else ""
        raise _Refused(said + why) from error
    except urllib.error.URLError as error:
        raise _Cut(f"the server cannot be reached ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise _Refused(f"that is no address ({error})") from error
    except (http.client.HTTPException, OSError) as error:
        raise _Cut(f"the connection was cut ({error})") from error


def _take(answer: http.client.HTTPResponse, part: _Part) -> None:
    """Append what the server gives."""
    if answer.headers.get_content_type() in _PAGE and not part.place.name.endswith((".html", ".htm")):
        raise _Refused("the server gave a page instead of the file: it may ask for an account")
    start, total = _extent(answer)
    if start == 0:
        if part.size:
            log.warning("%s: the server starts from the beginning.", part.place.name)
        part.begin(_Version(address=part.address, mark=_mark(answer), total=total))
    else:
        known = part.version.total if part.version else None
        if start != part.size or (None not in (total, known) and total != known):
            part.clear()
            raise _Cut("the server gave another part than was asked for")
        total = known if total is None else total
    part.make_room(total - start if total else 0)
    with progress(total=total or 0, what=f"fetch {part.place.name}", unit="B") as bar:
        bar.update(start)
        while piece := _piece(answer, PIECE if total is None else min(PIECE, total - part.size)):
            part.write(piece)
            bar.update(len(piece))
    if total is not None and part.size != total:
        raise _Cut(f"the connection was cut after {part.size:,} of {total:,} bytes")
    if part.size == 0:
        raise _Refused("the server gave an empty file")


def _piece(answer: http.client.HTTPResponse, most: int) -> bytes:
    try:
        return answer.read1(most)
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise _Cut(f"the connection was cut ({error or type(error).__name__})") from error


def _extent(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where the answer begins in the file, and how large the whole file is; -1 where the server does not say."""
    length = answer.headers.get("Content-Length", "")
    if answer.status != 206:
        return 0, int(length) if length.isdigit() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    if found is None:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _mark(answer: http.client.HTTPResponse) -> str | None:
    """What tells versions of the file apart: its tag, where that is a strong one, or its date."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
