"""Which domain and which split an impression belongs to."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain import schema
from multidomain.errors import DataError
from multidomain.io import connection
from multidomain.pipelines.partition.nodes import assign, describe_domains, oddities
from multidomain.schema import SPLITS

START = dt.datetime(2024, 1, 1)
LOG = {
    "source": "table",
    "files": {"log": "log.csv"},
    "roles": {"user": "who", "item": "what", "timestamp": "at"},
    "labels": {"click": "clicked", "conversion": {"column": "bought", "where": "clicked"}},
    "domains": {
        "page": {"column": "page", "minimum": 1},
        "years": {"column": "years", "bins": [25, 35], "names": ["young", "middle", "old"], "minimum": 1},
        "edges": {"column": "years", "bins": [25, 35], "minimum": 1},
        "both": {"cross": ["page", "years"], "minimum": 1},
        "large": {"column": "page", "minimum": 4},
        "first": {"column": "page", "top": 1, "minimum": 1},
        "alone": {"column": "page", "top": 1, "minimum": 1, "remainder": False},
    },
    "splits": {"user_time": {}, "time": {}, "random": {}, "official": {"column": "part"}},
    "features": {"who": {}, "what": {}, "years": {"owner": "user", "type": "int"}},
}


def the_schema(folder: Path, **changed: object) -> schema.Schema:
    path = folder / "log.yml"
    path.write_text(yaml.safe_dump(LOG | changed, sort_keys=False))
    return schema.parse(path)


def log(n: int = 40, **columns: object) -> pd.DataFrame:
    """n impressions of four users, one a minute, every other one clicked."""
    frame = pd.DataFrame(
        {
            "impression_id": range(n),
            "who": [f"u{i % 4}" for i in range(n)],
            "what": [f"i{i % 7}" for i in range(n)],
            "at": [START + dt.timedelta(minutes=i) for i in range(n)],
            "page": ["home" if i % 10 < 7 else "search" for i in range(n)],
            "clicked": [i % 2 for i in range(n)],
            "bought": [(i // 2) % 2 for i in range(n)],
            "part": ["train" if i < n * 0.5 else "validation" if i < n * 0.75 else "test" for i in range(n)],
        }
    )
    return frame.assign(**columns)


def partition(frame: pd.DataFrame, parsed: schema.Schema, **choice: str) -> pd.DataFrame:
    users = pd.DataFrame({"who": [f"u{i}" for i in range(4)], "years": pd.array([18, 25, 35, None], "Int64")})
    items = pd.DataFrame({"what": [f"i{i}" for i in range(7)]})
    tables = [connection().create_table(ibis.util.gen_name("t"), table) for table in (frame, users, items)]
    assigned = assign(parsed.variant(features="profile", **choice), *tables)
    return assigned.to_pandas().sort_values("impression_id", ignore_index=True)


def test_each_users_first_rows_train_and_last_rows_test(tmp_path):
    rows = partition(log(), the_schema(tmp_path), split="user_time")
    for _, mine in rows.groupby("user"):
        assert mine.split.tolist() == ["train"] * 8 + ["validation"] + ["test"]


def test_rows_of_one_user_in_the_same_instant_stay_together(tmp_path):
    same = [START + dt.timedelta(minutes=(i // 4) // 4 * 4) for i in range(40)]  # each user: 4, 4 and 2 rows at a time
    splits = {"user_time": {"train": 0.4, "validation": 0.4, "test": 0.2}}
    rows = partition(log(at=same), the_schema(tmp_path, splits=splits))
    assert rows.groupby(["user", "timestamp"]).split.nunique().max() == 1
    assert rows[rows.user == "u0"].split.tolist() == ["train"] * 4 + ["validation"] * 4 + ["test"] * 2


def test_a_global_cut_puts_no_training_row_after_a_test_row(tmp_path):
    rows = partition(log(), the_schema(tmp_path), split="time")
    assert rows.split.tolist() == ["train"] * 32 + ["validation"] * 4 + ["test"] * 4


def test_a_random_split_depends_on_the_seed_and_the_impression_alone(tmp_path):
    parsed = the_schema(tmp_path)
    whole, shuffled = log(400), log(400).sample(frac=1, random_state=0)
    first, second = partition(whole, parsed, split="random"), partition(shuffled, parsed, split="random")
    pd.testing.assert_frame_equal(first, second)
    other = partition(whole, the_schema(tmp_path, splits={"random": {"seed": 7}}))
    assert (first.split != other.split).any()
    assert 0.7 < (first.split == "train").mean() < 0.9


def test_an_official_split_is_read_from_its_column(tmp_path):
    frame = log()
    assert partition(frame, the_schema(tmp_path), split="official").split.tolist() == frame.part.tolist()


def test_an_official_split_with_another_word_is_refused(tmp_path):
    frame = log(part=["train"] * 20 + ["dev"] * 10 + ["test"] * 10)
    with pytest.raises(DataError, match=r"'part' holds dev; allowed: train, validation, test"):
        partition(frame, the_schema(tmp_path), split="official")


def test_a_split_with_one_class_is_refused_with_its_name_and_size(tmp_path):
    frame = log()
    frame.loc[36:, "clicked"] = 0
    with pytest.raises(DataError, match="all 4 test rows have label 0"):
        partition(frame, the_schema(tmp_path), split="time")


def test_a_domain_below_the_minimum_joins_the_remainder_with_a_warning(tmp_path, caplog):
    frame = log()
    frame.loc[[1, 2, 3], "page"] = "banner"
    with caplog.at_level(logging.WARNING):
        rows = partition(frame, the_schema(tmp_path), domain="large", split="time")
    assert rows.domain[[1, 2, 3]].tolist() == ["remainder"] * 3
    assert rows.domain_id[[0, 1, 7]].tolist() == [0, 2, 1]  # home, remainder, search
    assert "banner (3)" in caplog.text


def test_only_the_largest_domains_are_kept_where_the_schema_says_so(tmp_path):
    rows = partition(log(), the_schema(tmp_path), domain="first")
    assert set(zip(rows.domain, rows.domain_id, strict=True)) == {("home", 0), ("remainder", 1)}


def test_the_rows_of_other_domains_are_left_out_where_the_schema_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        rows = partition(log(80), the_schema(tmp_path), domain="alone", split="time")
    assert rows.impression_id.tolist() == [i for i in range(80) if i % 10 < 7]
    assert set(zip(rows.domain, rows.domain_id, strict=True)) == {("home", 0)}
    assert rows.split.tolist() == ["train"] * 46 + ["validation"] * 5 + ["test"] * 5  # as all eighty were split
    assert "are left out" in caplog.text
    assert "search (18)" in caplog.text


def test_bins_take_their_lower_edge_and_nulls_are_a_domain_of_their_own(tmp_path):
    rows = partition(log(), the_schema(tmp_path), domain="years")
    assert rows.groupby("user").domain.first().tolist() == ["young", "middle", "old", "unknown"]
    rows = partition(log(), the_schema(tmp_path), domain="edges")
    assert rows.groupby("user").domain.first().tolist() == ["below_25", "25_to_35", "from_35", "unknown"]


def test_a_cross_joins_the_names_of_its_columns(tmp_path):
    rows = partition(log(), the_schema(tmp_path), domain="both")
    assert rows.domain[0] == "home_18"
    assert "home_unknown" in set(rows.domain)


def test_a_missing_domain_column_is_named(tmp_path):
    with pytest.raises(DataError, match=r"domains.page needs the column 'page'.*There are: at, bought"):
        partition(log().drop(columns="page"), the_schema(tmp_path), domain="page")


def test_conversion_keeps_clicked_rows_only(tmp_path):
    frame = log(80)
    rows = partition(frame, the_schema(tmp_path), label="conversion", split="time")
    assert rows.impression_id.tolist() == frame[frame.clicked == 1].impression_id.tolist()
    assert rows.label.tolist() == frame[frame.clicked == 1].bought.tolist()


def test_the_table_of_domains_adds_up(tmp_path):
    rows = partition(log(), the_schema(tmp_path))
    table = describe_domains(connection().create_table(ibis.util.gen_name("p"), rows)).to_pandas().set_index("domain")
    assert table.rows["home"] == 28
    assert table.share.sum() == pytest.approx(1)
    assert table.positive_rate["home"] == pytest.approx(rows[rows.domain == "home"].label.mean())
    assert (table.users["home"], table["items"]["search"]) == (4, 7)
    assert (table.train_rows + table.validation_rows + table.test_rows == table.rows).all()
    train = rows[rows.split == "train"]
    assert table.train_positives.to_dict() == train.groupby("domain").label.sum().to_dict()


def domains(**sizes: tuple[int, int]) -> pa.Table:
    """Training rows and positives by domain."""
    rows, positives = zip(*sizes.values(), strict=True)
    return pa.table({"domain": list(sizes), "train_rows": rows, "train_positives": positives})


def test_domains_of_a_usual_size_are_not_spoken_of():
    assert oddities(domains(home=(6_000, 200), search=(4_000, 100))) == []
    assert oddities(domains(home=(1_000, 1))) == []  # a single domain holds all rows by its nature


def test_huge_small_and_positiveless_domains_are_named_with_their_numbers():
    table = domains(tab_1=(70_000, 9_000), tab_2=(28_501, 1), tab_0=(999, 12), tab_4=(500, 0), tab_3=(0, 0))
    assert oddities(table) == [
        "tab_1 holds 70.0% of the 100,000 training rows, more than 60%",
        "3 of 5 have fewer than 1,000 training rows: tab_3 (0), tab_4 (500), tab_0 (999)",
        "1 of 5 have no positive training row: tab_4 (0 of 500)",
    ]


def test_of_many_small_domains_the_smallest_are_named():
    (said,) = oddities(domains(**{f"d{i}": (i + 1, 1) for i in range(40)}))
    assert said.startswith("40 of 40 have fewer than 1,000 training rows: d0 (1), d1 (2), ")
    assert said.endswith("d9 (10) …")


def test_what_is_odd_about_the_domains_is_said_in_one_warning(tmp_path, caplog):
    rows = partition(log(), the_schema(tmp_path))
    with caplog.at_level(logging.WARNING):
        describe_domains(connection().create_table(ibis.util.gen_name("p"), rows))
    (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("domains:")]
    assert "home holds 71.9% of the 32 training rows, more than 60%" in said
    assert "2 of 2 have fewer than 1,000 training rows: search (9), home (23)" in said


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=30, max_size=60))
def test_no_user_ever_trains_on_a_row_at_or_after_one_of_their_later_rows(tmp_path_factory, events):
    steady = [("steady", hour) for hour in range(20)]  # a user with both classes in every split
    everybody = [(f"u{user}", hour) for user, hour in events] + steady
    frame = log(len(everybody))
    frame["who"] = [user for user, _ in everybody]
    frame["at"] = [START + dt.timedelta(hours=hour) for _, hour in everybody]
    rows = partition(frame, the_schema(tmp_path_factory.mktemp("s")), split="user_time")
    order = {"train": 0, "validation": 1, "test": 2}
    for _, mine in rows.groupby("user"):
        by_time = mine.assign(order=mine.split.map(order)).groupby("timestamp").order
        assert by_time.nunique().max() == 1
        assert by_time.first().is_monotonic_increasing


def test_where_every_domain_is_too_small_the_remainder_is_the_one_domain(tmp_path):
    domains = {"page": {"column": "page", "minimum": 1000}}
    rows = partition(log(), the_schema(tmp_path, domains=domains))
    assert set(rows.domain) == {"remainder"}
    assert set(rows.domain_id) == {0}


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 12), min_size=12, max_size=40), st.floats(0.2, 0.6))
def test_a_cut_by_time_counts_the_rows_strictly_before_and_parts_no_instant(tmp_path_factory, minutes, share):
    frame = log(len(minutes), at=[START + dt.timedelta(minutes=m) for m in minutes])
    splits = {"time": {"train": share, "validation": 0.8 - share, "test": 0.2}}
    parsed = the_schema(tmp_path_factory.mktemp("cut"), splits=splits)
    expected = []
    for minute in minutes:
        place = sum(other < minute for other in minutes) / len(minutes)
        expected.append("train" if place < share else "validation" if place < share + (0.8 - share) else "test")
    try:
        rows = partition(frame, parsed)
    except DataError:  # a split without rows, or of one class
        return
    assert rows.split.tolist() == expected


@pytest.mark.parametrize("kind", ["time", "order"])
def test_a_long_log_is_cut_exactly_however_its_rows_lie(tmp_path, kind):
    n = 400_000  # several threads at work: a table that was ordered before it is asked has lost its order by then
    places = np.random.default_rng(3).permutation(n)
    frame = log(n, impression_id=places, at=pd.Timestamp(START) + pd.to_timedelta(places, unit="s"))
    rows = partition(frame, the_schema(tmp_path, splits={kind: {}}))
    expected = np.repeat(["train", "validation", "test"], [320_000, 40_000, 40_000])
    assert (rows.split.to_numpy() == expected).all(), rows.split.value_counts().to_dict()


def test_a_split_by_order_cuts_the_rows_as_the_files_have_them_whatever_their_time(tmp_path):
    backwards = [START - dt.timedelta(minutes=i) for i in range(40)]
    parsed = the_schema(tmp_path, splits={"file_order": {"kind": "order"}})
    rows = partition(log(at=backwards), parsed)
    assert rows.split.tolist() == ["train"] * 32 + ["validation"] * 4 + ["test"] * 4


def test_thousands_of_domains_are_numbered_in_order_of_their_names(tmp_path):
    frame = log(6000, page=[f"c{i % 3000}" for i in range(6000)], clicked=[i // 3000 for i in range(6000)])
    rows = partition(frame, the_schema(tmp_path), split="random")
    names = rows.groupby("domain_id").domain.unique()
    kept = [name for (name,) in names if name != "remainder"]
    assert kept == sorted(kept, key=lambda name: int(name[1:]))
    assert len(kept) > 2800  # a page none of whose rows is in training has no domain of its own
    assert names.iloc[-1].tolist() == ["remainder"]


def test_rows_lie_by_split_and_domain_so_that_few_row_groups_hold_two_of_either(tmp_path):
    users, items = pd.DataFrame({"who": ["u0"], "years": [18]}), pd.DataFrame({"what": ["i0"]})
    tables = [connection().create_table(ibis.util.gen_name("t"), table) for table in (log(20_480), users, items)]
    rows = assign(the_schema(tmp_path).variant(features="profile"), *tables)
    connection().to_parquet(rows, tmp_path / "rows.parquet", row_group_size=2_048)
    file = pq.ParquetFile(tmp_path / "rows.parquet")
    places = [file.schema.names.index(name) for name in ("split", "domain_id")]
    groups = [[file.metadata.row_group(i).column(at).statistics for at in places] for i in range(file.num_row_groups)]
    assert len(groups) == 10
    mixed = sum(any(column.min != column.max for column in group) for group in groups)
    assert mixed < len(SPLITS) * 2  # home and search: a group can be cut where one pair ends and the next begins
