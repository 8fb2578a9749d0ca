"""Ids that come and ids that go, while a model is trained.

A value that came ``minimum_count`` times enters its vocabulary, in the row of one that ``forget_after`` rows did not
hold, where there is one; it starts from the row of "unknown", its optimizer's moments from zero
(:mod:`multidomain.training.growth`). Rows that wait in the buffer keep the ids they came with: a value that was unknown
then stays so for them, one that has left since is unknown to them too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..encoder import FIRST, Encoder
from ..features.views import MISSING
from ..inputs import PADDING, UNKNOWN, InputSchema
from ..training.growth import Growth
from .options import VocabularyOptions


@dataclass
class Candidates:
    """Values that are not known (yet).

    Attributes:
        counts: value -> how often it came, and the row of the stream that held it last.
    """

    counts: dict[Any, tuple[int, int]] = field(default_factory=dict)

    def saw(self, values: pa.Array, now: int) -> None:
        """Count values that came with the rows up to ``now``."""
        for one in pc.value_counts(values).to_pylist():
            count, _ = self.counts.get(one["values"], (0, 0))
            self.counts[one["values"]] = (count + one["counts"], now)

    def enter(self, minimum: int, oldest: int) -> list[Any]:
        """Take out the values that came often enough, most frequent first; forget those not held since ``oldest``."""
        found = [value for value, (count, _) in self.counts.items() if count >= minimum]
        found.sort(key=lambda value: (-self.counts[value][0], value))
        self.counts = {
            value: (count, last) for value, (count, last) in self.counts.items() if count < minimum and last > oldest
        }
        return found


class Vocabularies:
    """Follows which ids the rows of a stream hold.

    Args:
        encoder: of the rows.
        options: when ids come and go.

    Attributes:
        encoder: of now.
        seen: vocabulary -> (V,) int64, the row of the stream that held each id last.
        candidates: vocabulary -> the values that are not in it.
        entered, left: how many values have come and gone since the start.
    """

    def __init__(self, encoder: Encoder, options: VocabularyOptions) -> None:
        self.encoder, self.options = encoder, options
        names = [name for name in encoder.vocabularies if options.every is not None]
        self.seen = {name: np.zeros(FIRST + len(encoder.vocabularies[name]), np.int64) for name in names}
        self.candidates = {name: Candidates() for name in names}
        self.entered = self.left = 0

    def saw(self, table: pa.Table, arrays: Mapping[str, np.ndarray], now: int) -> None:
        """Look at rows that have come.

        Args:
            table: N rows.
            arrays: the same, encoded.
            now: rows of the stream, these included.
        """
        if not self.seen:
            return
        inputs = self.encoder.inputs
        listened = set()
        for place, name in enumerate(inputs.categorical):
            if name in self.seen:
                self._look(name, table.column(name), arrays["categorical"][:, place], now)
                listened.add(name)
        for name, vocabulary in inputs.bags.items():
            if vocabulary in self.seen:
                self._look(vocabulary, table.column(name), arrays[f"bag_{name}"], now)
                listened.add(vocabulary)
        for name, vocabulary in inputs.history.items():
            if vocabulary not in self.seen:
                continue
            ids = arrays[f"history_{name}"]
            self.seen[vocabulary][np.unique(ids)] = now
            if vocabulary not in listened:  # its candidate field is no input
                self._look(vocabulary, table.column(name), ids, now)

    def due(self, before: int, now: int) -> bool:
        """Whether the vocabularies change between two counts of rows."""
        every = self.options.every
        return bool(self.seen) and every is not None and before // every != now // every

    def change(self, now: int) -> Growth | None:
        """Let values in and out; from the ids of then to those of now, or None where nothing changed."""
        options, old = self.options, self.encoder
        oldest = -1 if options.forget_after is None else now - options.forget_after
        changed: dict[str, pa.Array] = {}
        for name, seen in self.seen.items():
            values = old.vocabularies[name]
            new = self.candidates[name].enter(options.minimum_count, oldest)
            stale = np.flatnonzero(seen[FIRST:] < oldest) if oldest > 0 else np.zeros(0, np.int64)
            if new or len(stale):
                changed[name], self.seen[name] = _replaced(values, seen, new, stale, now)
                self.entered, self.left = self.entered + len(new), self.left + len(stale)
        if not changed:
            return None
        self.encoder = dataclasses.replace(old, vocabularies={**old.vocabularies, **changed})
        return Growth.between(old, self.encoder)

    def _look(self, name: str, column: pa.ChunkedArray, ids: np.ndarray, now: int) -> None:
        self.seen[name][np.unique(ids)] = now
        if not (ids == UNKNOWN).any():
            return
        column, known = column.combine_chunks(), self.encoder.vocabularies[name]
        if pa.types.is_list(column.type):
            values = pc.list_flatten(column).cast(known.type)
            values = values.filter(pc.invert(pc.is_in(values, known)))
        else:
            values = column.filter(pa.array(ids == UNKNOWN)).cast(known.type)
        values = values.drop_null()
        kind = "int" if pa.types.is_integer(values.type) else "float" if pa.types.is_floating(values.type) else "string"
        new = pc.not_equal(values, pa.scalar(MISSING[kind], values.type))
        self.candidates[name].saw(values.filter(new), now)


def _replaced(
    values: pa.Array, seen: np.ndarray, new: list[Any], stale: np.ndarray, now: int
) -> tuple[pa.Array, np.ndarray]:
    """New values in the places of stale ones, then behind; stale places that are left over close up."""
    known, last = values.to_pylist(), seen[FIRST:].copy()
    reused = min(len(new), len(stale))
    for place, value in zip(stale[:reused].tolist(), new[:reused], strict=True):
        known[place], last[place] = value, now
    keep = np.ones(len(known), bool)
    keep[stale[reused:]] = False
    known = [value for value, kept in zip(known, keep, strict=True) if kept] + new[reused:]
    last = np.concatenate([seen[:FIRST], last[keep], np.full(len(new) - reused, now, np.int64)])
    return pa.array(known, values.type), last


def places(growth: Growth, name: str) -> np.ndarray:
    """The new id of each old one of a vocabulary; "unknown" for those that left: (V_old,) int32."""
    found = np.full(growth.old.vocabularies[name], UNKNOWN, np.int32)
    found[PADDING] = PADDING
    known = growth.known[name].numpy()
    found[growth.ids[name].numpy()[known]] = np.flatnonzero(known)
    return found


def translations(growth: Growth, inputs: InputSchema) -> dict[str, list[np.ndarray | None]]:
    """Array of encoded rows -> the new id of each old one, by column; one for all columns of a bag or a history."""
    changed = {name: places(growth, name) for name in inputs.vocabularies}
    by_array: dict[str, list[np.ndarray | None]] = {"categorical": [changed.get(name) for name in inputs.categorical]}
    by_array |= {f"bag_{name}": [changed.get(of)] for name, of in inputs.bags.items()}
    return by_array | {f"history_{name}": [changed.get(of)] for name, of in inputs.history.items()}


def translated(ids: np.ndarray, by_column: list[np.ndarray | None]) -> np.ndarray:
    """Ids (N, columns) in the words of the new vocabularies."""
    if len(by_column) == 1 and ids.ndim == 2 and by_column[0] is not None:
        found: np.ndarray = by_column[0][ids]
        return found
    made = ids.copy()
    for column, new in enumerate(by_column):
        if new is not None:
            made[:, column] = new[ids[:, column]]
    return made
