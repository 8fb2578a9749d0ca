"""Taobao's UserBehavior.csv: read as a line-by-line parse reads it, split and filtered as ADS says."""

from __future__ import annotations

import collections
import datetime as dt
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from places import PROJECT
from prepared import checked, prepare, quarantine

from benchmarks.raw_files import Bad, taobao
from multidomain import schema, sources
from multidomain.errors import DataError
from multidomain.evaluation.metrics import auc
from multidomain.sources.files import locate

READ = schema.parse(PROJECT / "conf/base/datasets/taobao.yml")
BEIJING = dt.timezone(dt.timedelta(hours=8))


def read(raw: Path) -> dict[str, list[dict[str, Any]]]:
    tables = sources.read(READ, locate(READ, raw), raw / "work")
    return {name: table.to_pyarrow().to_pylist() for name, table in tables.items()}


def lines(raw: Path) -> list[list[str]]:
    return [line.split(",") for line in (raw / "taobao" / taobao.NAME).read_text().splitlines()]


def put(raw: Path, *rows: str) -> Path:
    (raw / "taobao").mkdir(parents=True, exist_ok=True)
    (raw / "taobao" / taobao.NAME).write_text("".join(f"{row}\n" for row in rows))
    return raw


def part(time: dt.datetime) -> str:
    if time >= dt.datetime(2017, 12, 2, tzinfo=BEIJING):
        return "test"
    return "validation" if time >= dt.datetime(2017, 12, 1, 7, 12, tzinfo=BEIJING) else "train"


def test_every_value_equals_a_line_by_line_parse(tmp_path: Path) -> None:
    taobao.write(tmp_path / "taobao", rows=5_000)
    tables, users, items = read(tmp_path), set(), {}
    expected = []
    for number, (user, item, category, behavior, seconds) in enumerate(lines(tmp_path), start=1):
        time = dt.datetime.fromtimestamp(int(seconds), BEIJING)
        users.add(user)
        items[item] = category
        expected.append(
            {
                "impression_id": number,
                "user_id": user,
                "item_id": item,
                "timestamp": time.astimezone(dt.UTC).replace(tzinfo=None),
                "positive": int(behavior != "pv"),
                "hour": time.hour,
                "split": part(time),
            }
        )
    assert tables["impressions"] == expected
    assert {row["user_id"] for row in tables["users"]} == users
    assert {row["item_id"]: row["category_id"] for row in tables["items"]} == items
    assert len(tables["users"]) == len(users)
    assert {row["split"] for row in expected} == {"train", "validation", "test"}
    assert tables["files"] == [{"file": "UserBehavior.csv", "lines": 5_000, "rows": 5_000, "rejected": 0}]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1_511_539_200, "train"),  # 2017-11-25 00:00:00 in Beijing
        (1_512_083_519, "train"),
        (1_512_083_520, "validation"),  # 2017-12-01 07:12:00: a tenth of seven days before the test
        (1_512_143_999, "validation"),
        (1_512_144_000, "test"),  # 2017-12-02 00:00:00
        (1_512_316_799, "test"),  # 2017-12-03 23:59:59
        (1_511_539_199, None),
        (1_512_316_800, None),
        (0, None),
        (-1, None),
        (2_122_867_355, None),  # 2037
        (9_000_000_000_000_000_000, None),
    ],
)
def test_days_are_those_of_beijing_and_a_line_outside_the_nine_is_set_apart(
    tmp_path: Path, seconds: int, said: str | None
) -> None:
    tables = read(put(tmp_path, "1,2268318,2520377,pv,1511544070", f"1,2333346,2520771,buy,{seconds}"))
    second = tables["impressions"][1:]
    assert [row["split"] for row in second] == ([said] if said else [])
    assert [row["reason"] for row in tables["rejected"]] == (
        [] if said else [f"timestamp '{seconds}' is outside 2017-11-25 to 2017-12-03 in Beijing"]
    )


def test_an_item_has_the_category_of_most_of_its_lines_and_the_others_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"1,7,{category},{kind},1511544070" for category, kind in ((5, "pv"), (6, "fav"), (6, "cart"), (6, "buy"))]
    tables = read(put(tmp_path, *rows))
    assert tables["items"] == [{"item_id": "7", "category_id": "6"}]
    assert [row["positive"] for row in tables["impressions"]] == [0, 1, 1, 1]
    assert "1 of 1 items have rows that disagree on 'category_id' (1 rows differ)" in caplog.text


GOOD = b"1,2268318,2520377,pv,1511544070"
HOSTILE = {
    "a header": (b"user_id,item_id,category_id,behavior,timestamp", "user_id 'user_id' is not a whole number"),
    "tabs": (GOOD.replace(b",", b"\t"), "has 1 columns, not 5, divided by ','"),
    "a field less": (GOOD.rsplit(b",", 1)[0], "has 4 columns, not 5, divided by ','"),
    "a field more": (GOOD + b",1", "has 6 columns, not 5, divided by ','"),
    "another behavior": (GOOD.replace(b"pv", b"click"), "behavior 'click' is not one of pv, buy, cart, fav"),
    "no behavior": (GOOD.replace(b"pv", b""), "behavior is missing"),
    "no category": (GOOD.replace(b"2520377", b""), "category_id is missing"),
    "a time in words": (GOOD.replace(b"1511544070", b"2017-11-25"), "timestamp '2017-11-25' is not a whole number"),
    "milliseconds": (GOOD + b"000", "timestamp '1511544070000' is outside 2017-11-25 to 2017-12-03 in Beijing"),
    "another day": (
        GOOD.replace(b"1511544070", b"1511539199"),
        "timestamp '1511539199' is outside 2017-11-25 to 2017-12-03 in Beijing",
    ),
    "latin-1": (b"\xe9" + GOOD, "is not UTF-8"),
    "nothing": (b"", "is empty"),
}


@pytest.mark.parametrize("crlf", [False, True], ids=["lf", "crlf"])
def test_every_hostile_line_is_set_apart_with_its_number_and_reason(tmp_path: Path, crlf: bool) -> None:
    bad = {taobao.NAME: [Bad(line=line, reason=reason) for line, reason in HOSTILE.values()]}
    (file,) = taobao.write(tmp_path / "taobao", rows=2_000, bad=bad, crlf=crlf).values()
    tables = read(tmp_path)
    assert {row["line"]: row["reason"] for row in tables["rejected"]} == {n: one.reason for n, one in file.placed}
    (counts,) = tables["files"]
    assert (counts["lines"], counts["rows"], counts["rejected"]) == (file.lines, 2_000, len(HOSTILE))
    assert len(tables["impressions"]) == 2_000


def test_a_header_before_the_first_line_costs_no_row(tmp_path: Path) -> None:
    tables = read(put(tmp_path, "user_id,item_id,category_id,behavior,timestamp", GOOD.decode()))
    assert [row["impression_id"] for row in tables["impressions"]] == [2]
    assert [(row["line"], row["reason"]) for row in tables["rejected"]] == [
        (1, "user_id 'user_id' is not a whole number")
    ]


STOPS = {
    "another file of this name": (
        taobao.NAME,
        ["1,2", "3,4"],
        ["UserBehavior.csv has no rows", "line 1 has 2 columns, not 5"],
    )
}


@pytest.mark.parametrize(("_", "content", "said"), STOPS.values(), ids=STOPS)
def test_a_file_that_is_another_stops_the_run_with_line_and_reason(
    tmp_path: Path, _: str, content: list[str], said: list[str]
) -> None:
    with pytest.raises(DataError) as error:
        read(put(tmp_path, *content))
    for part in said:
        assert part in error.value.message


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"UserBehavior\.csv is missing.*tianchi\.aliyun\.com/dataset/649"):
        locate(READ, tmp_path)


def enough(rows: list[list[str]]) -> set[int]:
    """The lines of users with 200 lines and 10 positives, and of items with 10, counted one by one."""
    users, items, positives = (collections.Counter[str]() for _ in range(3))
    for user, item, _, behavior, _ in rows:
        users[user] += 1
        items[item] += 1
        positives[user] += behavior != "pv"
    return {
        number
        for number, (user, item, *_) in enumerate(rows, start=1)
        if users[user] >= 200 and positives[user] >= 10 and items[item] >= 10
    }


def test_users_and_items_with_fewer_lines_than_ads_asks_for_are_left_out_and_counted(tmp_path: Path) -> None:
    taobao.write(tmp_path / "taobao", rows=12_000, items=1_500)
    kept = enough(lines(tmp_path))
    assert 2_000 < len(kept) < 10_000
    data = checked(READ, tmp_path, tmp_path / "out")
    assert set(data.load("valid_impressions").impression_id.execute()) == kept
    report = data.load("ingest_report")
    assert (report["impressions"], report["left_out"]) == (12_000, 12_000 - len(kept))
    assert quarantine(data) == {}


def test_lines_set_apart_are_in_the_quarantine_and_too_many_stop_the_run(tmp_path: Path) -> None:
    outside = Bad(line=GOOD.replace(b"1511544070", b"1480000000"), reason="")
    (file,) = taobao.write(tmp_path / "taobao", rows=3_000, bad={taobao.NAME: [outside] * 3}).values()
    data = checked(READ, tmp_path, tmp_path / "out")
    reason = "timestamp '1480000000' is outside 2017-11-25 to 2017-12-03 in Beijing"
    assert quarantine(data) == {(taobao.NAME, f"line {number}"): reason for number, _ in file.placed}
    taobao.write(tmp_path / "taobao", rows=3_000, bad={taobao.NAME: [outside] * 4})
    with pytest.raises(DataError, match=r"UserBehavior\.csv: 4 of 3,004 rows"):
        checked(READ, tmp_path, tmp_path / "again")


def test_the_archive_as_it_comes_is_prepared_up_to_the_tensors_every_category_a_domain(tmp_path: Path) -> None:
    taobao.write(tmp_path / "unpacked/taobao", rows=8_000)
    (tmp_path / "taobao").mkdir()
    with zipfile.ZipFile(tmp_path / "taobao/UserBehavior.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "unpacked/taobao" / taobao.NAME, taobao.NAME)
    data = prepare(READ, tmp_path, tmp_path / "out")
    rows, raw = data.load("partitioned").to_pandas(), lines(tmp_path / "unpacked")
    assert set(rows.impression_id) == enough(raw)
    trained = {raw[number - 1][2] for number in rows[rows.split == "train"].impression_id}
    assert set(data.load("domain_table").to_pandas().domain) - {"remainder"} == trained
    assert len(trained) > 100
    named = {number: raw[number - 1][2] for number in rows.impression_id}
    assert all(row.domain in (named[row.impression_id], "remainder") for row in rows.itertuples())
    frame = data.load("training_frame").to_pandas()
    assert frame.actions_category_id.map(lambda values: 0 if values is None else len(values)).max() == 20
    assert (tmp_path / "out/encoded/inputs.json").is_file()


def test_what_makes_people_act_stands_in_the_vendor_s_columns(tmp_path: Path) -> None:
    taobao.write(tmp_path / "taobao", rows=40_000)
    rows = pd.DataFrame(lines(tmp_path), columns=["user", "item", "category", "behavior", "seconds"])
    rows["part"] = (rows.seconds.astype(int) + 8 * 3_600) // 21_600 % 4
    action = (rows.behavior != "pv").astype(int)
    train = np.arange(len(rows)) % 5 > 0
    odds = np.zeros(len(rows))
    for name in ("user", "item", "category", "part"):  # each column alone, added up
        seen = action[train].groupby(rows[name]).agg(["sum", "count"])
        rate = (seen["sum"] + 10 * action.mean()) / (seen["count"] + 10)
        odds += rows[name].map(np.log(rate / (1 - rate))).fillna(0).to_numpy()
    assert auc(action[~train].to_numpy(), odds[~train]) > 0.65
    assert set(rows.behavior) == {"pv", "buy", "cart", "fav"}


def test_a_large_file_has_users_of_enough_lines_and_the_categories_of_the_original(tmp_path: Path) -> None:
    taobao.write(tmp_path / "taobao", rows=200_000, items=25_000)
    rows = pd.DataFrame(lines(tmp_path), columns=["user", "item", "category", "behavior", "seconds"])
    assert 9_300 < rows.category.nunique() <= 9_439
    assert rows.groupby("item").category.nunique().max() == 1
    sizes = rows.groupby("user").size()
    assert (sizes >= 200).mean() > 0.6
    assert (rows.user != rows.user.shift()).sum() == rows.user.nunique()  # those of a user stand together
