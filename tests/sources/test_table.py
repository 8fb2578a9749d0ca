"""A log in one CSV or Parquet table needs a schema and nothing else; no value is lost silently."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain import schema, sources
from multidomain.errors import ConfigurationError, DataError, SchemaError

LOG: dict[str, Any] = {
    "source": "table",
    "files": {"log": "log.csv"},
    "roles": {"user": "who", "item": "what", "timestamp": "at"},
    "labels": {"click": "clicked"},
    "domains": {"page": {"column": "page"}},
    "features": {
        "who": {},
        "what": {},
        "years": {"owner": "user", "type": "int"},
        "city": {"owner": "user"},
        "price": {"owner": "item", "kind": "numerical"},
        "tags": {"owner": "item", "kind": "sequence", "separator": "|"},
        "slot": {"type": "int"},
    },
}
CSV = """who,what,at,clicked,page,years,city,price,tags,slot,unused
u1,i1,1700000000,1,home,30,Bern,1.5,red|blue,1,x
u1,i2,1700000060,0,search,31,,2,,2,x
u2,i1,1700000120.5,0,"home, sweet",,Basel,1.5,red|blue,,x
u1,i2,2023-11-14T22:16:00Z,1,home,30,Bern,2.0,green,3,x
"""


def the_schema(folder: Path, **changed: Any) -> schema.Schema:
    path = folder / "shop.yml"
    path.write_text(yaml.safe_dump({**LOG, **changed}, sort_keys=False))
    return schema.parse(path)


def read(folder: Path, content: str | pa.Table, **changed: Any) -> dict[str, list[dict[str, Any]]]:
    made = the_schema(folder, **changed)
    if isinstance(content, str):
        path = folder / "log.csv"
        path.write_text(content)
    else:
        path = folder / "log.parquet"
        pq.write_table(content, path)
    return {name: table.to_pyarrow().to_pylist() for name, table in sources.read(made, {"log": path}).items()}


def test_a_csv_file_becomes_typed_impressions_users_and_items(tmp_path: Path) -> None:
    tables = read(tmp_path, CSV)
    at = dt.datetime(2023, 11, 14, 22, 13, 20)
    assert tables["impressions"] == [
        {"impression_id": 0, "who": "u1", "what": "i1", "at": at, "clicked": 1, "slot": 1, "page": "home"},
        {"impression_id": 1, "who": "u1", "what": "i2", "at": at + dt.timedelta(minutes=1), "clicked": 0, "slot": 2,
         "page": "search"},
        {"impression_id": 2, "who": "u2", "what": "i1", "at": at + dt.timedelta(minutes=2, milliseconds=500),
         "clicked": 0, "slot": None, "page": "home, sweet"},
        {"impression_id": 3, "who": "u1", "what": "i2", "at": at.replace(minute=16, second=0), "clicked": 1, "slot": 3,
         "page": "home"},
    ]  # fmt: skip
    assert tables["users"] == [
        {"who": "u1", "years": 30, "city": "Bern"},
        {"who": "u2", "years": None, "city": "Basel"},
    ]
    assert tables["items"] == [
        {"what": "i1", "price": 1.5, "tags": ["red", "blue"]},
        {"what": "i2", "price": 2.0, "tags": ["green"]},
    ]


def test_a_user_whose_rows_disagree_gets_the_most_frequent_value_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="multidomain"):
        tables = read(tmp_path, CSV)
    assert tables["users"][0]["years"] == 30  # 30, 31, 30
    (said,) = [record.getMessage() for record in caplog.records]
    assert "1 of 1 users have rows that disagree on 'years' (1 rows differ)" in said


def test_a_tie_between_values_goes_to_the_smallest_whatever_the_order(tmp_path: Path) -> None:
    head, *rows = CSV.splitlines()
    three = [rows[0], rows[1], rows[0].replace(",30,", ",29,")]
    for order in (three, three[::-1]):
        assert read(tmp_path, "\n".join([head, *order]))["users"][0]["years"] == 29


def test_text_that_is_no_number_stops_with_column_rows_and_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(
            tmp_path, CSV.replace("u1,i2,1700000060,0,search,31,", "u1,i2,soon,0,search,NA,").replace("30,Bern", "n,x")
        )
    message = error.value.message
    assert "column 'years' (rule: type): 3 of 4 rows do not hold whole numbers" in message
    assert "'n' (2 rows), 'NA' (1 rows)" in message
    assert "column 'at' (rule: type): 1 of 4 rows do not hold times, e.g. 'soon' (1 rows)" in message
    assert "features.years" in message
    assert "shop.yml" in message


@pytest.mark.parametrize(
    ("column", "values", "wanted", "good"),
    [
        ("slot", [1.0, 2.0, None, float("nan")], [1, 2, None, None], True),
        ("slot", [1.5, 2.0, 3.0, 4.0], None, False),
        ("slot", ["1", "2.0", "", None], [1, 2, None, None], True),
        ("slot", ["1", "2.5", "3", "4"], None, False),
        ("slot", [2**60, -(2**60), 0, 1], [2**60, -(2**60), 0, 1], True),
        ("slot", [1e300, 1.0, 2.0, 3.0], None, False),
        ("slot", [True, False, None, True], [1, 0, None, 1], True),
        ("clicked", [True, False, True, True], [1, 0, 1, 1], True),
        ("clicked", ["True", "false", "1", "0"], [1, 0, 1, 0], True),
        ("clicked", [0.0, 1.0, 2.0, None], [0, 1, 2, None], True),  # 2 is a bad row, not a bad type
        ("clicked", [0.5, 1.0, 1.0, 1.0], None, False),
        ("clicked", [0, 1, 1, 1000], None, False),
        ("who", [12.0, 13.0, None, float("nan")], ["12", "13", None, None], True),
        ("who", [12, 13, 14, None], ["12", "13", "14", None], True),
        ("who", ["a", "", None, " b"], ["a", None, None, " b"], True),
        ("page", [1, 2, 3, None], ["1", "2", "3", None], True),
    ],
)
def test_values_are_converted_whole_or_the_run_stops(
    tmp_path: Path, column: str, values: list[Any], wanted: list[Any] | None, good: bool
) -> None:
    base = {"who": ["u"] * 4, "what": ["i"] * 4, "at": [1700000000] * 4, "clicked": [1] * 4, "page": ["p"] * 4}
    base |= {"years": [1] * 4, "city": ["c"] * 4, "price": [1.0] * 4, "tags": ["x"] * 4, "slot": [1] * 4}
    table = pa.table({**base, column: values})
    if good:
        assert [row[column] for row in read(tmp_path, table)["impressions"]] == wanted
    else:
        with pytest.raises(DataError, match=f"column '{column}' \\(rule: type\\): 1 of 4 rows"):
            read(tmp_path, table)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1700000000] * 2, pa.int64()),
        pa.array([1700000000000] * 2, pa.int64()),
        pa.array([1700000000000000] * 2, pa.int64()),
        pa.array([1700000000.0] * 2, pa.float64()),
        pa.array(["2023-11-14 22:13:20", "2023-11-14T23:13:20+01:00"]),
        pa.array(["1700000000", "1700000000000"]),
        pa.array([dt.datetime(2023, 11, 14, 22, 13, 20)] * 2, pa.timestamp("ns")),
        pa.array([dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)] * 2, pa.timestamp("us", "Europe/Zurich")),
    ],
)
def test_times_in_every_form_are_the_same_moment_in_utc(tmp_path: Path, times: pa.Array) -> None:
    simple = {"who": {}, "what": {}}
    table = pa.table({"who": ["u"] * 2, "what": ["i"] * 2, "at": times, "clicked": [1, 0], "page": ["p"] * 2})
    rows = read(tmp_path, table, features=simple)["impressions"]
    assert [row["at"] for row in rows] == [dt.datetime(2023, 11, 14, 22, 13, 20)] * 2


def test_lists_may_be_lists_already_and_hold_numbers(tmp_path: Path) -> None:
    features = {"sizes": {"kind": "sequence", "type": "int", "separator": ","}, "slot": {}}
    base = {"who": ["u"] * 4, "what": ["i"] * 4, "at": [1] * 4, "clicked": [1] * 4, "page": ["p"] * 4, "slot": [1] * 4}
    lists = [[1, 2], [], None, [3, None]]
    found = read(tmp_path, pa.table({**base, "sizes": lists}), features=features)["impressions"]
    assert [row["sizes"] for row in found] == [[1, 2], [], None, [3]]
    text = ["1, 2", "", None, "3,"]
    found = read(tmp_path, pa.table({**base, "sizes": text}), features=features)["impressions"]
    assert [row["sizes"] for row in found] == [[1, 2], None, None, [3]]
    with pytest.raises(DataError, match="column 'sizes' \\(rule: type\\): 1 of 4 rows"):
        read(tmp_path, pa.table({**base, "sizes": ["1,2", "a,3", "4", None]}), features=features)
    del features["sizes"]["separator"]
    with pytest.raises(DataError, match=r"column 'sizes' is text.*say where it is cut"):
        read(tmp_path, pa.table({**base, "sizes": text}), features=features)


def test_an_unknown_column_names_the_file_the_near_match_and_what_is_there(tmp_path: Path) -> None:
    features = {**LOG["features"], "town": {"column": "citty", "owner": "user"}}
    with pytest.raises(DataError) as error:
        read(tmp_path, CSV, features=features)
    assert str(tmp_path / "log.csv") in error.value.message
    assert "features.town: 'citty' is not known; did you mean 'city'?" in error.value.message
    assert "page" in error.value.message


def test_a_damaged_or_odd_file_is_one_clear_message(tmp_path: Path) -> None:
    made = the_schema(tmp_path)
    whole = pa.table({name: [str(i) for i in range(5000)] for name in CSV.splitlines()[0].split(",")})
    path = tmp_path / "log.parquet"
    pq.write_table(whole, path)
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"no parquet", content[:100] + bytes(200) + content[300:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"cannot be read"):
            sources.read(made, {"log": path})
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, CSV + "u1,i1\n" + 'u2,"i\n' + "x,y,z,1,2,3,4,5,6,7,8,9,10,11,12\n" * 3)
    with pytest.raises(DataError, match="has no rows"):
        read(tmp_path, CSV.splitlines()[0] + "\n")
    with pytest.raises(DataError, match="a table is a file ending in"):
        sources.read(made, {"log": tmp_path / "log.xlsx"})


def in_parts(folder: Path, ending: str, parts: list[Any]) -> list[dict[str, Any]]:
    """The impressions of a log whose parts are CSV texts or Arrow tables."""
    for number, part in enumerate(parts):
        path = folder / f"log/day={number}/part-0{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(part) if isinstance(part, str) else pq.write_table(part, path)
    made = the_schema(folder, files={"log": "log/day=*/part-*"})
    return sources.read(made, sources.files.locate(made, folder))["impressions"].to_pyarrow().to_pylist()


def test_a_table_in_parts_is_the_table_of_all_their_rows_in_order(tmp_path: Path) -> None:
    header, *lines = CSV.splitlines()
    whole = read(tmp_path, CSV)["impressions"]
    texts = ["\n".join([header, *some]) + "\n" for some in (lines[:1], lines[1:3], lines[3:])]
    (tmp_path / "text").mkdir()
    assert in_parts(tmp_path / "text", ".csv", texts) == whole
    tables = [pa.Table.from_pandas(pd.read_csv(_text(text), dtype=str), preserve_index=False) for text in texts]
    (tmp_path / "arrow").mkdir()
    shuffled = tables[1].select(sorted(tables[1].column_names))  # Parquet's columns have names
    assert in_parts(tmp_path / "arrow", ".parquet", [tables[0], shuffled, tables[2]]) == whole


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_column_that_the_parts_lack_is_taken_from_their_folders_and_no_other(tmp_path: Path, ending: str) -> None:
    for number in (0, 1):
        path = tmp_path / f"log/day=2026-11-2{number}/page=folder/part-0{ending}"
        path.parent.mkdir(parents=True)
        table = pd.read_csv(_text(CSV), dtype=str)
        table.to_csv(path, index=False) if ending == ".csv" else table.to_parquet(path, index=False)
    features = {**LOG["features"], "day": {}}
    made = the_schema(tmp_path, files={"log": "log/day=*/*/part-*"}, features=features)
    found = sources.read(made, sources.files.locate(made, tmp_path))["impressions"].to_pandas()
    assert found.day.tolist() == ["2026-11-20"] * 4 + ["2026-11-21"] * 4
    made = the_schema(tmp_path, files={"log": "log/day=*/*/part-*"})
    found = sources.read(made, sources.files.locate(made, tmp_path))["impressions"].to_pandas()
    assert found.page.tolist() == ["home", "search", "home, sweet", "home"] * 2  # the files have that one


def test_parts_of_different_columns_or_types_are_refused_with_both(tmp_path: Path) -> None:
    header, first, *_ = CSV.splitlines()
    other = header.replace("who,what", "what,who")
    with pytest.raises(DataError, match=r"(?s)day=1/part-0\.csv and .*day=0/part-0\.csv are parts of one table"):
        in_parts(tmp_path, ".csv", [f"{header}\n{first}\n", f"{other}\n{first}\n"])
    whole = pa.table({name: ["1"] for name in header.split(",")})
    rounded = whole.set_column(whole.column_names.index("price"), "price", pa.array([1]))
    exact = whole.set_column(whole.column_names.index("price"), "price", pa.array([1.5]))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=r"(?s)are parts of one table.*INT64.*DOUBLE|DOUBLE.*INT64"):
        in_parts(tmp_path / "one", ".parquet", [rounded, exact])  # 1.5 would become 2
    unused = whole.set_column(whole.column_names.index("unused"), "unused", pa.array([1]))
    assert len(in_parts(tmp_path / "two", ".parquet", [whole, unused])) == 2


def test_the_impression_s_number_can_come_from_a_column(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(pd.read_csv(_text(CSV)).assign(at=1, event=["a", "b", "c", "d"], order=[7, 8, 9, 9]))
    texts = read(tmp_path, table, roles={**LOG["roles"], "impression": "event"})["impressions"]
    assert [row["impression_id"] for row in texts] == ["a", "b", "c", "d"]
    numbers = read(tmp_path, table, roles={**LOG["roles"], "impression": "order"})["impressions"]
    assert [row["impression_id"] for row in numbers] == [7, 8, 9, 9]


def _text(content: str) -> Any:
    import io

    return io.StringIO(content)


def test_a_log_without_users_items_and_time_has_impressions_alone(tmp_path: Path) -> None:
    tables = read(tmp_path, CSV, roles={}, features={"slot": {}, "city": {}})
    assert list(tables["impressions"][0]) == ["impression_id", "clicked", "slot", "city", "page"]
    assert (tables["users"], tables["items"]) == ([], [])


def test_one_column_cannot_have_two_types(tmp_path: Path) -> None:
    for features, said in (
        (
            {"a": {"column": "slot", "type": "int"}, "b": {"column": "slot"}},
            "features.b: column 'slot' is read as text",
        ),
        (
            {"who": {"type": "int"}},
            "features.who: column 'who' is read as whole numbers here but as text by roles.user",
        ),
        ({"leak": {"column": "clicked"}}, "features.leak: column 'clicked' is read as text here but as a 0/1 label"),
    ):
        with pytest.raises(SchemaError, match=said):
            sources.read(the_schema(tmp_path, features=features), {"log": tmp_path / "log.csv"})
    domains = {"years": {"column": "years", "bins": [25]}}
    features = {"years": {"owner": "user"}}
    with pytest.raises(SchemaError, match=r"domains.years.bins: bins are edges of a number, but features.years reads"):
        sources.read(the_schema(tmp_path, domains=domains, features=features), {"log": tmp_path / "log.csv"})


def test_a_binned_domain_column_that_is_no_feature_is_read_as_a_number(tmp_path: Path) -> None:
    domains = {"years": {"column": "years", "bins": [25]}}
    rows = read(tmp_path, CSV, domains=domains, features={"slot": {}})["impressions"]
    assert [row["years"] for row in rows] == [30.0, 31.0, None, 30.0]


def test_an_unknown_source_names_those_there_are(tmp_path: Path) -> None:
    assert {"movielens", "table"} <= set(sources.names())
    with pytest.raises(SchemaError, match=r"source: 'tabel' is not known; did you mean 'table'\? Allowed: .*movielens"):
        sources.read(the_schema(tmp_path, source="tabel"), {})


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_a_share_is_above_zero_and_at_most_one(tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigurationError, match="sample_share"):
        sources.sample(the_schema(tmp_path), {}, share)


@settings(max_examples=6, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(0, 3))), min_size=1, max_size=60
    )
)
def test_the_usual_value_is_the_most_frequent_then_the_smallest(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int | None]]
) -> None:
    folder = tmp_path_factory.mktemp("mode")
    n = len(rows)
    table = pa.table(
        {
            "who": [who for who, _ in rows],
            "what": ["i"] * n,
            "at": [1] * n,
            "clicked": [1] * n,
            "page": ["p"] * n,
            "years": pa.array([years for _, years in rows], pa.int64()),
        }
    )
    found = {
        row["who"]: row["years"]
        for row in read(folder, table, features={"years": {"owner": "user", "type": "int"}})["users"]
    }
    for who in {who for who, _ in rows}:
        values = [years for name, years in rows if name == who and years is not None]
        assert found[who] == (min(values, key=lambda v: (-values.count(v), v)) if values else None)
