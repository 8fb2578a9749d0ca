"""KuaiRand's three layouts: read as a line-by-line parse reads them, every hostile line set apart or named."""

from __future__ import annotations

import csv
import datetime as dt
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from places import PROJECT
from prepared import checked, patient, prepare, quarantine

from benchmarks.raw_files import Bad, kuairand
from multidomain import schema, sources
from multidomain.errors import DataError
from multidomain.evaluation.metrics import auc
from multidomain.layout import layout
from multidomain.sources.files import locate

READ = schema.parse(PROJECT / "conf/base/datasets/kuairand.yml")
WORDS = {
    *("user_active_degree", "follow_user_num_range", "fans_user_num_range", "friend_user_num_range"),
    *("register_days_range", "video_type", "upload_dt", "upload_type", "tag"),
}
LOGS = [
    "log_standard_4_08_to_4_21_pure.csv",
    "log_standard_4_22_to_5_08_pure.csv",
    "log_random_4_22_to_5_08_pure.csv",
]


def read(raw: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables as the schema has them."""
    tables = sources.read(READ, locate(READ, raw), raw / "work")
    return {name: table.to_pyarrow().to_pylist() for name, table in tables.items()}


def lines(raw: Path, *patterns: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every row of these files with its number, the headers counted, value by value."""
    before = 0
    for pattern in patterns:
        for path in sorted((raw / "kuairand").glob(pattern)):
            with path.open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    before += 1
                    yield before + 1, {name: value_of(name, text) for name, text in row.items()}
            before += 1


def value_of(name: str, text: str) -> Any:
    if text == "":
        return None
    return text if name in WORDS else float(text) if name == "video_duration" else int(float(text))


def as_schema_has_it(row: dict[str, Any], columns: Any) -> dict[str, Any]:
    """A parsed row in the types of the schema."""
    made = {}
    for name, column in columns.items():
        value = row[name]
        if value is not None and column.type == "string":
            value = str(value)
        if value is not None and column.type.startswith("array"):
            value = value.split(",")
        made[name] = value
    return made


def derived(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """What the source adds to an impression."""
    since = dt.timedelta(milliseconds=row["time_ms"])
    return {
        "impression_id": number,
        "timestamp": dt.datetime(1970, 1, 1) + since,
        "hour": (dt.datetime(1970, 1, 1, 8) + since).hour,
        "is_standard": 1 - row["is_rand"],
    }


@pytest.mark.parametrize("form", ["pure", "1k", "27k"])
def test_every_value_of_every_layout_equals_a_line_by_line_parse(tmp_path: Path, form: str) -> None:
    written = kuairand.write(tmp_path / "kuairand", rows=3_000, layout=form, videos=200)
    plan, tables = layout(READ), read(tmp_path)
    logs = ["log_standard_*.csv", "log_random_*.csv"]
    expected = [as_schema_has_it(row | derived(n, row), plan.impressions) for n, row in lines(tmp_path, *logs)]
    assert tables["impressions"] == expected
    assert len(expected) == 3_000
    assert tables["users"] == [as_schema_has_it(row, plan.users) for _, row in lines(tmp_path, "user_features_*")]
    videos = [row for _, row in lines(tmp_path, "video_features_basic_*")]
    expected = [row | {"main_tag": row["tag"] and row["tag"].split(",")[0]} for row in videos]
    assert tables["items"] == [as_schema_has_it(row, plan.items) for row in expected]
    assert any(row["tag"] is None for row in videos)
    counts = {row["file"]: row["lines"] for row in tables["files"]}
    assert counts == {name: file.lines for name, file in written.items() if "statistic" not in name}


def test_columns_that_the_schema_does_not_name_are_read_too(tmp_path: Path) -> None:
    kuairand.write(tmp_path / "kuairand", rows=1_000)
    from multidomain.sources.kuairand import read as all_columns

    tables = all_columns(READ, locate(READ, tmp_path), tmp_path / "work")
    expected = [row | derived(n, row) for n, row in lines(tmp_path, "log_standard_*.csv", "log_random_*.csv")]
    assert tables["impressions"].to_pyarrow().to_pylist() == expected
    assert set(kuairand.LOG.split(",")) <= set(expected[0])
    users = [row for _, row in lines(tmp_path, "user_features_*")]
    assert tables["users"].to_pyarrow().to_pylist() == users
    assert list(users[0]) == kuairand.USERS.split(",")


HAND = {
    "log_standard_4_08_to_4_21_pure.csv": kuairand.LOG
    + "\n3,1071,20220408,1600,1649408076860,1,0,0,0,0,0,1,175045,87433,0,0,0,0,1\n"
    + "3,10,20220409,0,1649433601000,0,0,0,0,0,0,0,1385,0,0,0,0,0,14",
    "user_features_pure.csv": kuairand.USERS
    + '\n3,full_active,0,-124,1,5,"(0,10]",312,"[100,1k)",0,0,3624,730+,1,2,2,1153,4.0,0,0,31,354,3,3,2,,0.0,,,,1\n',
    "video_features_basic_pure.csv": kuairand.VIDEOS
    + '\n1071,123,NORMAL,2020-07-08,ShortImport,0.0,17200.0,720.0,1280.0,9155697141,9.0,"12,65"\n'
    + "10,441,AD,,,,,720,1280,,,\n",
}


def put(raw: Path, **changed: str) -> Path:
    """The files by hand; ``log``, ``user`` or ``video`` may be others."""
    (raw / "kuairand").mkdir(parents=True, exist_ok=True)
    for name, content in HAND.items():
        (raw / "kuairand" / name).write_text(changed.get(name.split("_")[0], content), encoding="utf-8")
    return raw


def test_a_few_lines_of_the_vendor_s_kind_are_what_they_say(tmp_path: Path) -> None:
    tables = read(put(tmp_path))
    first, second = tables["impressions"]
    assert (first["impression_id"], first["user_id"], first["video_id"], first["tab"]) == (2, "3", "1071", "1")
    assert first["timestamp"] == dt.datetime(2022, 4, 8, 8, 54, 36, 860_000)
    assert (first["hour"], second["hour"]) == (16, 0)
    assert [first[name] for name in ("is_click", "is_like", "long_view", "is_rand", "is_standard")] == [1, 0, 1, 0, 1]
    (user,) = tables["users"]
    assert (user["follow_user_num_range"], user["fans_user_num_range"]) == ("(0,10]", "[100,1k)")
    assert (user["is_live_streamer"], user["onehot_feat4"], user["onehot_feat12"]) == (-124, 4, None)
    whole, bare = tables["items"]
    assert (whole["tag"], whole["main_tag"], whole["video_duration"]) == (["12", "65"], "12", 17_200.0)
    assert (whole["music_id"], whole["music_type"], whole["visible_status"]) == ("9155697141", 9, 0)
    assert [bare[name] for name in ("tag", "main_tag", "video_duration", "music_id", "upload_type")] == [None] * 5


def test_the_random_log_may_be_missing_and_its_rows_have_a_label_of_their_own(tmp_path: Path) -> None:
    kuairand.write(tmp_path / "kuairand", rows=6_000)
    both = read(tmp_path)["impressions"]
    (tmp_path / "kuairand" / LOGS[2]).unlink()
    standard = read(tmp_path)["impressions"]
    assert standard == [row for row in both if not row["is_rand"]]
    assert 30 < len(both) - len(standard) < 200
    assert {label.name: label.where for label in READ.labels} == {
        "is_click": "is_standard",
        "is_like": "is_standard",
        "long_view": "is_standard",
        "random_click": "is_rand",
    }


def test_the_default_inputs_know_nothing_of_later_days() -> None:
    for variant in (READ.variant(), READ.variant(features="profile")):
        names = {feature.name for feature in variant.base_features}
        assert not names & {"visible_status", "upload_dt", "date", "is_like", "play_time_ms", "show_cnt"}
    hierrec = READ.variant(domain="five_tabs", split="file_order", features="hierrec")
    assert len(hierrec.base_features) + 1 == 37  # HierRec's Table 1 counts the tab
    assert not hierrec.carries_labels


GOOD = b"0,0,20220408,0,1649347250000,1,0,0,0,0,0,1,77477,77036,0,0,0,0,1"
BAD_LOG = {
    "semicolons": (GOOD.replace(b",", b";"), "has 1 columns, not 19, divided by ','"),
    "a field less": (GOOD[:-2], "has 18 columns, not 19, divided by ','"),
    "a field more": (GOOD + b",1", "has 20 columns, not 19, divided by ','"),
    "no user": (GOOD[1:], "user_id is missing"),
    "a user that is no number": (b"x" + GOOD[1:], "user_id 'x' is not a whole number"),
    "a click of 2": (GOOD.replace(b",1,0,0", b",2,0,0"), "is_click '2' is not one of 0, 1"),
    "no click": (GOOD.replace(b",1,0,0", b",,0,0"), "is_click is missing"),
    "tab 15": (GOOD[:-1] + b"15", f"tab '15' is not one of {', '.join(map(str, range(15)))}"),
    "seconds": (GOOD.replace(b"1649347250000", b"1649347250"), "time_ms '1649347250' is no millisecond of 2022"),
    "a time beyond all": (
        GOOD.replace(b"1649347250000", b"9000000000000000000"),
        "time_ms '9000000000000000000' is no millisecond of 2022",
    ),
    "a header again": (kuairand.LOG.encode(), "user_id 'user_id' is not a whole number"),
    "latin-1": (GOOD + b"\xe9", "is not UTF-8"),
    "nothing": (b"", "is empty"),
}
GOOD_USER = (
    b'999,full_active,0,-124,1,5,"(0,10]",312,"[100,1k)",0,0,3624,730+,1,2,2,1153,4,0,0,31,354,3,3,2,1,0,0,0,0,1'
)
BAD_USERS = {
    "a range without quotes": (GOOD_USER.replace(b'"(0,10]"', b"(0,10]"), "has 32 columns, not 31, divided by ','"),
    "an open quote": (GOOD_USER.replace(b'10]"', b"10]"), "has a quote that is not closed"),
    "a number in words": (GOOD_USER.replace(b",312,", b",many,"), "fans_user_num 'many' is not a whole number"),
    "no user": (GOOD_USER[3:], "user_id is missing"),
}
GOOD_VIDEO = b'999999,123,NORMAL,2020-07-08,ShortImport,0.0,17200.0,720.0,1280.0,9155697141,9.0,"12,65"'
BAD_VIDEOS = {
    "tags without quotes": (GOOD_VIDEO.replace(b'"', b""), "has 13 columns, not 12, divided by ','"),
    "a duration in words": (GOOD_VIDEO.replace(b"17200.0", b"long"), "video_duration 'long' is not a number"),
    "half a pixel": (GOOD_VIDEO.replace(b"720.0", b"720.5"), "server_width '720.5' is not a whole number"),
    "tabs": (GOOD_VIDEO.replace(b",", b"\t"), "has 1 columns, not 12, divided by ','"),
}


@pytest.mark.parametrize("crlf", [False, True], ids=["lf", "crlf"])
def test_every_hostile_line_is_set_apart_with_its_number_and_reason(tmp_path: Path, crlf: bool) -> None:
    bad = {
        LOGS[1]: [Bad(line=line, reason=reason) for line, reason in BAD_LOG.values()],
        LOGS[2]: [Bad(line=GOOD[:-2], reason="has 18 columns, not 19, divided by ','")],
        "user_features_pure.csv": [Bad(line=line, reason=reason) for line, reason in BAD_USERS.values()],
        "video_features_basic_pure.csv": [Bad(line=line, reason=reason) for line, reason in BAD_VIDEOS.values()],
    }
    written = kuairand.write(tmp_path / "kuairand", rows=3_000, bad=bad, crlf=crlf)
    tables = read(tmp_path)
    found = {(row["file"], row["line"]): row["reason"] for row in tables["rejected"]}
    assert found == {(name, line): one.reason for name, file in written.items() for line, one in file.placed}
    assert len(found) == len(BAD_LOG) + 1 + len(BAD_USERS) + len(BAD_VIDEOS)
    counts = {row["file"]: row for row in tables["files"]}
    assert all(row["rows"] + row["rejected"] == row["lines"] == written[name].lines for name, row in counts.items())
    assert len(tables["impressions"]) == sum(counts[name]["rows"] for name in LOGS) == 3_000
    assert len({row["impression_id"] for row in tables["impressions"]}) == 3_000


def test_unknown_and_repeated_keys_are_in_the_quarantine(tmp_path: Path) -> None:
    bad = {
        LOGS[0]: [Bad(line=b"77777" + GOOD[1:], reason=""), Bad(line=GOOD.replace(b"0,0,", b"0,88888,", 1), reason="")],
        "user_features_pure.csv": [Bad(line=GOOD_USER, reason=""), Bad(line=GOOD_USER, reason="")],
        "video_features_basic_pure.csv": [Bad(line=GOOD_VIDEO, reason=""), Bad(line=GOOD_VIDEO, reason="")],
    }
    written = kuairand.write(tmp_path / "kuairand", rows=3_000, bad=bad)
    data = checked(patient(READ, tmp_path), tmp_path, tmp_path / "out")
    (unknown_user, _), (unknown_video, _) = written[LOGS[0]].placed
    users, videos = (
        [line for line, _ in written[name].placed]
        for name in ("user_features_pure.csv", "video_features_basic_pure.csv")
    )
    assert quarantine(data) == {
        ("user_features_pure.csv", f"line {users[1]}"): f"user_id '999' is on line {users[0]} already",
        ("video_features_basic_pure.csv", f"line {videos[1]}"): f"video_id '999999' is on line {videos[0]} already",
        ("impressions", str(unknown_user)): "user_id is not among the valid users",
        ("impressions", str(unknown_video)): "video_id is not among the valid items",
    }
    report = data.load("validation_report")
    tables = report["tables"]
    assert (tables["impressions"]["rows"], tables["impressions"]["kept"]) == (3_002, 3_000)
    assert (tables["users"]["quarantined"], tables["items"]["quarantined"]) == (0, 0)
    assert sum(report["files"][name]["rows"] for name in LOGS) == 3_002


def test_more_bad_lines_than_the_schema_allows_stop_the_run_with_file_and_lines(tmp_path: Path) -> None:
    bad = {LOGS[1]: [Bad(line=GOOD[:-2], reason="")] * 5}
    kuairand.write(tmp_path / "kuairand", rows=3_000, bad=bad)
    with pytest.raises(DataError) as error:
        checked(READ, tmp_path, tmp_path / "out")
    for part in (LOGS[1], "5 of", "line 4 has 18 columns, not 19, divided by ','"):
        assert part in error.value.message


STOPS = {
    "no header": ("log", HAND[LOGS[0]].split("\n", 1)[1], [LOGS[0], "line 1", "is_click"]),
    "another header": ("log", HAND[LOGS[0]].replace("is_click", "click", 1), ["line 1", "'is_click' is not known"]),
    "users without a header": (
        "user",
        HAND["user_features_pure.csv"].split("\n", 1)[1],
        ["user_features_pure.csv", "line 1", "user_id"],
    ),
    "semicolons": (
        "video",
        kuairand.VIDEOS.replace(",", ";"),
        ["video_features_basic_pure.csv", "line 1", "divided by ','"],
    ),
    "a header and no rows": ("video", kuairand.VIDEOS + "\n", ["video_features_basic_pure.csv", "it is empty"]),
    "no good row": ("user", kuairand.USERS + "\n1,2\n", ["user_features_pure.csv", "line 2 has 2 columns, not 31"]),
}


@pytest.mark.parametrize(("name", "content", "said"), STOPS.values(), ids=STOPS)
def test_a_file_that_is_another_stops_the_run_with_its_line_and_what_was_expected(
    tmp_path: Path, name: str, content: str, said: list[str]
) -> None:
    put(tmp_path, **{name: content})
    with pytest.raises(DataError) as error:
        read(tmp_path)
    for part in said:
        assert part in error.value.message


def test_files_of_two_layouts_are_refused_with_their_names(tmp_path: Path) -> None:
    for form in ("pure", "1k"):
        kuairand.write(tmp_path / "kuairand", rows=1_000, layout=form)
    with pytest.raises(DataError) as error:
        read(tmp_path)
    for part in ("1k (log_standard_4_08_to_4_21_1k.csv)", "pure (log_standard_4_08_to_4_21_pure.csv)", "Keep"):
        assert part in error.value.message


def test_missing_files_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        locate(READ, tmp_path)
    for part in (
        "log_standard_*.csv",
        "user_features_*.csv",
        "video_features_basic_*.csv",
        "zenodo.org/records/10439422",
    ):
        assert part in error.value.message
    assert "log_random" not in error.value.message


def packed(folder: Path, form: str) -> None:
    """The files as the vendor packs them, and nothing beside the archive."""
    name, written = f"KuaiRand-{'Pure' if form == 'pure' else form.upper()}", folder / "unpacked"
    kuairand.write(written, rows=6_000, layout=form, users=30)
    (folder / "kuairand").mkdir()
    if form == "27k":
        with zipfile.ZipFile(folder / f"kuairand/{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in written.iterdir():
                archive.write(path, f"{name}/data/{path.name}")
        return
    with tarfile.open(folder / f"kuairand/{name}.tar.gz", "w:gz") as tar:
        for path in written.iterdir():
            tar.add(path, f"{name}/data/{path.name}")


@pytest.mark.parametrize(("form", "choice"), [
    ("pure", {}),
    ("1k", {"domain": "five_tabs", "split": "file_order", "features": "hierrec", "label": "long_view"}),
    ("27k", {"label": "is_like"}),
])  # fmt: skip
def test_the_archive_as_it_comes_is_prepared_up_to_the_tensors(
    tmp_path: Path, form: str, choice: dict[str, str]
) -> None:
    packed(tmp_path, form)
    data = prepare(READ, tmp_path, tmp_path / "out", **choice)
    rows, domains = data.load("partitioned").to_pandas(), data.load("domain_table").to_pandas()
    standard = [row for _, row in lines_of(tmp_path / "unpacked", "log_standard_*.csv")]
    tabs = {str(tab) for tab in kuairand.TABS}
    if choice.get("domain") == "five_tabs":
        standard = [row for row in standard if str(row["tab"]) in tabs]
        assert set(domains.domain) == tabs
        ids = rows.groupby("split").impression_id
        assert ids.max()["train"] < ids.min()["validation"]
        assert ids.max()["validation"] < ids.min()["test"]
    else:
        assert set(domains.domain) == {*tabs, "remainder"}
        times = rows.groupby("split").timestamp
        assert times.max()["train"] < times.min()["test"]
    assert len(rows) == len(standard)
    label = choice.get("label", "is_click")
    assert rows.label.sum() == sum(row[label] for row in standard)
    frame = data.load("training_frame").to_pandas()
    assert len(frame) == len(rows)
    if not choice.get("features"):
        assert frame.clicks_main_tag.map(lambda tags: 0 if tags is None else len(tags)).max() > 1
    assert (tmp_path / "out/encoded/inputs.json").is_file() or any((tmp_path / "out/encoded").rglob("inputs.json"))


def lines_of(folder: Path, pattern: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """:func:`lines` of files in another folder."""
    for path in sorted(folder.glob(pattern)):
        with path.open(newline="", encoding="utf-8") as stream:
            yield from (
                (0, {name: value_of(name, text) for name, text in row.items()}) for row in csv.DictReader(stream)
            )


def test_what_makes_people_click_stands_in_the_vendor_s_columns(tmp_path: Path) -> None:
    kuairand.write(tmp_path / "kuairand", rows=30_000)
    rows = pd.DataFrame([row for _, row in lines(tmp_path, "log_standard_*.csv")])
    for pattern, key in (("user_features_*", "user_id"), ("video_features_basic_*", "video_id")):
        rows = rows.merge(pd.DataFrame([row for _, row in lines(tmp_path, pattern)]), on=key)
    rows["part"] = rows.hourmin // 600
    told = [
        "tab",
        "part",
        "follow_user_num_range",
        "fans_user_num_range",
        "onehot_feat5",
        "onehot_feat2",
        "onehot_feat1",
    ]
    told += ["user_active_degree", "upload_type", "music_type", "tag", "video_id"]
    train = np.arange(len(rows)) % 5 > 0
    odds = np.zeros(len(rows))
    for name in told:  # each column alone, added up
        seen = rows[train].groupby(rows[name].astype(str)).is_click.agg(["sum", "count"])
        rate = (seen["sum"] + 10 * rows.is_click.mean()) / (seen["count"] + 10)
        odds += rows[name].astype(str).map(np.log(rate / (1 - rate))).fillna(0).to_numpy()
    assert auc(rows.is_click[~train].to_numpy(), odds[~train]) > 0.65
    assert rows[rows.is_like == 1].is_click.all()
    assert rows[rows.long_view == 1].is_click.all()
    length = rows.duration_ms.where(rows.duration_ms > 0, 30_000)
    assert ((rows.play_time_ms >= np.minimum(length, 18_000)) == (rows.long_view == 1)).mean() > 0.999
