"""Counts over the last days: what enters at midnight leaves again when its window is over."""

from __future__ import annotations

from datetime import datetime, timedelta

import ibis
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.features.windows import changes
from multidomain.io import connection

FIRST = datetime(2024, 2, 27)  # a leap year's February
Days = dict[int, tuple[int, int]]  # day -> impressions, positives


def made(logs: dict[str, Days], days: list[int]) -> pd.DataFrame:
    rows = [(key, FIRST + timedelta(days=day), *counts) for key, log in logs.items() for day, counts in log.items()]
    daily = ibis.memtable(pd.DataFrame(rows, columns=["key", "day", "count", "positives"]))
    table = changes(daily, keys=["key"], days=days)
    return connection().execute(table).sort_values(["key", "at"])


def test_a_days_impressions_enter_at_midnight_and_leave_when_the_window_is_over() -> None:
    table = made({"a": {0: (5, 2), 2: (1, 1)}}, [1, 3])
    names = ["count_1", "positives_1", "count_3", "positives_3"]
    found = {
        (at - FIRST).days: tuple(map(int, row)) for at, row in zip(table["at"], table[names].to_numpy(), strict=True)
    }
    assert found == {1: (5, 2, 5, 2), 2: (0, 0, 5, 2), 3: (1, 1, 6, 3), 4: (0, 0, 1, 1), 6: (0, 0, 0, 0)}


counts = st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda drawn: (drawn[0], min(drawn)))
logs = st.dictionaries(st.integers(0, 40), counts, min_size=1, max_size=12)


@settings(max_examples=20, deadline=None)
@given(logs=st.dictionaries(st.sampled_from("abc"), logs, min_size=1), days=st.sets(st.integers(1, 30), min_size=1))
def test_the_latest_row_before_any_moment_holds_the_days_before_it(logs: dict[str, Days], days: set[int]) -> None:
    table = made(logs, sorted(days))
    for key, log in logs.items():
        rows = table[table["key"] == key].set_index("at")
        for today in range(min(log) + 1, 75):
            latest = rows[rows.index <= FIRST + timedelta(days=today)].iloc[-1]
            for n in days:
                recent = [counts for day, counts in log.items() if today - n <= day < today]
                expected = (sum(count for count, _ in recent), sum(positives for _, positives in recent))
                assert (latest[f"count_{n}"], latest[f"positives_{n}"]) == expected


def test_there_are_no_more_rows_than_days_on_which_something_changes() -> None:
    assert len(made({"a": {0: (1, 0)}, "b": dict.fromkeys(range(10), (1, 1))}, [1, 7])) == 3 + (10 + 1 + 6)
