"""No feature knows its own impression, a sibling of the same second, anything later, or a test label it must not."""

from __future__ import annotations

import ibis
import numpy as np
import pytest
from feature_oracle import DAY, PRIOR, check_no_leak, differing, expected, log

from multidomain.features import views
from multidomain.io import connection

SPLITS = ("user_time", "time", "official")


def carried(variant):
    """The features made of labels."""
    return list(next(iter(expected(variant, log(0, rows=1)).values())))


@pytest.mark.parametrize("split", SPLITS)
def test_every_feature_equals_a_count_of_earlier_rows_done_by_hand(benches, split):
    rows, bench = log(1, rows=150, split=split), benches[split]
    check_no_leak(bench.frame(rows), expected(bench.variant, rows))


def flip(rows, chosen):
    return rows.assign(label=rows["label"].where(~chosen, 1 - rows["label"]))


@pytest.mark.parametrize("split", SPLITS)
def test_flipping_a_label_changes_only_later_impressions(benches, split):
    rows, bench = log(3, split=split), benches[split]
    numbers = rows["impression_id"].sample(15, random_state=0).tolist()
    before, *after = bench.frames([rows, *(flip(rows, rows["impression_id"] == number) for number in numbers)])
    at = rows.set_index("impression_id")["at"]
    changed_at_all = set()
    for number, frame in zip(numbers, after, strict=True):
        changed = differing(before, frame, carried(bench.variant))
        assert all(at[n] > at[number] for n in changed), f"impression {number} is seen by itself or by an earlier one"
        changed_at_all |= changed
    assert changed_at_all


def test_flipping_test_labels_changes_no_training_row_under_user_time(benches):
    bench, logs = benches["user_time"], [log(seed) for seed in range(4, 9)]
    flipped = [flip(rows, rows["split"] != "train") for rows in logs]
    # with the prior left to the product: it too must come from training rows alone
    frames = bench.frames(logs + flipped, prior=None)
    for rows, before, after in zip(logs, frames[:5], frames[5:], strict=True):
        changed = differing(before, after, carried(bench.variant))
        assert not changed & set(rows.loc[rows["split"] == "train", "impression_id"])
        assert changed, "later rows of the same user do see them"


@pytest.mark.parametrize("split", ["time", "official"])
def test_removing_all_later_rows_changes_nothing_before_them(benches, split):
    bench, rows = benches[split], log(7, split=split)
    before, after = bench.frames([rows, rows[rows["at"] <= np.median(rows["at"])]])
    assert not differing(after, before.loc[after.index], carried(bench.variant))


def planted(bench, rows, monkeypatch, name, replacement):
    monkeypatch.setattr(views, name, replacement)
    frame = bench.frame(rows)
    with pytest.raises(AssertionError, match="values differ"):
        check_no_leak(frame, expected(bench.variant, rows))


def test_the_check_catches_a_feature_stamped_at_the_events_own_time(benches, monkeypatch):
    def own_time(instant):
        return instant.cast("timestamp('UTC', 6)")

    planted(benches["user_time"], log(1), monkeypatch, "_known_after", own_time)


def test_the_check_catches_a_snapshot_known_on_its_own_day(benches, monkeypatch):
    def same_day(day):
        return day.cast("timestamp(6)").cast("timestamp('UTC', 6)")

    planted(benches["user_time"], log(1), monkeypatch, "_next_midnight", same_day)


def test_the_check_catches_test_rows_in_the_item_and_domain_counts(benches, monkeypatch):
    planted(benches["user_time"], log(1), monkeypatch, "training_only", lambda variant, key: False)


def test_the_check_catches_a_history_with_siblings_of_the_same_second(benches, monkeypatch):
    right = views._running

    def row_by_row(rows, keys, at):  # an order within the instant: each row sees its siblings before it
        shifted = rows.timestamp + rows.impression_id.as_interval("us") - ibis.interval(microseconds=1000)
        return right(rows, keys, shifted if keys == ("user",) else at)

    planted(benches["user_time"], log(1), monkeypatch, "_running", row_by_row)


def test_flipping_a_label_also_catches_a_planted_leak(benches, monkeypatch):
    monkeypatch.setattr(views, "_known_after", lambda instant: instant.cast("timestamp('UTC', 6)"))
    bench, rows = benches["user_time"], log(3)
    number = rows["impression_id"].iloc[0]
    before, after = bench.frames([rows, flip(rows, rows["impression_id"] == number)])
    assert number in differing(before, after, carried(bench.variant))


def test_an_impression_at_midnight_sees_the_day_before_and_not_its_own(benches):
    bench, rows = benches["time"], log(1, split="time")
    midnight = rows[rows["at"] % DAY == 0]
    frame = bench.frame(rows)
    for row in midnight.itertuples():
        seen = ((rows["domain"] == row.domain) & (rows["at"] < row.at)).sum()
        assert frame.at[row.impression_id, "domain_count"] == (seen or None)


def test_the_prior_is_the_training_rate(benches):
    rows = log(1)
    manifest = benches["user_time"].build(rows, prior=None)
    assert manifest["prior"] == pytest.approx(rows.loc[rows["split"] == "train", "label"].mean())
    table = connection().read_parquet(str(benches["user_time"].views / "domain_counts.parquet")).to_pandas()
    first = table.sort_values("event_timestamp").iloc[0]
    positives = first["domain_rate"] * (first["domain_count"] + 20) - 20 * manifest["prior"]
    assert positives == pytest.approx(round(positives))
    assert manifest["prior"] != PRIOR
