"""Ali-CCP's files: read as an independent parse reads them, every hostile line set apart or named."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import PROJECT
from prepared import checked, patient, prepare, quarantine

from benchmarks.raw_files import Bad, ali_ccp
from multidomain import schema, sources
from multidomain.errors import DataError, SchemaError
from multidomain.layout import layout
from multidomain.tensors import EncodedSplit

READ = schema.parse(PROJECT / "conf/base/datasets/ali_ccp.yml")
LISTS = {feature.column: feature.length for feature in READ.features if feature.kind == "sequence"}
A_FEATURE = "205\x02205{}\x031.0"
INDEX = "0002654435761"


def files_in(folder: Path) -> dict[str, Path]:
    return sources.files.locate(READ, folder)


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    tables = sources.read(READ, files_in(folder), folder / "work")
    return {name: table.to_pyarrow().to_pylist() for name, table in tables.items()}


def parsed(text: str) -> dict[str, Any]:
    """One feature list, feature by feature."""
    found: dict[str, list[tuple[float, str]]] = collections.defaultdict(list)
    for feature in text.split("\x01"):
        field, rest = feature.split("\x02")
        code, value = rest.split("\x03")
        found[field].append((float(value), code))
    largest = {name: [code for _, code in sorted(found[name], key=lambda pair: -pair[0])] for name in found}
    return {name: largest[name][: LISTS[name]] if name in LISTS else largest[name][0] for name in found}


def test_every_value_equals_a_line_by_line_parse(tmp_path: Path) -> None:
    ali_ccp.write(tmp_path / "ali_ccp", rows=3_000, users=60, items=40)
    tables = read(tmp_path)
    plan = layout(READ)
    impressions = {row["impression_id"]: row for row in tables["impressions"]}
    users = {row["common_feature_index"]: row for row in tables["users"]}
    lines, splits = 0, collections.Counter[str]()
    for number, part in enumerate(("train", "test")):
        for line in (tmp_path / f"ali_ccp/common_features_{part}.csv").read_text().splitlines():
            index, _, features = line.split(",")
            expected = parsed(features)
            row = users.pop(f"{part}-{index}")
            assert {name: row[name] for name in plan.users if name != "common_feature_index"} == {
                name: expected.get(name, [] if name in LISTS else None)
                for name in plan.users
                if name != "common_feature_index"
            }
        for line in (tmp_path / f"ali_ccp/sample_skeleton_{part}.csv").read_text().splitlines():
            sample, click, conversion, index, _, features = line.split(",")
            row = impressions.pop(2 * int(sample) + number)
            expected = parsed(features) | {"click": int(click), "conversion": int(conversion)}
            expected["common_feature_index"] = f"{part}-{index}"
            assert {name: row[name] for name in expected if name in row} == {
                name: value for name, value in expected.items() if name in row
            }
            assert row["split"] == "test" if part == "test" else row["split"] in ("train", "validation")
            splits[row["split"]] += 1
            lines += 1
    assert not impressions
    assert not users
    assert lines == 3_000
    assert 100 < splits["validation"] < 200
    assert {name for name in plan.impressions if name.isdigit()} >= {"205", "301", "508", "509", "702", "853", "101"}


def test_an_items_features_are_those_of_most_of_its_rows(tmp_path: Path) -> None:
    ali_ccp.write(tmp_path / "ali_ccp", rows=2_000, users=40, items=15)
    seen: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for part in ("train", "test"):
        for line in (tmp_path / f"ali_ccp/sample_skeleton_{part}.csv").read_text().splitlines():
            features = parsed(line.split(",")[5])
            seen[features["205"]][features["206"]] += 1
    items = {row["205"]: row["206"] for row in read(tmp_path)["items"]}
    assert items == {item: counts.most_common(1)[0][0] for item, counts in seen.items()}


def sample(features: str, *, number: int = 1, sample_id: str = "90001", index: str = INDEX) -> bytes:
    return f"{sample_id},0,0,{index},{number},{features}".encode()


GOOD = A_FEATURE.format(7)
HOSTILE = {
    "a header": (b"sample_id,click,conversion,index,num,list", "sample_id 'sample_id' is not a whole number"),
    "semicolons": (b"90002;0;0;a;1;b", "has 1 columns, not 6, divided by ','"),
    "a missing field": (b"90003,0,0,a,1", "has 5 columns, not 6, divided by ','"),
    "a label of 2": (b"90004,2,0,a,1," + GOOD.encode(), "click '2' is not one of 0, 1"),
    "no index": (sample(GOOD, index=""), "common_feature_index is missing"),
    "an empty list": (sample("", number=0), "feature_list is missing"),
    "another separator": (sample("205|7|1.0"), r"feature_list holds '205|7|1.0', which is not field\x02id\x03value"),
    "no value": (
        sample("205\x027"),
        r"feature_list holds '205\x027', which is not field\x02id\x03value",
    ),
    "a value that is no number": (
        sample("205\x027\x03much"),
        r"feature_list holds '205\x027\x03much', which is not field\x02id\x03value",
    ),
    "no id": (sample("205\x02\x031.0"), r"feature_list holds '205\x02\x031.0', which is not field\x02id\x03value"),
    "an item twice": (
        sample(GOOD + "\x01" + A_FEATURE.format(8), number=2),
        "feature_list has field 205 more than once",
    ),
    "another number of features": (sample(GOOD, number=3), "feature_num says 3 features, feature_list has 1"),
    "latin-1": (b"90005,0,0,\xe9,1," + GOOD.encode(), "is not UTF-8"),
    "nothing": (b"", "is empty"),
}


@pytest.mark.parametrize("crlf", [False, True], ids=["lf", "crlf"])
def test_every_hostile_line_is_set_apart_with_its_number_and_reason(tmp_path: Path, crlf: bool) -> None:
    bad = [Bad(line=line, reason=reason) for line, reason in HOSTILE.values()]
    commons = [Bad(line=b"abc,1", reason="has 2 columns, not 3, divided by ','")]
    written = ali_ccp.write(
        tmp_path / "ali_ccp",
        rows=2_000,
        users=40,
        items=30,
        bad={"sample_skeleton_train.csv": bad, "common_features_test.csv": commons},
        crlf=crlf,
    )
    tables = read(tmp_path)
    found = {(row["file"], row["line"]): row["reason"] for row in tables["rejected"]}
    assert found == {(name, line): one.reason for name, file in written.items() for line, one in file.placed}
    assert len(found) == len(HOSTILE) + 1
    counts = {row["file"]: row for row in tables["files"]}
    assert {name: file.lines for name, file in written.items()} == {n: row["lines"] for n, row in counts.items()}
    assert all(row["rows"] + row["rejected"] == row["lines"] for row in counts.values())
    samples = [row["rows"] for name, row in counts.items() if name.startswith("sample")]
    assert len(tables["impressions"]) == sum(samples)


STOPS: dict[str, tuple[str, Callable[[bytes], bytes], list[str]]] = {
    "semicolons": ("sample_skeleton_test.csv", lambda data: data.replace(b",", b";"), ["line 1 has 1 columns, not 6"]),
    "an empty file": ("common_features_train.csv", lambda _: b"", ["empty"]),
    "the other kind of file": (
        "sample_skeleton_train.csv",
        lambda _: b"\n".join(f"i{n},1,101\x02{n}\x031.0".encode() for n in range(9)),
        ["has no rows", "line 1 has 3 columns, not 6"],
    ),
}


@pytest.mark.parametrize(("name", "change", "words"), STOPS.values(), ids=STOPS)
def test_a_file_that_is_another_stops_the_run_with_its_line_and_what_was_expected(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], words: list[str]
) -> None:
    written = ali_ccp.write(tmp_path / "ali_ccp", rows=200, users=20, items=10)[name].path
    written.write_bytes(change(written.read_bytes()))
    with pytest.raises(DataError) as error:
        read(tmp_path)
    for word in (name, *words):
        assert word in error.value.message


def test_unknown_indexes_and_indexes_and_samples_given_twice_are_in_the_quarantine(tmp_path: Path) -> None:
    features = GOOD + "\x01301\x023011\x031.0"
    bad = [
        Bad(line=sample(features, number=2, index="nobody"), reason=""),
        Bad(line=sample(features, number=2, sample_id="1"), reason=""),
    ]
    commons = [Bad(line=f"somebody,1,101\x02{person}\x031.0".encode(), reason="") for person in (7, 8)]
    written = ali_ccp.write(
        tmp_path / "ali_ccp",
        rows=6_000,
        users=60,
        items=30,
        bad={"sample_skeleton_train.csv": bad, "common_features_train.csv": commons},
    )
    (first, _), (second, _) = written["common_features_train.csv"].placed
    with pytest.raises(DataError, match=r"line \d+ common_feature_index .*: somebody,1,101\\x028\\x031.0"):
        checked(READ, tmp_path, tmp_path)
    data = checked(patient(READ, tmp_path), tmp_path, tmp_path)
    assert quarantine(data) == {
        ("common_features_train.csv", f"line {second}"): f"common_feature_index 'somebody' is on line {first} already",
        ("impressions", str(2 * 90001)): "common_feature_index is not among the valid users",
        ("impressions", "2"): "impression_id occurs more than once",
    }
    table = data.load("validation_report")["tables"]["impressions"]
    assert (table["rows"], table["kept"], table["quarantined"]) == (6_002, 5_999, 3)


def test_position_gender_and_city_make_at_most_33_domains_and_the_test_file_is_the_test_split(tmp_path: Path) -> None:
    ali_ccp.write(tmp_path / "ali_ccp", rows=12_000, users=300, items=30)
    data = prepare(READ, tmp_path, tmp_path, domain="position_gender_city")
    domains = data.load("domain_table").to_pandas()
    assert len(domains) == 33
    assert domains.domain.iloc[-1] == "remainder"
    assert int(domains.test_rows.sum()) == 6_000
    rows = data.load("partitioned").to_pandas()
    assert set(rows[rows.impression_id % 2 == 1].split) == {"test"}
    assert EncodedSplit(data.load("encoded"), "test").rows == 6_000


def test_missing_files_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        files_in(tmp_path)
    for part in ("sample_skeleton_train.csv is missing", "common_features_test.csv", "tianchi.aliyun.com/dataset/408"):
        assert part in error.value.message


def test_another_set_of_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="source ali_ccp reads sample_train, common_train, sample_test, common_test"):
        sources.read(READ, {"log": tmp_path / "log.csv"})
