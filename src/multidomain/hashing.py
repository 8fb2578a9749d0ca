"""Values of an endless vocabulary as one of a fixed number of buckets, the same wherever and whenever it is asked.

SipHash-2-4 of a text's UTF-8, a 64-bit mix of a whole number, both of :func:`pandas.util.hash_array` with its own key,
modulo the number of buckets: whatever machine, process or order. Packaged models carry this module along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Hashed:
    """A vocabulary without a list of values.

    n different values share ``buckets`` b: of them the share ``1 - b/n · (1 - (1 - 1/b)^n)`` is expected to find its
    bucket taken (:func:`expected_collisions`); values in one bucket are one to the model.

    Attributes:
        buckets: b.
        value_type: of the values.
        missing: what stands for a null in a list; unknown, as null is.
    """

    buckets: int
    value_type: Literal["string", "int"]
    missing: str | int | None = None

    @property
    def type(self) -> pa.DataType:
        """Of a column of values."""
        return pa.string() if self.value_type == "string" else pa.int64()

    def places(self, column: pa.ChunkedArray | pa.Array) -> Array:
        """Buckets (N,) int32 of 0 … b-1 of N values of :attr:`type`; -1 for null."""
        from pandas.util import hash_array

        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if len(column) == 0:
            return np.zeros(0, np.int32)
        distinct = column.dictionary_encode()
        values = distinct.dictionary.to_numpy(zero_copy_only=False)
        hashes = hash_array(values.astype(object if self.value_type == "string" else np.int64), categorize=False)
        places = (hashes % np.uint64(self.buckets)).astype(np.int32)
        if self.missing is not None:
            places[values == self.missing] = -1
        indices = distinct.indices.fill_null(len(places)) if distinct.null_count else distinct.indices
        found: Array = np.append(places, np.int32(-1))[indices.to_numpy()]
        return found


def expected_collisions(values: int, buckets: int) -> float:
    """The share of n different values that is expected to find its bucket taken: 1 - b/n · (1 - (1 - 1/b)^n)."""
    if values == 0:
        return 0.0
    return 1 + buckets / values * float(np.expm1(values * np.log1p(-1 / buckets))) if buckets > 1 else 1 - 1 / values
