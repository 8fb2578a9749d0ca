"""What the stores hold, taken apart."""

from __future__ import annotations

import pytest
from feast.protos.feast.types.Value_pb2 import DoubleList, Int64List, StringList, Value

from multidomain.features import rows

VALUES = [
    (Value(), None),
    (Value(string_val="Alien (1979)"), "Alien (1979)"),
    (Value(string_val=""), ""),
    (Value(int64_val=0), 0),
    (Value(int64_val=-(2**60)), -(2**60)),
    (Value(double_val=-0.0), 0.0),
    (Value(double_val=0.1), 0.1),
    (Value(string_list_val=StringList(val=["a", "", "a"])), ["a", "", "a"]),
    (Value(string_list_val=StringList()), []),
    (Value(int64_list_val=Int64List(val=[3, -1])), [3, -1]),
    (Value(double_list_val=DoubleList(val=[0.5])), [0.5]),
    (Value(string_list_val=StringList(val=[f"item {i}" for i in range(50)])), [f"item {i}" for i in range(50)]),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[str(expected)[:20] for _, expected in VALUES])
def test_a_stored_value_is_what_was_stored_the_second_time_too(value, expected):
    cell = value.SerializeToString()
    for _ in range(2):
        assert rows.held(cell) == expected
        assert type(rows.held(cell)) is type(expected)
    assert rows.plain(value) == expected


def test_short_values_are_taken_apart_once_and_long_ones_are_not_kept(monkeypatch):
    parsed = []
    parse = rows._parsed
    monkeypatch.setattr(rows, "_parsed", lambda cell: parsed.append(cell) or parse(cell))
    short = Value(string_val="seen for the first time in this test").SerializeToString()
    long = Value(string_val="x" * rows.SHORT).SerializeToString()
    for _ in range(3):
        rows.held(short)
        rows.held(long)
    assert parsed == [short, long, long, long]
