"""Tables on disk: what is written, and what need not be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from multidomain.io import ParquetTable

ROWS = pa.table({"a": [1, 2, 3]})


def table(path: Path) -> ParquetTable:
    return ParquetTable(filepath=str(path))


def rows(path: Path) -> list[int]:
    return table(path).load().to_pyarrow()["a"].to_pylist()


def test_a_table_passed_on_as_it_was_loaded_is_not_written_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    table(first).save(ROWS)
    table(second).save(table(first).load())
    assert first.samefile(second)
    table(first).save(pa.table({"a": [9]}))
    assert (rows(first), rows(second)) == ([9], [1, 2, 3])


def test_a_table_that_was_worked_on_is_written(tmp_path: Path) -> None:
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    table(first).save(ROWS)
    loaded = table(first).load()
    for changed, expected in ((loaded.filter(loaded.a > 1), [2, 3]), (loaded.select("a").limit(1), [1])):
        table(second).save(changed)
        assert not first.samefile(second)
        assert rows(second) == expected


def test_where_files_cannot_have_two_names_the_bytes_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    table(first).save(ROWS)
    table(second).save(table(first).load())
    assert not first.samefile(second)
    assert first.read_bytes() == second.read_bytes()
