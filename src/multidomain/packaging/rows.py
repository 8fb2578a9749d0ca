"""The rows a packaged model takes, whatever scores them: columns, types, what is said of rows that do not fit.

Carried along by every package; nothing here needs PyTorch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ..calibration import Calibration
from ..encoder import Encoder

CHUNK = 16_384  # rows encoded at a time
MOST = 1000  # values that do not fit, counted for a message
SHOWN = 200  # characters of such a value
UNFIT = (pa.ArrowException, OverflowError, TypeError, ValueError)  # what Arrow raises of values it cannot take
_VALUES = {"string": pa.string(), "int": pa.int64(), "float": pa.float64()}


class RowScorer(ABC):
    """An encoder and something that scores what it encodes.

    Args:
        encoder: fitted on the training split of the variant the model was trained on.
        calibration: None: a probability is the logistic function of the logit.
    """

    def __init__(self, *, encoder: Encoder, calibration: Calibration | None) -> None:
        self.encoder, self.calibration, self.columns = encoder, calibration, columns(encoder)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The column ``score``, with the index of ``frame``; other columns than :attr:`columns` are passed over.

        Raises:
            ValueError: a column is missing or holds values of another type; the message names it.
        """
        return pd.DataFrame({"score": self.score(self.table(frame))}, index=frame.index)

    def table(self, frame: pd.DataFrame) -> pa.Table:
        """The columns the encoder reads, in the types it was fitted on."""
        return typed(frame, self.columns)

    def score(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """Probabilities (N,) of N rows, in their order."""
        return self._chunks(table, None)

    def score_candidates(self, candidates: pa.Table, shared: pa.Table) -> npt.NDArray[np.float64]:
        """Probabilities (N,) of N candidates of one request; what they share is encoded once.

        Args:
            candidates: N rows of the columns in which they differ.
            shared: one row of the others: the user's, say.
        """
        return self._chunks(candidates, shared)

    @abstractmethod
    def _score(self, part: pa.Table, shared: pa.Table | None) -> npt.NDArray[np.float64]:
        """Probabilities of at most ``CHUNK`` rows."""

    def _chunks(self, table: pa.Table, shared: pa.Table | None) -> npt.NDArray[np.float64]:
        scores = np.empty(len(table), dtype=np.float64)
        for start in range(0, len(table), CHUNK):
            scores[start : start + CHUNK] = self._score(table.slice(start, CHUNK), shared)
        return scores


def columns(encoder: Encoder) -> dict[str, pa.DataType]:
    """The columns a scorer with this encoder reads, and their types."""
    types: dict[str, pa.DataType] = {"domain": pa.string()}
    for field in encoder.fields:
        if field.kind in ("bucket", "value"):
            types[field.name] = pa.float64()
        elif field.kind == "bag":
            types[field.name] = pa.list_(_VALUES[field.value_type])
        else:
            types[field.name] = _VALUES[field.value_type]
    for name, vocabulary in encoder.history.items():
        known = encoder.hashed if vocabulary in encoder.hashed else encoder.vocabularies
        types[name] = pa.list_(known[vocabulary].type)
    return types


def typed(frame: pd.DataFrame, wanted: Mapping[str, pa.DataType]) -> pa.Table:
    """The columns that are wanted, in their types.

    Raises:
        ValueError: a column is missing, there twice, or holds values of another type; the message names it, how many
            values those are, and one of them.
    """
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise ValueError(f"The rows lack {_listed(missing)}. The model reads {_listed(wanted)}.")
    twice = [name for name in frame.columns[frame.columns.duplicated()].unique() if name in wanted]
    if twice:
        raise ValueError(f"The rows have {_listed(twice)} more than once. The model reads {_listed(wanted)}.")
    return pa.table({name: _column(frame[name], name, kind) for name, kind in wanted.items()})


def _column(series: pd.Series, name: str, kind: pa.DataType) -> pa.Array:
    try:
        return _made(series, kind)
    except UNFIT as error:
        how_many, first = misfits(lambda start, stop: _made(series.iloc[start:stop], kind), len(series))
        such = f"; {how_many} rows do not, such as {shown(series.iloc[first])}" if first is not None else ""
        raise ValueError(f"Column '{name}' must hold {kind}{such}: {str(error)[:SHOWN].rstrip('.')}.") from error


def _made(series: pd.Series, kind: pa.DataType) -> pa.Array:
    if pa.types.is_integer(kind.value_type if pa.types.is_list(kind) else kind):  # given the type, Arrow makes 1 of 1.5
        return pa.Array.from_pandas(series).cast(kind)
    try:
        return pa.Array.from_pandas(series, type=kind)
    except pa.ArrowException:
        return pa.Array.from_pandas(series).cast(kind)  # ids kept as numbers


def misfits(convert: Callable[[int, int], object], rows: int) -> tuple[str, int | None]:
    """``"3 of 40"`` and the first of those that cannot be converted on their own (None: each of them can).

    Args:
        convert: of rows from a number up to another; raises one of ``UNFIT``.
        rows: how many there are; they are looked through by halves, at most until ``MOST`` are found.
    """
    found = list(islice(_misfits(convert, 0, rows), MOST + 1))
    count = f"more than {MOST:,}" if len(found) > MOST else f"{len(found):,}"
    return f"{count} of {rows:,}", found[0] if found else None


def _misfits(convert: Callable[[int, int], object], start: int, stop: int) -> Iterator[int]:
    try:
        convert(start, stop)
    except UNFIT:
        if stop - start == 1:
            yield start
        elif stop > start:
            middle = (start + stop) // 2
            yield from _misfits(convert, start, middle)
            yield from _misfits(convert, middle, stop)


def shown(value: object) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + " …"


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
