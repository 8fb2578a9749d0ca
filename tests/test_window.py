"""Which days of a log a run reads and learns, and that a day's run is the same whenever it takes place."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import daily_log
import ibis
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from prepared import catalog

from multidomain import schema
from multidomain.errors import ConfigurationError, DataError, SchemaError
from multidomain.io import connection
from multidomain.pipelines import encode, features, ingest, partition, validate
from multidomain.tensors import EncodedSplit, fingerprint
from multidomain.window import Window

DAYS = 5
TABLES = ("ingested_impressions", "ingested_users", "valid_items", "partitioned", "domain_table", "training_frame")


def window(until: int, **others: int) -> dict[str, object]:
    return {"until": daily_log.day(until).isoformat(), **others}


def run(folder: Path, window: dict[str, object], *days: int, stages=(ingest, validate, partition, features, encode)):
    """A daily log of these files, taken through the stages."""
    daily_log.arrive(folder / "raw", *days)
    read = schema.parse(daily_log.schema(folder))
    data: DataCatalog = catalog(read, folder / "raw", folder / "made")
    data["params:window"] = MemoryDataset(window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(folder / "data"))
        for stage in stages:
            SequentialRunner().run(stage.create_pipeline(), data)
    return data


def table(data: DataCatalog, name: str) -> pd.DataFrame:
    found = data.load(name)
    return found.to_pandas() if hasattr(found, "to_pandas") else found


@settings(deadline=None, max_examples=50)
@given(
    until=st.dates(dt.date(2000, 1, 10), dt.date(2030, 1, 1)),
    days=st.integers(1, 40),
    lookback=st.none() | st.integers(0, 40),
    seconds=st.lists(st.integers(-90 * 86_400, 3 * 86_400), min_size=1, max_size=20),
)
def test_rows_are_known_and_learnt_by_their_day(until, days, lookback, seconds):
    midnight = dt.datetime.combine(until, dt.time())
    times = [midnight + dt.timedelta(seconds=s) for s in seconds]
    chosen = Window.read({"until": until, "days": days, "lookback": lookback})
    rows = ibis.memtable(pd.DataFrame({"timestamp": pd.to_datetime(times).astype("datetime64[us]")}))
    known = chosen.known(rows, "timestamp")
    parts = [
        connection().to_pyarrow(part).column(0).to_pylist() for part in (chosen.examples(known), chosen.earlier(known))
    ]
    age = {time: (until - time.date()).days for time in times}
    assert sorted(parts[0]) == sorted(time for time in times if 0 <= age[time] < days)
    far = 10**6 if lookback is None else lookback
    assert sorted(parts[1]) == sorted(time for time in times if days <= age[time] < days + far)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"untill": None}, "untill"),
        ({"until": "yesterday"}, "a day such as 2000-11-22, got 'yesterday'"),
        ({"until": "2026-03-01T10:00:00"}, "a day such as"),
        ({"until": "2026-03-01", "days": 0}, "window.days must be a whole number of days from 1 up"),
        ({"until": "2026-03-01", "days": True}, "window.days"),
        ({"until": "2026-03-01", "days": 1, "lookback": -1}, "window.lookback must be a whole number of days from 0"),
        ({"days": 1}, "window.until is not set"),
        ({"until": "2026-03-01", "lookback": 3}, "window.days is not set"),
    ],
)
def test_a_window_that_cannot_be_is_refused(given, said):
    with pytest.raises(ConfigurationError, match=said):
        Window.read(given)


def test_without_a_window_every_row_is_read_and_learnt():
    rows = ibis.memtable({"timestamp": [dt.datetime(1990, 1, 1), dt.datetime(2090, 1, 1)]})
    for nothing in (None, {}, {"until": None, "days": None, "lookback": None}):
        chosen = Window.read(nothing)
        assert chosen == Window()
        assert connection().execute(chosen.examples(chosen.known(rows, "timestamp")).count()) == 2


def test_one_day_is_learnt_and_earlier_ones_are_known(tmp_path):
    data = run(tmp_path, window(3, days=1, lookback=2), *range(DAYS))
    frame = table(data, "training_frame")
    day = frame.timestamp.dt.tz_localize(None).dt.date
    assert set(day) == {daily_log.day(number) for number in (1, 2, 3)}
    assert set(frame.split[day < daily_log.day(3)]) == {"train"}
    assert frame.split[day == daily_log.day(3)].value_counts().to_dict() == {"train": 320, "validation": 40, "test": 40}
    encoded = data.load("encoded")
    learnt = [len(EncodedSplit(encoded, split)) for split in ("train", "validation", "test")]
    assert learnt == [320, 40, 40]
    vocabulary = pd.read_parquet(data.load("encoder") / "vocabularies" / "user_id.parquet")["value"]
    known = frame.user[frame.split == "train"]
    assert set(vocabulary) == set(known)  # of the earlier days, too
    assert set(vocabulary) > set(known[day == daily_log.day(3)])
    report = data.load("ingest_report")["window"]
    assert report == {"from": "2026-03-02", "until": "2026-03-04", "rows": 1200, "rows_of_last_day": 400}


def test_a_day_is_prepared_alike_when_later_days_have_come(tmp_path):
    chosen = window(2, days=1)
    then, later = (run(tmp_path / name, chosen, *range(days)) for name, days in (("then", 3), ("later", DAYS)))
    for name in TABLES:
        pd.testing.assert_frame_equal(table(then, name), table(later, name))
    assert fingerprint(then.load("encoded")) == fingerprint(later.load("encoded"))
    users = [
        table(run(tmp_path / "all", {}, *range(DAYS), stages=[ingest]), "ingested_users"),
        table(then, "ingested_users"),
    ]
    both = users[0].merge(users[1], on="user_id")
    assert (both.gender_x != both.gender_y).any()  # the days to come would have changed what is known of the users


def test_a_day_that_has_not_come_ends_the_run(tmp_path):
    with pytest.raises(DataError, match=r"no row of 2026-03-04 .* among 1,200 .* not arrived yet"):
        run(tmp_path, window(3, days=1), 0, 1, 2, stages=[ingest])


def test_a_log_without_times_has_no_days(tmp_path):
    daily_log.arrive(tmp_path / "raw", 0)
    text = daily_log.DAILY.replace("timestamp: time, ", "").replace("splits: {time: {}}", "splits: {random: {}}")
    text = text.split("history:")[0]
    (tmp_path / "daily.yml").write_text(text)
    data = catalog(schema.parse(tmp_path / "daily.yml"), tmp_path / "raw", tmp_path / "made")
    data["params:window"] = MemoryDataset(window(0))
    with pytest.raises(ConfigurationError, match=r"names no roles\.timestamp"):
        SequentialRunner().run(ingest.create_pipeline(), data)


def test_files_of_a_pattern_are_read_as_one_table(tmp_path):
    one = table(run(tmp_path, {}, 0, 1, 2, stages=[ingest]), "ingested_impressions")
    together = pd.concat([daily_log.rows(number).to_pandas() for number in range(3)], ignore_index=True)
    assert one.impression_id.tolist() == together.row.tolist()
    assert one.user_id.tolist() == together.user_id.tolist()


def test_csv_files_of_a_pattern_are_read_as_one_table(tmp_path):
    (tmp_path / "raw" / "days").mkdir(parents=True)
    for number in range(2):
        daily_log.rows(number).to_pandas().to_csv(tmp_path / "raw" / "days" / f"{number}.csv", index=False)
    (tmp_path / "daily.yml").write_text(daily_log.DAILY.replace("*.parquet", "*.csv"))
    data = catalog(schema.parse(tmp_path / "daily.yml"), tmp_path / "raw", tmp_path / "made")
    SequentialRunner().run(ingest.create_pipeline(), data)
    assert len(table(data, "ingested_impressions")) == 2 * daily_log.ROWS


def test_files_of_a_pattern_have_the_same_columns(tmp_path):
    daily_log.arrive(tmp_path / "raw", 0, 1)
    import pyarrow.parquet as pq

    path = tmp_path / "raw" / "days" / f"{daily_log.day(1)}.parquet"
    pq.write_table(daily_log.rows(1).drop_columns("genre"), path)
    with pytest.raises(DataError, match=rf"{path.name} and .* are parts of one table, but their columns differ"):
        run(tmp_path, {}, stages=[ingest])


def test_two_entries_are_two_tables_which_nobody_joins(tmp_path):
    daily_log.arrive(tmp_path / "raw", 0, 1)
    text = daily_log.DAILY.replace(
        "{log: days/*.parquet}", f"{{a: days/{daily_log.day(0)}.parquet, b: days/{daily_log.day(1)}.parquet}}"
    )
    (tmp_path / "daily.yml").write_text(text)
    data = catalog(schema.parse(tmp_path / "daily.yml"), tmp_path / "raw", tmp_path / "made")
    with pytest.raises(SchemaError, match="reads one table, not 2"):
        SequentialRunner().run(ingest.create_pipeline(), data)
