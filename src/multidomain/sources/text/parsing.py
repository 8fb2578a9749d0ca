"""A file as Parquet, a slice of lines at a time, every line kept or set apart with its reason.

A file is cut into slices of whole lines. Each becomes one Parquet file of typed rows and one of rejected lines, written
whole or not at all, so that a run that was stopped goes on after the last slice and ends with the same files. Memory is
bounded by the slice.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ...errors import DataError, unknown_key
from ...io.atomic import remove, replacing
from ...parallel import in_order
from ...progress import progress
from . import archives, lines
from .form import Form
from .lines import LINE
from .once import once
from .parsed import Parsed

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)
SLICE = 32 << 20  # bytes of text parsed at a time
LINE_LIMIT = 64 << 20  # bytes a line may have


def parse(path: Path, form: Form, work: Path) -> Parsed:
    """Read one file into ``work``; slices that an earlier run finished are not read again.

    Of a form with a key, the first line of each key is a row, the others are rejected.

    Raises:
        DataError: the file cannot be read, its header lacks a column, or none of its lines is a row.
    """
    folder = work / f"{path.name}-{_identity(path, form)}"
    for old in set(work.glob(f"{path.name}-*")) - {folder}:
        remove(old)  # of another version of the file, or of the code
    folder.mkdir(parents=True, exist_ok=True)
    try:
        parts = _parse(path, form, folder)
    except archives.BROKEN as error:
        raise DataError(f"{path} cannot be read (rule: readable): {error}. Is the archive whole?") from error
    counts = {name: sum(part[name] for part in parts) for name in ("lines", "rows", "rejected")}
    parsed = Parsed(path=path, folder=folder, **counts)
    if parsed.rows == 0:
        raise DataError(f"{path} has no rows (rule: not_empty): {_first_reason(parsed)}")
    if parsed.rejected:
        logger.warning("%s: %s of %s lines are set apart.", path.name, f"{parsed.rejected:,}", f"{parsed.lines:,}")
    return parsed if form.key is None else once(parsed, form, form.key)


def _identity(path: Path, form: Form) -> str:
    """Of the file, its form and the code: others would leave other slices."""
    status = archives.outermost(path).stat()
    modules = [inspect.getmodule(part) for part in (parse, lines.read, form.refine) if part is not None]
    code = [inspect.getsource(module) for module in modules if module is not None]
    content = [str(path), status.st_size, status.st_mtime_ns, SLICE, repr(form), code]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _first_reason(parsed: Parsed) -> str:
    if not parsed.rejected:
        return "it is empty."
    first = parsed.rejects().order_by(LINE).limit(1).to_pyarrow().to_pylist()[0]
    return f"line {first[LINE]} {first['reason']}."


def _parse(path: Path, form: Form, folder: Path) -> list[dict[str, int]]:
    """Every slice, read before or now: its lines, rows and rejected lines, and where it ends."""
    parts = _finished(folder)
    size = archives.size(path)
    with archives.opened(path) as stream, progress(total=size, what=f"read {path.name}", unit="B") as bar:
        names, start = _columns(path, stream, form)
        end = parts[-1]["end"] if parts else start
        archives.skip(stream, end - start)
        first, rows = 1 + form.header + sum(part["lines"] for part in parts), sum(part["rows"] for part in parts)
        bar.update(end)
        read = functools.partial(_read, form, names)
        for found, size in in_order(read, _numbered(_slices(stream, path), first)):
            end += size
            parts.append(_write(found, folder, len(parts), end))
            rows += parts[-1]["rows"]
            bar.set_postfix_str(f"{rows:,} rows", refresh=False)
            bar.update(size)
    return parts


Read = tuple["pa.Table", "pa.Table", int]


def _read(form: Form, names: Sequence[str], numbered: tuple[bytes, int]) -> tuple[Read, int]:
    """A slice as :func:`lines.read` gives it, and its bytes."""
    data, first = numbered
    return lines.read(data, form, names=names, first=first), len(data)


def _numbered(slices: Iterator[bytes], first: int) -> Iterator[tuple[bytes, int]]:
    """Every slice with the number of its first line."""
    for data in slices:
        yield data, first
        first += data.count(b"\n")  # only the last slice may end without one


def _finished(folder: Path) -> list[dict[str, int]]:
    """The slices of an earlier run, without a gap."""
    found: list[dict[str, int]] = []
    while (path := folder / f"{len(found):05d}.json").is_file():
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _write(read: Read, folder: Path, number: int, end: int) -> dict[str, int]:
    """The rows, the rejected lines and, last, the counts that say the slice is whole."""
    import pyarrow.parquet as pq

    rows, rejected, count = read
    assert len(rows) + len(rejected) == count, (folder, number)
    for table, kind in ((rows, "rows"), (rejected, "rejected")):
        with replacing(folder / f"{number:05d}.{kind}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd", compression_level=1)
    part = {"lines": count, "rows": len(rows), "rejected": len(rejected), "end": end}
    with replacing(folder / f"{number:05d}.json") as temporary:
        temporary.write_text(json.dumps(part), encoding="utf-8")
    return part


def _slices(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    """``SLICE`` bytes at a time, and on to the end of the line: where one ends does not depend on where a run began."""
    while block := stream.read(SLICE):
        end = stream.readline(LINE_LIMIT) if not block.endswith(b"\n") else b""
        if len(end) == LINE_LIMIT:
            raise DataError(f"{path} holds a line of more than {LINE_LIMIT >> 20} MiB: this is no delimited text.")
        yield block + end


def _columns(path: Path, stream: BinaryIO, form: Form) -> tuple[list[str], int]:
    """The names of the columns in the order of the file, and how many bytes the header took."""
    if not form.header:
        return list(form.columns), 0
    line = stream.readline(LINE_LIMIT)
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    names = [name.strip().strip('"') for name in text.split(form.delimiter)]
    wrong = [unknown_key(name, names) for name in form.columns if name not in names]
    wrong += [f"'{name}' is named twice." for name in form.columns if names.count(name) > 1]
    if wrong:
        raise DataError(
            f"{path}: line 1 names the columns, divided by {form.delimiter!r}, and these among them (rule: exists): "
            f"{', '.join(form.columns)}.\n" + "\n".join(f"  {line}" for line in wrong)
        )
    return names, len(line)
