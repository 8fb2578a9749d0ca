"""A file that has one line per key: a line whose key was there before is set apart."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...io import embedded
from ...io.atomic import replacing
from . import archives
from .form import Form
from .lines import LINE, TEXT
from .parsed import Parsed

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


def once(parsed: Parsed, form: Form, key: str) -> Parsed:
    """The file with the first line of each ``key`` alone; the others are rejected, with the number of the first.

    Held in memory: the keys that are there more than once.
    """
    repeats = _repeats(parsed, key)
    if not len(repeats):
        return parsed
    log.warning("%s: %s lines repeat a %s and are set apart.", parsed.path.name, f"{len(repeats):,}", key)
    folder = parsed.folder.with_name(f"{parsed.folder.name}-once")
    with replacing(folder) as temporary:
        temporary.mkdir()
        _write(parsed, form, key, repeats, temporary)
    counts: dict[str, Any] = {"rows": parsed.rows - len(repeats), "rejected": parsed.rejected + len(repeats)}
    return dataclasses.replace(parsed, folder=folder, **counts)


def _repeats(parsed: Parsed, key: str) -> pa.Table:
    """``line``, ``value`` of the key and ``first``, the line that has it; in order."""
    table = parsed.table()
    firsts = table.group_by(value=table[key]).agg(first=table[LINE].min(), times=table.count())
    several = firsts.filter(firsts.times > 1)
    joined = table.join(several, table[key] == several.value)
    later = joined.filter(joined[LINE] > joined.first)
    return later.select(LINE, value=later.value.cast("string"), first=later.first).order_by(LINE).to_pyarrow()


def _write(parsed: Parsed, form: Form, key: str, repeats: pa.Table, folder: Path) -> None:
    import ibis
    import pyarrow as pa

    lines, values, firsts = (repeats[name].to_pylist() for name in (LINE, "value", "first"))
    reasons = [f"{key} '{value}' is on line {first} already" for value, first in zip(values, firsts, strict=True)]
    text = _text(parsed.path, form, set(lines))
    apart = pa.table({LINE: repeats[LINE], "reason": reasons, "text": [text[number] for number in lines]})
    table = parsed.table()
    kept = table.anti_join(ibis.memtable(repeats.select([LINE])), LINE).order_by(LINE)
    embedded().to_parquet(kept, str(folder / "00000.rows.parquet"), compression="zstd")
    others = parsed.rejects().select(LINE, "reason", "text")
    rejected = others.union(ibis.memtable(apart)).order_by(LINE)
    embedded().to_parquet(rejected, str(folder / "00000.rejected.parquet"), compression="zstd")


def _text(path: Path, form: Form, wanted: set[int]) -> dict[int, str]:
    """The lines of these numbers."""
    with archives.opened(path) as stream:
        return {
            number: line.rstrip(b"\r\n").decode(form.encoding, "backslashreplace")[:TEXT]
            for number, line in enumerate(stream, start=1)
            if number in wanted
        }
