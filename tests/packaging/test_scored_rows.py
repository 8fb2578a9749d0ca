"""Rows for a packaged model: what is taken as it is, and how a value that cannot be is told."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multidomain.packaging.rows import MOST, typed

WHOLE, WORDS, NUMBERS = pa.int64(), pa.string(), pa.list_(pa.int64())


def told(values, kind: pa.DataType) -> str:
    with pytest.raises(ValueError, match="Column 'c'") as raised:
        typed(pd.DataFrame({"c": values}), {"c": kind})
    return str(raised.value)


@pytest.mark.parametrize(
    ("values", "kind", "shown"),
    [
        ([1, 2**70], WHOLE, str(2**70)),
        ([1.0, 2**2000], pa.float64(), str(2**2000)[:60]),
        (["a", "b\ud800"], WORDS, r"'b\ud800'"),
        (["a", b"\xff"], WORDS, r"b'\xff'"),
        ([[1], [2**70]], NUMBERS, str([2**70])),
        ([[1.0, 2.0], [1.5]], NUMBERS, "[1.5]"),
        ([["a"], ["\ud800"]], pa.list_(WORDS), r"['\ud800']"),
        ([[1], 7], NUMBERS, "7"),
        ([1, [1, 2]], WHOLE, "[1, 2]"),
        ([1.0, 1.5], WHOLE, "1.5"),
        ([1, pa.array([1, 2])], WHOLE, "Int64Array"),
        ([None, np.zeros((2, 2))], pa.list_(pa.float64()), "array([[0., 0.]"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_column_and_how_many_there_are(values, kind, shown):
    said = told(pd.Series(values, dtype=object), kind)
    assert said.startswith(f"Column 'c' must hold {kind}; 1 of 2 rows do not, such as ")
    assert shown in said


def test_a_column_of_another_kind_altogether_is_told():
    assert told(pd.period_range("2020", periods=2, freq="D"), WORDS).startswith("Column 'c' must hold string; 2 of 2")
    assert f"more than {MOST:,} of {3 * MOST:,} rows do not" in told(["x"] * 3 * MOST, WHOLE)


def test_a_long_value_is_cut():
    assert len(told([list(range(10_000))], WHOLE)) < 1000


@given(st.lists(st.one_of(st.integers(-5, 5), st.just("x")), min_size=1, max_size=40))
def test_rows_that_do_not_fit_are_counted(values):
    wrong = values.count("x")
    if not wrong:
        assert typed(pd.DataFrame({"c": values}), {"c": WHOLE})["c"].to_pylist() == values
        return
    assert re.search(rf"; {wrong} of {len(values)} rows do not, such as 'x'", told(values, WHOLE))


def test_whole_numbers_kept_as_floats_ids_kept_as_numbers_and_missing_lists_are_taken():
    frame = pd.DataFrame({"n": [1.0, np.nan], "w": [7, 8], "l": [None, [1.0, 2.0]], "e": [[], [None]]})
    found = typed(frame, {"n": WHOLE, "w": WORDS, "l": NUMBERS, "e": NUMBERS})
    assert found.to_pydict() == {"n": [1, None], "w": ["7", "8"], "l": [None, [1, 2]], "e": [[], [None]]}


def test_a_column_that_is_there_twice_is_named():
    twice = pd.DataFrame([[1, 2, 3]], columns=["a", "c", "c"])
    with pytest.raises(ValueError, match=r"The rows have 'c' more than once\. The model reads 'c'"):
        typed(twice, {"c": WHOLE})
    assert typed(twice, {"a": WHOLE})["a"].to_pylist() == [1]
