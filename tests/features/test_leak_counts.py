"""What happened before an impression is counted again by another query, and held to a count done by hand."""

from __future__ import annotations

import ibis
import numpy as np
import pytest
from feature_oracle import DAY, PRIOR, Bench, log, one_world, small_schema

from multidomain.features import leaks, views, windows
from multidomain.features.leaks import Counted
from multidomain.io import connection

SPLITS = ("user_time", "time", "official")


@pytest.fixture
def bench(tmp_path, data_root, request):
    return Bench(tmp_path, small_schema(tmp_path).variant(split=getattr(request, "param", "user_time")))


def measured(bench, log_rows, **options):
    """The views and the frame of a log, looked at."""
    bench.build(log_rows)
    bench.join(log_rows)
    partitioned, _, _, items = bench.tables(log_rows)
    frame = connection().read_parquet(str(bench.folder / "frame.parquet"))
    return leaks.measure(bench.variant, partitioned, items, frame, prior=PRIOR, **options)


@pytest.mark.parametrize("bench", SPLITS, indirect=True)
def test_the_untouched_views_know_neither_more_nor_fewer_under_every_split(bench):
    found = measured(bench, one_world(log(2, rows=200, split=bench.variant.split.name)), rows=150)
    assert found.rows == 150
    table = found.features
    assert not table[["more", "fewer"]].to_numpy().any(), table.to_string()
    assert set(table.feature) == {
        column.name for view in views.views(bench.variant) if view.kind != "profile" for column in view.columns
    }
    assert (table.view == table.feature.map({
        column.name: view.name for view in views.views(bench.variant) for column in view.columns
    })).all()  # fmt: skip


def test_a_leak_is_named_with_its_view_its_impression_and_both_numbers(bench, monkeypatch):
    rows = one_world(log(2))
    monkeypatch.setattr(views, "_known_after", lambda instant: instant.cast("timestamp('UTC', 6)"))
    found = measured(bench, rows).features.set_index("feature")
    assert found.loc["user_count", "more"] == len(rows), "every impression counts itself"
    assert found.loc["user_count", "view"] == "user_counts"
    assert found.loc["positives_film", "more"] > 0
    assert found.loc["positives_state", "more"] == (rows.label == 1).sum() + siblings_of_positives(rows)
    assert not found.loc[["item_count", "item_rate", "domain_count", "domain_rate"], "more"].any()
    number = int(found.loc["user_count", "example"].split()[1])
    row = rows.set_index("impression_id").loc[number]
    seen = rows[(rows.user == row.user) & (rows["at"] <= row["at"])]
    before = (seen["at"] < row["at"]).sum()
    assert found.loc["user_count", "example"].endswith(f"found {len(seen)}, expected {before}")


def siblings_of_positives(rows):
    """Impressions without a click beside one with, of the same user and instant."""
    clicked = rows.groupby(["user", "at"])["label"].transform("max")
    return int(((rows.label == 0) & (clicked == 1)).sum())


def test_a_snapshot_known_on_its_own_day_is_a_leak_of_the_daily_counts_alone(bench, monkeypatch):
    monkeypatch.setattr(views, "_next_midnight", lambda day: day.cast("timestamp(6)").cast("timestamp('UTC', 6)"))
    found = measured(bench, one_world(log(2))).features.set_index("feature").more
    assert (found[[f"{key}_count" for key in ("item", "domain", "user_domain", "item_domain")]] > 0).all()
    assert not found[["user_count", "user_rate", "positives_state", "positives_film"]].any()


def test_a_label_that_is_counted_too_early_shows_in_the_rate_alone(bench, monkeypatch):
    right = views._running

    def with_the_next_label(rows, keys, at):
        state = right(rows, keys, at)
        return state.mutate(_positives=state._positives + (1 if keys == ("item",) else 0))

    monkeypatch.setattr(views, "_running", with_the_next_label)
    found = measured(bench, one_world(log(2))).features.set_index("feature")
    assert set(found.index[found.more > 0]) == {"item_rate"}
    assert " positives, expected " in found.loc["item_rate", "example"]


def test_what_knows_fewer_than_had_happened_is_no_leak_and_is_counted_apart(bench, monkeypatch):
    def two_days_late(instant):
        return (instant + ibis.interval(days=2)).cast("timestamp('UTC', 6)")

    monkeypatch.setattr(views, "_known_after", two_days_late)
    found = measured(bench, one_world(log(2))).features.set_index("feature")
    assert not found.more.any()
    assert found.loc["user_count", "fewer"] > 0
    assert found.loc["positives_film", "fewer"] > 0


@pytest.mark.parametrize("days", [1, 2, 30])
@pytest.mark.parametrize("key", ["user", "item_domain"])
def test_windows_of_days_end_with_the_day_before_the_impressions(bench, key, days):
    rows = one_world(log(4, rows=150))
    partitioned = bench.tables(rows)[0]
    made = Counted(key=key, count="", rate="", days=days, training_only=key != "user")
    sample = partitioned.to_pyarrow()
    found = leaks.earlier(made, partitioned, sample)
    counted = rows[rows.split == "train"] if made.training_only else rows
    for row in rows.itertuples():
        same = np.logical_and.reduce([counted[name] == getattr(row, name) for name in key.split("_")])
        day = row.at // DAY
        window = counted[same & (counted["at"] // DAY < day) & (counted["at"] // DAY >= day - days)]
        expected = (len(window), window.label.sum()) if len(window) else None
        assert found.get(row.impression_id) == expected


def test_every_count_and_rate_of_a_variant_is_looked_at_windows_too(bench):
    made = leaks.made_of(bench.variant)
    assert [name for each in made for name in (each.count, each.rate)] == [f.name for f in bench.variant.count_features]
    found = {each.count: (each.key, each.days, each.daily, each.training_only) for each in made}
    assert found["user_count"] == ("user", None, False, False)
    assert found["user_count_3d"] == ("user", 3, True, False)
    assert found["item_domain_count"] == ("item_domain", None, True, True)
    assert found["item_domain_count_1d"] == ("item_domain", 1, True, True)


def test_a_window_that_takes_its_own_day_in_is_a_leak_of_the_windows_alone(bench, monkeypatch):
    right = windows._moved

    def a_day_early(*arguments, after, **options):
        return right(*arguments, after=after - 1, **options)

    monkeypatch.setattr(windows, "_moved", a_day_early)
    more = measured(bench, one_world(log(2))).features.set_index("feature").more
    assert (more[[f"{key}_count_1d" for key in bench.variant.counts]] > 0).all()
    assert not more[[f"{key}_count" for key in bench.variant.counts]].any()
