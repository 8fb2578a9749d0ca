"""A log's files are brought from their addresses, each archive once; what a program cannot get is said plainly."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from web import Served, Server, serving

from multidomain import schema
from multidomain.errors import DataError, SchemaError
from multidomain.sources import fetch, files


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"shop-v1/{name}.csv", content)
    return made.getvalue()


def tarred(**members: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"shop-v1/{name}.csv")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


ZIP = zipped(log_1=b"a,b\n1,2\n", log_2=b"a,b\n3,4\n", users=b"c\n5\n")
MD5 = f"md5:{hashlib.md5(ZIP).hexdigest()}"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"shop.zip": Served(ZIP), "users.csv": Served(b"c\n5\n", kind="text/csv")}) as running:
        yield running


def the_schema(folder: Path, **raw: Any) -> schema.Schema:
    path = folder / "shop.yml"
    content = {
        "homepage": "https://example.org/shop",
        "licence": "CC BY",
        "source": "table",
        "files": raw,
        "roles": {},
        "labels": {"click": "b"},
        "domains": {"a": "a"},
        "features": {"c": {}},
    }
    path.write_text(yaml.safe_dump(content))
    return schema.parse(path)


def from_archive(server: Server, folder: Path, **more: Any) -> schema.Schema:
    one = {"fetch": server.url("shop.zip"), "checksum": MD5}
    log, users = {"path": "shop/log_*.csv", **one}, {"path": "shop/users.csv", **one}
    return the_schema(folder, log=log, users=users, more={"path": "shop/more.csv", "optional": True, **one}, **more)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shop").glob("*"))


def test_an_archive_of_several_files_is_fetched_once_under_its_own_name_and_read_in_place(
    server: Server, tmp_path: Path
) -> None:
    read = from_archive(server, tmp_path)
    found = fetch.fetch(read, tmp_path)
    archive = tmp_path / "shop/shop.zip"
    assert archive.read_bytes() == ZIP
    assert files.several(found, "log") == [archive / "shop-v1/log_1.csv", archive / "shop-v1/log_2.csv"]
    assert found["users"] == archive / "shop-v1/users.csv"
    assert "more" not in found  # it may be missing
    assert left(tmp_path) == ["shop.zip"]
    assert fetch.fetch(read, tmp_path) == found
    assert server.ranges == [None]  # once


def test_a_tar_archive_with_a_question_after_its_name_is_known_as_one(server: Server, tmp_path: Path) -> None:
    server.files["Shop%20v1.tar.gz"] = Served(tarred(users=b"c\n5\n"))
    address = f"{server.url('Shop%20v1.tar.gz')}?download=1"
    found = fetch.fetch(the_schema(tmp_path, users={"path": "shop/users.csv", "fetch": address}), tmp_path)
    assert found["users"] == tmp_path / "shop/Shop v1.tar.gz/shop-v1/users.csv"


def test_a_file_of_its_own_address_stands_at_its_path(server: Server, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"c\n5\n").hexdigest()
    server.files["file"] = server.files["users.csv"]
    read = the_schema(tmp_path, users={"path": "shop/users.csv", "fetch": server.url("file?id=3"), "sha256": sha256})
    assert fetch.fetch(read, tmp_path)["users"].read_bytes() == b"c\n5\n"
    other = the_schema(tmp_path, users={"path": "else/users.csv", "fetch": server.url("file"), "sha256": "0" * 64})
    with pytest.raises(DataError, match="is not the expected file"):
        fetch.fetch(other, tmp_path)
    assert not list((tmp_path / "else").iterdir())


def test_files_that_are_there_unpacked_are_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    for name in ("log_1.csv", "users.csv"):
        (tmp_path / "shop" / name).write_bytes(b"x\n1\n")
    found = fetch.fetch(from_archive(server, tmp_path), tmp_path)
    assert files.several(found, "log") == [tmp_path / "shop/log_1.csv"]
    assert server.asked == []


def test_an_archive_that_is_there_is_held_to_its_checksum(server: Server, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/shop.zip").write_bytes(ZIP[:-5])
    with pytest.raises(DataError) as error:
        fetch.fetch(from_archive(server, tmp_path), tmp_path)
    for part in (f"{tmp_path / 'shop/shop.zip'} is not the expected file", MD5.removeprefix("md5:"), "Delete it"):
        assert part in error.value.message
    assert server.asked == []


def test_a_wrong_checksum_leaves_nothing_and_names_address_and_place(server: Server, tmp_path: Path) -> None:
    server.files["shop.zip"] = Served(ZIP[:-1] + b"x")
    with pytest.raises(DataError) as error:
        fetch.fetch(from_archive(server, tmp_path), tmp_path)
    for part in (str(tmp_path / "shop/shop.zip"), server.url("shop.zip"), MD5.removeprefix("md5:")):
        assert part in error.value.message
    assert left(tmp_path) == []


def test_an_archive_without_a_file_that_it_should_hold_is_said(server: Server, tmp_path: Path) -> None:
    read = the_schema(tmp_path, items={"path": "shop/items.csv", "fetch": server.url("shop.zip")})
    with pytest.raises(DataError, match=r"shop\.zip holds no items\.csv \(files\.items of .*shop\.yml\)"):
        fetch.fetch(read, tmp_path)


def test_what_needs_an_account_is_said_after_everything_else_is_there(server: Server, tmp_path: Path) -> None:
    page = "https://example.org/login"
    read = from_archive(server, tmp_path, clicks={"path": "shop/clicks.csv", "address": page})
    with pytest.raises(DataError) as error:
        fetch.fetch(read, tmp_path)
    message = error.value.message
    for part in (
        "cannot be fetched by a program, because their vendor asks for an account",
        f"{tmp_path / 'shop/clicks.csv'} is missing. Download it from {page}",
        f"Put them into {tmp_path / 'shop'}",
        "CC BY",
    ):
        assert part in message
    assert "users.csv" not in message
    assert "kedro run" not in message  # it would say the same again
    assert left(tmp_path) == ["shop.zip"]
    (tmp_path / "shop/clicks.csv").write_bytes(b"1\n")
    assert "clicks" in fetch.fetch(read, tmp_path)


def test_ali_ccps_files_have_to_be_downloaded_by_a_person(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        fetch.fetch(schema.load("ali_ccp"), tmp_path)
    for name in ("sample_skeleton_train", "common_features_train", "sample_skeleton_test", "common_features_test"):
        assert f"{tmp_path / 'ali_ccp' / name}.csv is missing. Download it from https://tianchi" in error.value.message
    assert "cannot be fetched by a program" in error.value.message
    assert "account" in error.value.message


def test_a_missing_file_with_an_address_is_not_fetched_unasked_but_the_command_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = from_archive(server, tmp_path)
    with pytest.raises(DataError) as error:
        files.locate(read, tmp_path)
    for part in (
        f"no file fits {tmp_path / 'shop/log_*.csv'}. Download it from {server.url('shop.zip')} (see https://example.org",
        f"kedro run --pipeline=fetch --params=dataset=shop,raw_folder={tmp_path}\n",
    ):
        assert part in error.value.message
    assert server.asked == []
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"kedro run --pipeline=fetch --params=dataset=shop\n"):
        files.locate(read, tmp_path / "01_raw")


def test_a_damaged_archive_is_one_message(server: Server, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/other.zip").write_bytes(ZIP[: len(ZIP) // 2])
    with pytest.raises(DataError, match=r"other\.zip cannot be read .*delete it"):
        files.locate(from_archive(server, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (
            {"path": "shop/a_*.csv", "fetch": "https://x/a"},
            {"path": "b"},
            "gives one file, and shop/a_*.csv",
        ),
        (
            {"path": "shop/a.csv", "fetch": "https://x/a.zip", "checksum": MD5},
            {"path": "shop/b.csv", "fetch": "https://x/a.zip"},
            "files.other: one gets a.zip too, but from another address or with another checksum",
        ),
        (
            {"path": "shop/a.csv", "fetch": "https://x/a.zip"},
            {"path": "shop/b.csv", "fetch": "https://y/a.zip"},
            "files.other: one gets a.zip too",
        ),
    ],
)
def test_entries_that_contradict_each_other_are_refused(
    tmp_path: Path, one: dict[str, str], other: dict[str, str], words: str
) -> None:
    with pytest.raises(SchemaError) as error:
        fetch.downloads(the_schema(tmp_path, one=one, other=other), tmp_path)
    assert words in error.value.message
