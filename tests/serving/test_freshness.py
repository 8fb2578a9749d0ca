"""What is online is read as a request would, and held against the view tables by key and time."""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import pandas as pd
import pytest
from feature_oracle import DAY, START
from small_ranker import SmallLog, loaded

from multidomain.errors import DataError
from multidomain.evaluation import drift
from multidomain.features import repository, views
from multidomain.features.views import Column
from multidomain.io import connection
from multidomain.serving import Event, distribution, freshness, record

HOUR = dt.timedelta(hours=1)
AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)  # on the third of the log's five days


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small log, registered and loaded up to noon of its third day."""
    with loaded(tmp_path_factory.mktemp("freshness"), AT, rows=300) as made:
        yield made


def measured(small: SmallLog, **options) -> freshness.Freshness:
    frame = connection().read_parquet(str(small.frame))
    return freshness.measure(small.variant, frame, small.bench.views, rows=200, **options)


def newest(small: SmallLog, view: str, until: dt.datetime) -> dt.datetime:
    times = pd.read_parquet(small.bench.views / f"{view}.parquet")["event_timestamp"]
    return times[times <= until].max()


def test_the_age_of_a_view_is_that_of_its_newest_row_that_was_loaded(small):
    now = AT + 100 * HOUR
    found = measured(small, at=now).views.set_index("view")
    for view in views.views(small.variant):
        line = found.loc[view.name]
        if view.kind == "profile":
            assert line[["offline", "online", "age_hours"]].isna().all()
            continue
        loaded = newest(small, view.name, AT)
        assert dt.datetime.fromisoformat(line.online) == loaded
        assert dt.datetime.fromisoformat(line.offline) == newest(small, view.name, now)
        assert line.age_hours == pytest.approx((now - loaded) / HOUR)
        assert dt.datetime.fromisoformat(line.loaded) == AT


def test_without_a_time_a_view_is_held_against_the_newest_row_of_its_table(small):
    found = measured(small).views.set_index("view")
    for view in ("user_counts", "item_counts", "item_windows"):
        ages = newest(small, view, dt.datetime.now(dt.UTC)) - newest(small, view, AT)
        assert found.loc[view, "age_hours"] == pytest.approx(ages / HOUR)


def test_at_the_time_it_was_loaded_up_to_nothing_is_absent_behind_or_different(small):
    found = measured(small, at=AT)
    table = found.views
    assert (table["keys"] > 0).all()
    assert not table[["absent", "behind", "pushed", "differing"]].to_numpy().any(), table.to_string()
    same = found.features[found.features.comparison == freshness.AGAINST_TABLES]
    assert (same.psi == 0).all()
    later = found.features[found.features.comparison == freshness.AGAINST_FRAME].set_index("feature").psi
    assert later["user_count"] > 0
    assert later["year"] == 0  # of a profile, which does not change
    assert set(found.features.feature) == {c.name for view in views.views(small.variant) for c in view.columns}


def test_keys_are_absent_or_behind_by_what_the_table_knows_of_each(small):
    now = AT + 100 * HOUR
    table = pd.read_parquet(small.bench.views / "item_domain_counts.parquet")
    latest = table[table.event_timestamp <= now].groupby(["item", "domain"]).event_timestamp.max()
    there = table[table.event_timestamp <= AT].groupby(["item", "domain"]).event_timestamp.max()
    frame = pd.read_parquet(small.frame)
    frame = frame[frame.split == "test"]
    asked = [key for key in set(zip(frame["item"], frame["domain"], strict=True)) if key in latest.index]
    line = measured(small, at=now).views.set_index("view").loc["item_domain_counts"]
    assert line["keys"] == len(asked)
    assert line.absent == sum(key not in there.index for key in asked)
    assert line.behind == sum(key in there.index and there[key] < latest[key] for key in asked)


def test_one_click_that_was_pushed_does_not_make_a_view_look_fresh(small):
    before = measured(small).views.set_index("view")
    store, _ = repository.service(small.variant)
    record(small.variant, store, Event(user="ann@", item="01", label=1, at=dt.datetime.now(dt.UTC)))
    after = measured(small).views.set_index("view")
    for view in ("user_history", "user_counts"):
        assert after.loc[view, "pushed"] == before.loc[view, "pushed"] + 1
        assert after.loc[view, "age_hours"] >= before.loc[view, "age_hours"] > 24
    assert after.loc["item_counts"].equals(before.loc["item_counts"])


def test_a_variant_without_views_has_nothing_online(small):
    context = dataclasses.replace(small.variant.feature_set, features=("device",), history=False, counts=False)
    none = dataclasses.replace(small.variant, feature_set=context)
    with pytest.raises(DataError, match="has no feature views"):
        freshness.measure(none, None, small.bench.views)  # type: ignore[arg-type]


# --- distributions -------------------------------------------------------------------------------------------------


def counts(offline, online, *, kind="string", many=False, history=False):
    column = Column(name="x", type=kind, list=many)
    return [side.tolist() for side in distribution.counts(offline, online, column, history=history)]


def test_texts_are_counted_by_value_what_is_new_online_together_and_nulls_apart():
    assert counts(["a", "a", "b", None], ["b", "c", "d", None]) == [[2, 1, 0, 1], [0, 1, 2, 1]]


def test_values_of_bags_are_counted_one_by_one_and_an_empty_bag_as_none():
    assert counts([["a", "b"], ["a"], []], [["a"], None, ["c"]], many=True) == [[2, 1, 0, 1], [1, 0, 1, 1]]


def test_histories_are_compared_by_length_and_an_empty_one_stays_apart():
    long = [["x"]] * 50 + [["x", "x"]] * 50
    a, b = counts(long, [None] * 10 + [["x"] * 2] * 90, many=True, history=True)
    assert a[0] == 0  # no empty one
    assert b[0] == 10
    assert sum(a) == sum(b) == 100


def test_numbers_are_cut_at_the_offline_quantiles_and_nulls_stay_apart():
    offline = list(range(100))
    a, b = counts(offline, [None] * 25 + [1000] * 75, kind="int")
    assert max(a[:-1]) - min(a[:-1]) <= 1
    assert (a[-1], b[-1], b[-2]) == (0, 25, 75)


def test_psi_is_that_of_the_drift_report():
    column = Column(name="x", type="string")
    found = distribution.compare(["a"] * 50 + ["b"] * 50, ["a"] * 25 + ["b"] * 75, column, history=False)
    assert found["psi"] == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))
    assert found["chance"] == pytest.approx(float(drift.chance(np.array([50, 50]), np.array([25, 75]))))
