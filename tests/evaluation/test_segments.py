from __future__ import annotations

import numpy as np
import pandas as pd

from multidomain.evaluation import segments


def test_rows_go_by_how_often_they_were_met_in_training() -> None:
    code, names = segments.by_count([0, 1, 9, 10, 99, 100, 999, 1000, 5_000_000])
    assert [names[one] for one in code] == [
        "none", "1-9", "1-9", "10-99", "10-99", "100-999", "100-999", "1,000 and more", "1,000 and more",
    ]  # fmt: skip


def test_a_short_split_goes_by_day_and_a_long_one_by_a_longer_period() -> None:
    time = pd.Series(pd.to_datetime(["2003-02-27 23:59", "2003-02-28 00:00", "2003-02-27 01:00"]))
    what, code, names = segments.by_period(time)
    assert (what, code.tolist(), names) == ("day", [0, 1, 0], ["2003-02-27", "2003-02-28"])
    long = pd.Series(pd.date_range("2000-01-03", periods=400, freq="D"))
    what, code, names = segments.by_period(long)
    assert what == "week"
    assert names[:2] == ["2000-01-03", "2000-01-10"]
    assert (code == np.arange(400) // 7).all()
    assert segments.by_period(pd.Series(pd.date_range("1990-01-01", periods=1500, freq="D")))[0] == "month"
    assert segments.by_period(pd.Series(pd.date_range("1900-01-01", periods=1080, freq="MS")))[0] == "year"


def test_a_log_without_times_has_no_periods() -> None:
    assert segments.by_period(pd.Series(pd.to_datetime(["1970-01-01"] * 3))) is None


def test_a_session_ends_with_a_silence_or_another_user() -> None:
    time = pd.Series(pd.to_datetime(["2020-01-01 10:00", "2020-01-01 11:00", "2020-01-01 10:29", "2020-01-01 10:10"]))
    found = segments.sessions(np.array([0, 0, 0, 1]), time, 30)
    assert found[0] == found[2]
    assert len({found[0], found[1], found[3]}) == 3
    together = segments.sessions(np.array([0, 0, 0, 1]), time, 60)
    assert together[0] == together[1] == together[2]


def test_an_interval_of_no_width_that_misses_its_middle_by_a_rounding_is_drawn():
    from multidomain.evaluation import account_page

    parts = {"by": ["overall", "day"], "name": ["overall", "1"], "auc": [0.5, 0.7]}
    above = np.nextafter(0.7, 1)
    figure = account_page.segments(pd.DataFrame({**parts, "auc_low": [0.4, above], "auc_high": [0.6, above]}))
    assert len(figure.axes) == 1
