"""Outputs in an object store: a copy of every file and folder that a run has made, for other machines to take.

The copy of ``<data>/04_feature/…/training_frame.parquet`` is ``<store>/04_feature/…/training_frame.parquet``, the files
of a folder being objects below its name. ``.<name>.json`` beside it, the mark, says what the output was made of
(:mod:`multidomain.digests`), and the names and sizes of its files. It goes before anything is written and comes when
all of it is there, and who takes an output reads it before and after: nobody takes half of one, or halves of two.

Work is done on the data folder throughout: tensors are mapped into memory, and Spark's workers share it, as files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ConfigurationError, DataError, UserError
from ..progress import progress
from . import remote
from .atomic import replacing

logger = logging.getLogger(__name__)
LARGE = 32 << 20  # bytes from which on a copy shows how far it is


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What lies beside an output in the store.

    Attributes:
        digest: of what it was made of.
        files: name -> bytes; a file's own name is empty.
    """

    digest: str
    files: Mapping[str, int]


class _Changed(Exception):
    """The output in the store is being written, or another than when it was asked for."""


class OutputStore:
    """The outputs of one data folder, in a store.

    Args:
        address: ``s3://bucket/prefix``.
        data: the data folder.

    Raises:
        ConfigurationError: an address that is none of a store, or its driver is missing.
        DataError: the store is not reached.
    """

    def __init__(self, *, address: str, data: Path) -> None:
        if not remote.is_address(address):
            raise ConfigurationError(
                f"output_store is {address!r}: expected the address of an object store, s3://bucket/prefix, or null."
            )
        scheme, bucket, _ = remote.parsed(address)
        if not bucket:
            raise ConfigurationError(f"output_store is {address!r}: expected {scheme}://bucket/prefix.")
        self.address, self.data = address.rstrip("/"), data
        with self._asking("opened"):
            self._fs, self._top = remote.opened(self.address, meant="output_store")

    def covers(self, path: Path) -> bool:
        """Whether it has a place for this output: one below the data folder."""
        return path.is_relative_to(self.data)

    def mark(self, path: Path) -> Mark | None:
        """What is there of an output; None where nothing whole is."""
        with self._asking("read"):
            return self._mark(path)

    def put(self, path: Path, digest: str) -> None:
        """Copy an output into the store, in the place of what is there.

        Args:
            path: a file or a folder.
            digest: of what it was made of.

        Raises:
            DataError: the store is not reached or refuses. The output stays here, whole; there is the
                one before, or none.
        """
        files = {name: (path / name).stat().st_size for name in _names(path)}
        there = self._there(path)
        with self._asking("written"):
            self._remove(self._mark_of(path))
            self._remove(there)
            self._each(f"put {path.name}", files, lambda name: self._fs.put_file(str(path / name), _below(there, name)))
            mark = Mark(digest=digest, files=files)
            self._fs.pipe_file(self._mark_of(path), json.dumps(asdict(mark)).encode())

    def bring(self, path: Path, digest: str) -> bool:
        """Copy an output from the store, if that has one of this digest; whether it had.

        Raises:
            DataError: the store is not reached, refuses, or holds more than there is room for.
        """
        with self._asking("read"):
            mark = self._mark(path)
            if mark is None or mark.digest != digest:
                return False
            self._require_room(path, mark)
            try:
                with replacing(path) as temporary:
                    self._fetch(path, mark, temporary)
            except (_Changed, FileNotFoundError):
                logger.info("%s is being written by another run: it is not taken from there.", self._name(path))
                return False
        return True

    def count(self, folder: Path) -> int:
        """How many objects lie below a folder's place."""
        with self._asking("read"), contextlib.suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            return len(self._fs.find(self._there(folder)))
        return 0

    def forget(self, folder: Path) -> None:
        """Delete all that lies below a folder's place."""
        with self._asking("written"):
            self._remove(self._there(folder))

    # --- objects -------------------------------------------------------------------------------------------------

    def _name(self, path: Path) -> str:
        return f"{self.address}/{path.relative_to(self.data).as_posix()}"

    def _there(self, path: Path) -> str:
        return f"{self._top}/{path.relative_to(self.data).as_posix()}"

    def _mark_of(self, path: Path) -> str:
        return self._there(path.with_name(f".{path.name}.json"))

    def _mark(self, path: Path) -> Mark | None:
        self._fs.invalidate_cache()
        try:
            return Mark(**json.loads(self._fs.cat_file(self._mark_of(path))))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            logger.warning("%s: its mark cannot be read, so it does not count.", self._name(path))
            return None

    def _remove(self, there: str) -> None:
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(there, recursive=True)

    def _fetch(self, path: Path, mark: Mark, temporary: Path) -> None:
        there = self._there(path)
        if list(mark.files) != [""]:
            temporary.mkdir()
        for name in mark.files:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        self._each(
            f"take {path.name}",
            mark.files,
            lambda name: self._fs.get_file(_below(there, name), str(temporary / name)),
        )
        if {name: (temporary / name).stat().st_size for name in mark.files} != dict(mark.files):
            raise _Changed
        if self._mark(path) != mark:
            raise _Changed

    def _each(self, what: str, files: Mapping[str, int], copy: Callable[[str], None]) -> None:
        """Several at a time; the first that fails ends it."""
        stop, total = threading.Event(), sum(files.values())
        with (
            progress(total=total, what=what, unit="B", shown=total > LARGE) as bar,
            ThreadPoolExecutor(remote.AT_ONCE, thread_name_prefix="copy") as pool,
        ):

            def one(name: str) -> int:
                if not stop.is_set():
                    copy(name)
                return files[name]

            try:
                for size in pool.map(one, files):
                    bar.update(size)
            finally:
                stop.set()

    def _require_room(self, path: Path, mark: Mark) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        total, free = sum(mark.files.values()), shutil.disk_usage(path.parent).free
        if total > free:
            raise DataError(
                f"{self._name(path)} has {total:,} bytes, and {path.parent} has {free:,} free. Free some space, or "
                "point $MULTIDOMAIN_DATA at a larger disk."
            )

    @contextlib.contextmanager
    def _asking(self, done: str) -> Iterator[None]:
        """Turn whatever a driver raises into one message; each has errors of its own."""
        try:
            yield
        except (UserError, _Changed):
            raise
        except Exception as error:
            scheme = remote.scheme_of(self.address)
            if refused := remote.refused(error, scheme):
                raise DataError(f"{self.address} (output_store) may not be {done}: {refused}") from error
            raise DataError(
                f"{self.address} (output_store) could not be {done} ({type(error).__name__}: "
                f"{remote.first_line(error)}). What this run has made lies whole in {self.data}. Run the same command "
                "again, with --only-missing-outputs, when the store can be reached: what it lacks is put there then."
            ) from error


def _names(path: Path) -> list[str]:
    """Of the files of a folder, below it; of a file, one empty name."""
    if not path.is_dir():
        return [""]
    return sorted(one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file())


def _below(there: str, name: str) -> str:
    return f"{there}/{name}" if name else there
