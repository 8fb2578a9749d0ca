"""Delimited text: every line is a row or set apart with its reason, whatever the slices and wherever a run stopped."""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.errors import DataError
from multidomain.io import connection
from multidomain.sources.text import Field, Form, Parsed, archives, parse, parsing, together

CLICKS = Form(
    columns={
        "user": Field(),
        "at": Field(type="timestamp"),
        "price": Field(type="float64", nullable=True),
        "click": Field(type="int8", allowed=("0", "1")),
    }
)
PLAIN = Form(columns={"a": Field(type="int64"), "b": Field(nullable=True)}, header=False)


def read(tmp_path: Path, content: bytes, form: Form, name: str = "log.csv") -> Parsed:
    path = tmp_path / name
    path.write_bytes(content)
    return parse(path, form, tmp_path / "work")


def rows(parsed: Parsed) -> list[dict[str, Any]]:
    return parsed.table().order_by("line").to_pyarrow().to_pylist()


def rejects(parsed: Parsed) -> list[tuple[int, str, str]]:
    found = parsed.rejects().order_by("line").to_pyarrow().to_pylist()
    return [(row["line"], row["reason"], row["text"]) for row in found]


HOSTILE = [
    (b"", "is empty"),
    (b"u1,1700000000,1,1,7", "has 5 columns, not 4, divided by ','"),
    (b"u1;1700000000;1;1", "has 1 columns, not 4, divided by ','"),
    (b"u1,1700000000,1", "has 3 columns, not 4, divided by ','"),
    (b",1700000000,1,1", "user is missing"),
    (b"u1,yesterday,1,1", "at 'yesterday' is not a time"),
    (b"u1,1700000000,cheap,1", "price 'cheap' is not a number"),
    (b"u1,1700000000,1,2", "click '2' is not one of 0, 1"),
    (b"u1,1700000000,1,", "click is missing"),
    (b"u\xe9,1700000000,1,1", "is not UTF-8"),
    (b"user,at,price,click", "at 'at' is not a time"),
]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_each_bad_line_is_set_apart_with_its_number_its_reason_and_its_text(tmp_path: Path, end: bytes) -> None:
    good = b"u1,1700000000,,0"
    lines = [b"user,at,price,click", good]
    for bad, _ in HOSTILE:
        lines += [bad, good]
    parsed = read(tmp_path, end.join(lines), CLICKS)
    text = [bad.decode("utf-8", "backslashreplace") for bad, _ in HOSTILE]
    assert rejects(parsed) == [
        (3 + 2 * i, reason, shown) for i, ((_, reason), shown) in enumerate(zip(HOSTILE, text, strict=True))
    ]
    assert [row["line"] for row in rows(parsed)] == [2 + 2 * i for i in range(len(HOSTILE) + 1)]
    assert (parsed.lines, parsed.rows, parsed.rejected) == (2 * len(HOSTILE) + 1, len(HOSTILE) + 1, len(HOSTILE))


def test_columns_may_stand_in_any_order_beside_others_and_a_mark_before_the_first(tmp_path: Path) -> None:
    parsed = read(tmp_path, b"\xef\xbb\xbfclick,more,price,at,user\n1,x,2.5,1700000000,u1\n", CLICKS)
    (row,) = rows(parsed)
    assert (row["user"], row["price"], row["click"], row["line"]) == ("u1", 2.5, 1, 2)


def test_a_header_without_a_column_stops_the_run_with_file_line_and_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, b"user,att,price,click\nu1,1700000000,1,1\n", CLICKS)
    for part in ("log.csv", "line 1", "user, at, price, click", "'at' is not known; did you mean 'att'"):
        assert part in error.value.message


def test_a_file_without_a_row_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is empty"):
        read(tmp_path, b"user,at,price,click\n", CLICKS)
    with pytest.raises(DataError, match="line 1 a 'x' is not a whole number"):
        read(tmp_path, b"x,y\n", PLAIN)


def test_quoted_values_may_hold_the_delimiter_and_quotes_that_do_not_close_are_set_apart(tmp_path: Path) -> None:
    form = Form(columns={"tag": Field(), "n": Field(type="int64")}, quotes=True)
    parsed = read(tmp_path, b'tag,n\n"1,2",3\n"x""y",4\n"open,5\nplain,6\n', form)
    assert [(row["tag"], row["n"]) for row in rows(parsed)] == [("1,2", 3), ('x"y', 4), ("plain", 6)]
    assert rejects(parsed) == [(4, "has a quote that is not closed", '"open,5')]


def test_two_characters_may_divide_columns_and_latin_1_is_read_as_such(tmp_path: Path) -> None:
    form = Form(columns={"n": Field(type="int64"), "title": Field()}, delimiter="::", header=False, encoding="latin-1")
    parsed = read(tmp_path, "1::Misérables, Les (1995)\n2::a:b\n3::x::y\n".encode("latin-1"), form)
    assert [row["title"] for row in rows(parsed)] == ["Misérables, Les (1995)", "a:b"]
    assert rejects(parsed) == [(3, "has 3 columns, not 2, divided by '::'", "3::x::y")]


def test_a_lone_carriage_return_ends_no_line(tmp_path: Path) -> None:
    parsed = read(tmp_path, b"1,a\rb\n2,c\r\n", PLAIN)
    assert [(row["line"], row["b"]) for row in rows(parsed)] == [(1, "a b"), (2, "c")]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=6)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(CELL, min_size=1, max_size=3), min_size=1, max_size=30), st.integers(1, 40))
def test_rows_and_rejected_lines_are_all_lines_whatever_the_slices(tmp_path_factory, lines, size) -> None:
    """Held to reading line by line."""
    folder = tmp_path_factory.mktemp("lines")
    content = "\n".join(["1,first", *(",".join(line) for line in lines)]) + "\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "SLICE", size)
        parsed = read(folder, content.encode(), PLAIN)
    expected = []
    for number, line in enumerate(content.split("\n")[:-1], start=1):
        cells = line.split(",")
        if len(cells) == 2 and cells[0].strip().lstrip("+-").isascii() and _whole(cells[0]):
            expected.append((number, int(float(cells[0])), cells[1] or None))
    assert [(row["line"], row["a"], row["b"]) for row in rows(parsed)] == expected
    apart = [line for line, *_ in rejects(parsed)]
    assert sorted(apart + [line for line, *_ in expected]) == list(range(1, len(lines) + 2))


def _whole(text: str) -> bool:
    try:
        return float(text) == int(float(text)) and "_" not in text
    except (ValueError, OverflowError):
        return False


def test_a_run_that_was_stopped_goes_on_after_the_last_whole_slice_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "SLICE", 64)
    content = b"".join(b"%d,%s\n" % (i, b"bad,line" if i % 7 == 0 else b"x" * (i % 11)) for i in range(200))
    whole = read(tmp_path, content, PLAIN)
    before = {path.name: path.read_bytes() for path in whole.folder.iterdir()}
    assert len(before) > 30
    changed = {path.name: path.stat().st_mtime_ns for path in whole.folder.iterdir()}
    for path in sorted(whole.folder.iterdir())[18:]:  # slices 6 and on
        path.unlink()
    (whole.folder / "00006.rows.parquet").write_bytes(before["00003.rows.parquet"])  # killed before its counts were
    (whole.folder / ".00007.rows.parquet.1-abc.tmp").write_text("half")
    again = parse(whole.path, PLAIN, tmp_path / "work")
    assert again == whole
    assert {path.name: path.read_bytes() for path in again.folder.glob("0*")} == before
    kept = {path.name for path in again.folder.iterdir() if path.stat().st_mtime_ns == changed.get(path.name)}
    assert len(kept) >= 18  # whole slices were not read again


def test_another_version_of_a_file_is_read_anew(tmp_path: Path) -> None:
    first = read(tmp_path, b"1,a\n", PLAIN)
    second = read(tmp_path, b"2,b\n3,c\n", PLAIN)
    assert not first.folder.exists()
    assert [row["a"] for row in rows(second)] == [2, 3]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_file_in_an_archive_is_read_in_place_and_a_stopped_run_goes_on(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "SLICE", 64)
    content = b"".join(b"%d,%d\n" % (i, i * i) for i in range(100))
    archive = tmp_path / f"log.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("logs/readme.txt", "hello")
            packed.writestr("logs/log.csv", content)
    else:
        with tarfile.open(archive, "w:gz") as packed_tar:
            for name, data in (("./logs/readme.txt", b"hello"), ("./logs/log.csv", content)):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                packed_tar.addfile(entry, io.BytesIO(data))
    path = archive / "logs/log.csv"
    assert path in archives.members(archive)
    parsed = parse(path, PLAIN, tmp_path / "work")
    assert [row["a"] for row in rows(parsed)] == list(range(100))
    for left in sorted(parsed.folder.glob("*.json"))[5:]:
        left.unlink()
    assert rows(parse(path, PLAIN, tmp_path / "work")) == rows(parsed)


def test_a_damaged_archive_is_one_clear_message(tmp_path: Path) -> None:
    archive = tmp_path / "log.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        data = os.urandom(100_000).hex().encode()
        entry = tarfile.TarInfo("log.csv")
        entry.size = len(data)
        packed.addfile(entry, io.BytesIO(data))
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(DataError, match="Is the archive whole"):
        parse(archive / "log.csv", PLAIN, tmp_path / "work")


def test_a_file_without_lines_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "SLICE", 64)
    monkeypatch.setattr(parsing, "LINE_LIMIT", 1 << 20)
    with pytest.raises(DataError, match="a line of more than 1 MiB"):
        read(tmp_path, b"1,a\n" + b"x" * (2 << 20), PLAIN)


def test_what_several_files_say_is_one_table_each(tmp_path: Path) -> None:
    said = together([read(tmp_path, b"1,a\nx,b\n", PLAIN), read(tmp_path, b"2,c\n", PLAIN, "other.csv")])
    assert said["files"].to_pyarrow().to_pylist() == [
        {"file": "log.csv", "lines": 2, "rows": 1, "rejected": 1},
        {"file": "other.csv", "lines": 1, "rows": 1, "rejected": 0},
    ]
    (line,) = said["rejected"].to_pyarrow().to_pylist()
    assert line == {"file": "log.csv", "line": 2, "reason": "a 'x' is not a whole number", "text": "x,b"}


def test_the_engine_keeps_no_slice_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "SLICE", 64)
    engine = connection().con
    known = "select count(*) from duckdb_views() where not internal"
    before = engine.sql(known).fetchall()
    assert read(tmp_path, b"".join(b"%d,x\n" % i for i in range(300)), PLAIN).rows == 300
    assert engine.sql(known).fetchall() == before


def test_the_first_line_of_a_key_stays_and_reading_again_gives_the_same(tmp_path: Path) -> None:
    form = dataclasses.replace(PLAIN, key="a")
    for _ in range(2):
        parsed = read(tmp_path, b"1,a\n2,b\n1,a\nx,y\n3,c\n2,d\n1,e\n", form)
        assert rows(parsed) == [
            {"a": 1, "b": "a", "line": 1}, {"a": 2, "b": "b", "line": 2}, {"a": 3, "b": "c", "line": 5},
        ]  # fmt: skip
        rejected = parsed.rejects().to_pyarrow().to_pylist()
        assert [(row["line"], row["reason"], row["text"]) for row in rejected] == [
            (3, "a '1' is on line 1 already", "1,a"),
            (4, "a 'x' is not a whole number", "x,y"),
            (6, "a '2' is on line 2 already", "2,d"),
            (7, "a '1' is on line 1 already", "1,e"),
        ]
        assert (parsed.lines, parsed.rows, parsed.rejected) == (7, 3, 4)
