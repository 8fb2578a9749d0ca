"""Prequential evaluation: what every row scored before it was learnt (Dawid 1984), by windows of the stream.

A. P. Dawid, *Statistical Theory: The Prequential Approach*, JRSS A 147 (1984); of streams: Gama, Sebastião, Rodrigues,
*On evaluating stream learning algorithms*, Machine Learning 90 (2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..evaluation.breakdown import Scored
from ..io.atomic import replacing

OVERALL, UNKNOWN = "(overall)", "(unknown)"
FOLDER = "prequential"


@dataclass
class Window:
    """The rows of the window that is open.

    Attributes:
        number: of the window, from 1.
        start: rows of the stream before it.
        label, score, domain: of its rows, in pieces: (n,) float32, float64 and int32.
    """

    number: int = 1
    start: int = 0
    label: list[np.ndarray] = field(default_factory=list)
    score: list[np.ndarray] = field(default_factory=list)
    domain: list[np.ndarray] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(len(piece) for piece in self.label)

    def state(self) -> dict[str, np.ndarray]:
        """Its rows, each column whole."""
        kinds = {"label": np.float32, "score": np.float64, "domain": np.int32}
        return {name: np.concatenate([np.zeros(0, kind), *getattr(self, name)]) for name, kind in kinds.items()}


class Prequential:
    """Windows of ``rows`` rows; a finished one is written as a small file of its own, and forgotten.

    Args:
        folder: gets ``prequential/00000012.parquet`` and so on; a window that is finished again, after a crash, takes
            the place of the same.
        domains: names by id; id M is the unknown domain.
        rows: of a window, at least: it ends with the rows that are scored together.
    """

    def __init__(self, folder: Path, domains: Sequence[str], rows: int) -> None:
        self.folder, self.domains, self.rows = folder / FOLDER, tuple(domains), rows
        self.window = Window()
        self.last: dict[str, float] = {}

    def saw(self, label: np.ndarray, score: np.ndarray, domain: np.ndarray) -> None:
        """Take in rows (n,) that were scored and not yet learnt; ``score`` are probabilities."""
        window = self.window
        window.label.append(label)
        window.score.append(score)
        window.domain.append(domain)
        if window.rows >= self.rows:
            self.finish()

    def finish(self) -> None:
        """End the open window, if it holds rows."""
        window = self.window
        if not window.rows:
            return
        table = self._table(window)
        with replacing(self.folder / f"{window.number:08d}.parquet") as temporary:
            pq.write_table(table, temporary)
        overall = table.slice(0, 1).to_pylist()[0]
        self.last = {name: overall[name] for name in ("auc", "pcoc", "logloss") if overall[name] is not None}
        self.window = Window(number=window.number + 1, start=window.start + window.rows)

    def restore(self, number: int, start: int, rows: Mapping[str, np.ndarray]) -> None:
        """Go on with an open window; those that were finished after it began are finished again."""
        self.window = Window(number, start, *([rows[name]] if rows else [] for name in ("label", "score", "domain")))
        for path in self.folder.glob("*.parquet"):
            if int(path.stem) >= number:
                path.unlink()

    def _table(self, window: Window) -> pa.Table:
        columns = window.state()
        label, score = columns["label"].astype(np.float64), columns["score"]
        code, names = columns["domain"].astype(np.int64), [*self.domains, UNKNOWN]
        scored = Scored(label, score, np.zeros(len(label), np.int64))
        groups = [
            (OVERALL, scored.by(np.zeros(len(label), np.int64), 1), 0),
            *((name, found, at) for found in [scored.by(code, len(names))] for at, name in enumerate(names)),
        ]
        lines = []
        for name, found, at in groups:
            rows, at_all = int(found["rows"][at]), np.ones(len(label), bool) if name == OVERALL else code == at
            if rows == 0:
                continue
            clicks = float(label[at_all].sum())
            lines.append(
                {
                    "window": window.number,
                    "first_row": window.start,
                    "domain": name,
                    "rows": rows,
                    "positives": int(clicks),
                    **{key: _defined(found[key][at]) for key in ("auc", "pcoc", "logloss")},
                }
            )
        return pa.Table.from_pylist(lines, SCHEMA)


SCHEMA = pa.schema(
    [
        ("window", pa.int64()),
        ("first_row", pa.int64()),
        ("domain", pa.string()),
        ("rows", pa.int64()),
        ("positives", pa.int64()),
        *((name, pa.float64()) for name in ("auc", "pcoc", "logloss")),
    ]
)


def windows(folder: Path) -> pa.Table:
    """All finished windows of a stream, in order: window, first_row, domain, rows, positives, auc, pcoc, logloss.

    ``domain`` is ``(overall)`` for all rows and ``(unknown)`` for those of no known domain. What is undefined, such as
    an AUC of rows of one class, is null.
    """
    return pa.concat_tables([SCHEMA.empty_table(), *_files(folder / FOLDER)])


def _files(folder: Path) -> Iterator[pa.Table]:
    for path in sorted(folder.glob("*.parquet")):
        yield pq.read_table(path)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
