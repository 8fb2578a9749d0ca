"""Raw logs in object storage: the same tables as from local files, each object copied once and never half."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
import s3_server
import yaml
from s3_server import S3Server

from multidomain import schema, sources
from multidomain.errors import ConfigurationError, DataError, SchemaError
from multidomain.pipelines.fetch.nodes import fetch_files
from multidomain.pipelines.ingest.nodes import locate_files
from multidomain.resolvers import local
from multidomain.sources import files, objects

PARTS = {
    "day=2026-11-21/part-0.parquet": range(700),
    "day=2026-11-21/part-1.parquet": range(700, 1000),
    "day=2026-11-22/part-0.parquet": range(1000, 1300),
}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, and no configuration of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def server(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server.reached(monkeypatch) as started:
        yield started


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty bucket: within this process, and of a server."""
    with s3_server.bucket(request) as address:
        yield address


def put(address: str, content: bytes | str) -> None:
    fs, path = fsspec.url_to_fs(address, use_listings_cache=False)
    fs.pipe_file(path, content.encode() if isinstance(content, str) else content)


def take_away(address: str) -> None:
    fs, path = fsspec.url_to_fs(address, use_listings_cache=False)
    fs.rm_file(path)


def rows(numbers: range) -> pd.DataFrame:
    made = pd.DataFrame({"row": list(numbers)})
    made["who"], made["what"] = "u" + (made.row % 17).astype(str), made.row % 5
    made["clicked"] = (made.row % 3 == 0).astype("int64")
    return made


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def the_schema(folder: Path, name: str = "shop", **entries: Any) -> schema.Schema:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "source": "table",
        "files": entries or {"log": "clicks/day=*/part-*.parquet"},
        "roles": {"user": "who", "item": "what"},
        "labels": {"click": "clicked"},
        "domains": {"what": "what"},
        "features": {"who": {}, "what": {}, "row": {"kind": "numerical", "type": "int"}},
    }
    (folder / f"{name}.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    return schema.parse(folder / f"{name}.yml")


def filled(store: str, **more: str) -> str:
    """A bucket with the parts of a log in it, and things that are none of its business."""
    for name, numbers in PARTS.items():
        put(f"{store}/logs/clicks/{name}", parquet(rows(numbers)))
    put(f"{store}/logs/clicks2/part-9.parquet", "none of the log")
    put(f"{store}/logs/clicks/day=2026-11-22/_SUCCESS", "x")
    for name, content in more.items():
        put(f"{store}/logs/{name}.csv", content)
    return f"{store}/logs"


def tables(read: schema.Schema, found: dict[str, Path], folder: Path) -> dict[str, pd.DataFrame]:
    made = sources.read(read, found, folder)
    return {
        name: made[name].execute().sort_values(list(made[name].columns)[:1], ignore_index=True)
        for name in ("impressions", "users", "items")
    }


def copied(data: Path) -> list[str]:
    """Every file of the data folder that is no note."""
    below = data / "01_raw/objects"
    found = (path.relative_to(below).as_posix() for path in below.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.startswith(".versions/"))


# --- the same as from local files ----------------------------------------------------------------------------------


def test_a_log_in_a_bucket_gives_the_rows_of_the_same_local_files(store: str, tmp_path: Path, data: Path) -> None:
    for name, numbers in PARTS.items():
        place = tmp_path / "raw/clicks" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(parquet(rows(numbers)))
    (tmp_path / "raw/all.parquet").write_bytes(parquet(rows(range(1300))))
    read = the_schema(tmp_path)
    here = tables(read, locate_files(read, str(tmp_path / "raw")), tmp_path)
    whole = the_schema(tmp_path, name="whole", log="all.parquet")
    one = tables(whole, locate_files(whole, str(tmp_path / "raw")), tmp_path)
    found = locate_files(read, filled(store))
    there = tables(read, found, tmp_path)
    for name, table in here.items():
        pd.testing.assert_frame_equal(table, there[name])
        pd.testing.assert_frame_equal(table, one[name])
    assert there["impressions"].row.tolist() == list(range(1300))  # numbered in the order of the parts
    assert list(found) == [f"log/{part}" for part in PARTS]
    scheme = store.split("://")[0]
    assert copied(data) == [f"{scheme}/shop/logs/clicks/{part}" for part in PARTS]


def test_files_given_as_file_address_are_read_in_place(tmp_path: Path, data: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/log.csv").write_text("who,what,clicked,row\na,1,1,1\n")
    read = the_schema(tmp_path, log="log.csv")
    assert locate_files(read, (tmp_path / "raw").as_uri()) == {"log": tmp_path / "raw/log.csv"}
    assert copied(data) == []


def test_one_entry_may_lie_in_a_store_while_the_raw_folder_is_local(store: str, tmp_path: Path, data: Path) -> None:
    put(f"{store}/a/log.csv", "who,what,clicked,row\na,1,1,1\n")
    read = the_schema(tmp_path, log=f"{store}/a/log.csv", more={"path": "more.csv", "optional": True})
    place = data / "01_raw/objects" / store.replace("://", "/") / "a/log.csv"
    assert locate_files(read, str(tmp_path)) == {"log": place}
    fetch_files(read, str(tmp_path))  # the pipeline of that name leaves it in the store, and copies it
    assert place.read_text().startswith("who,what")


def test_an_archive_in_a_store_is_read_where_its_copy_lies(store: str, tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("v1/log_1.csv", "a\n1\n")
    put(f"{store}/shop/v1.zip", made.getvalue())
    (found,) = files.locate(the_schema(tmp_path, log="shop/log_*.csv"), store).values()
    assert found.as_posix().endswith("shop/v1.zip/v1/log_1.csv")


# --- when an object is copied --------------------------------------------------------------------------------------


def test_unchanged_objects_are_copied_once_and_a_changed_one_again(
    server: S3Server, tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_bucket("shop")
    read, raw = the_schema(tmp_path), filled("s3://shop")
    found = locate_files(read, raw)
    assert sorted(server.copies()) == [f"shop/logs/clicks/{part}" for part in PARTS]
    times = {path: path.stat().st_mtime_ns for path in found.values()}
    server.asked.clear()
    assert locate_files(read, raw) == found
    assert server.copies() == []
    assert {path: path.stat().st_mtime_ns for path in found.values()} == times
    other = "day=2026-11-21/part-1.parquet"
    put(f"{raw}/clicks/{other}", parquet(rows(range(700, 1000)).assign(clicked=1)))
    server.asked.clear()
    again = locate_files(read, raw)
    assert server.copies() == [f"shop/logs/clicks/{other}"]
    assert pd.read_parquet(again[f"log/{other}"]).clicked.sum() == 300


def put_bucket(name: str) -> None:
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(name)


def test_a_copy_is_kept_until_it_is_altered_or_deleted_and_then_brought_again(store: str, tmp_path: Path) -> None:
    put(f"{store}/log.csv", "a,b\n1,2\n")
    read = the_schema(tmp_path, log="log.csv")
    (path,) = files.locate(read, store).values()
    before = path.stat().st_mtime_ns
    files.locate(read, store)
    files.locate(the_schema(tmp_path, log="*.csv"), store)  # the same object, found otherwise
    assert path.stat().st_mtime_ns == before
    path.write_text("cut")
    assert files.locate(read, store)["log"].read_text() == "a,b\n1,2\n"
    path.unlink()
    assert files.locate(read, store)["log"].read_text() == "a,b\n1,2\n"


def test_an_object_that_has_gone_is_left_out_and_said(
    store: str, tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read, raw = the_schema(tmp_path), filled(store)
    locate_files(read, raw)
    gone = "day=2026-11-22/part-0.parquet"
    take_away(f"{raw}/clicks/{gone}")
    assert list(locate_files(read, raw)) == [f"log/{part}" for part in PARTS if part != gone]
    assert f"{raw}/clicks/{gone} is no longer in the store" in caplog.text
    assert not any(gone in path for path in copied(data))


def test_an_object_that_changes_while_it_is_copied_is_copied_again(
    server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_bucket("shop")
    put("s3://shop/log.csv", "a,b\n1,2\n")

    def change(request: str) -> None:
        if request == "GET /shop/log.csv" and len(server.copies()) == 1:  # after it was listed, before it is read
            put("s3://shop/log.csv", "a,b\n3,4\n")  # of the same size

    server.before = change
    (path,) = files.locate(the_schema(tmp_path, log="log.csv"), "s3://shop").values()
    assert path.read_text() == "a,b\n3,4\n"
    assert "has changed while it was copied" in caplog.text
    server.asked.clear()
    files.locate(the_schema(tmp_path, log="log.csv"), "s3://shop")
    assert server.copies() == []


def test_an_object_that_never_stays_the_same_is_an_error_and_leaves_no_copy(
    server: S3Server, tmp_path: Path, data: Path
) -> None:
    put_bucket("shop")
    put("s3://shop/log.csv", "0")

    def change(request: str) -> None:
        if request == "GET /shop/log.csv":
            put("s3://shop/log.csv", str(len(server.asked)))

    server.before = change
    with pytest.raises(DataError, match=r"s3://shop/log\.csv changes while it is copied \(3 times\)"):
        files.locate(the_schema(tmp_path, log="log.csv"), "s3://shop")
    assert copied(data) == []


# --- when it does not go well --------------------------------------------------------------------------------------


def test_a_kill_while_copying_leaves_nothing_half_written(server: S3Server, tmp_path: Path, data: Path) -> None:
    put_bucket("shop")
    content = os.urandom(300_000)
    put("s3://shop/log.parquet", content)
    server.pause.set()
    program = "from multidomain.sources import objects as o; o.bring(o.stored('s3://shop', 'log.parquet'))"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    place = data / "01_raw/objects/s3/shop"
    until = time.monotonic() + 60
    while not (left := [path for path in place.glob(".log.parquet.*.tmp") if path.stat().st_size]):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    server.pause.clear()
    assert 0 < left[0].stat().st_size < len(content)
    assert not (place / "log.parquet").exists()
    (path,) = files.locate(the_schema(tmp_path, log="log.parquet"), "s3://shop").values()
    assert path.read_bytes() == content
    assert copied(data) == ["s3/shop/log.parquet"]


def test_a_store_that_goes_away_in_the_middle_keeps_what_is_whole_and_the_next_run_brings_the_rest(
    server: S3Server, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_bucket("shop")
    monkeypatch.setattr(objects.remote, "AT_ONCE", 1)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)  # five by default, ever longer apart
    for number in range(3):
        put(f"s3://shop/logs/log_{number}.csv", f"a,b\n{number},2\n")
    read = the_schema(tmp_path, log="logs/log_*.csv")

    def refuse(request: str) -> None:
        if request == "GET /shop/logs/log_1.csv":
            server.stop()  # this one is answered still

    server.before = refuse
    with pytest.raises(DataError, match=r"(?s)log_1\.csv: the store could not be reached.*Run again when it can be"):
        files.locate(read, "s3://shop")
    assert copied(data) == ["s3/shop/logs/log_0.csv"]
    server.before, server.asked = lambda request: None, []
    server.start()
    assert len(files.locate(read, "s3://shop")) == 3
    assert server.copies() == ["shop/logs/log_1.csv", "shop/logs/log_2.csv"]


def test_a_store_that_is_not_there_is_said_with_where_the_copies_are(
    server: S3Server, tmp_path: Path, data: Path
) -> None:
    put_bucket("shop")
    put("s3://shop/log.csv", "a,b\n1,2\n")
    read = the_schema(tmp_path, log="log.csv")
    files.locate(read, "s3://shop")
    server.stop()
    folder = data / "01_raw/objects/s3/shop"
    with pytest.raises(DataError, match=rf"could not be reached.*(?s:.*)copies lie in {folder}: as raw_folder"):
        files.locate(read, "s3://shop")
    assert locate_files(read, str(folder)) == {"log": folder / "log.csv"}


def test_what_fits_no_object_is_said_with_what_is_there(store: str, tmp_path: Path) -> None:
    raw = filled(store)
    with pytest.raises(DataError, match=rf"no object fits {raw}/clicks/log\*\.csv\. Below {raw}/clicks there are 4: "):
        files.locate(the_schema(tmp_path, log="clicks/log*.csv"), raw)
    with pytest.raises(DataError, match=rf"no object fits {raw}/none/log\.csv\. Below {raw}/none there is none"):
        files.locate(the_schema(tmp_path, log="none/log.csv"), raw)
    optional = the_schema(tmp_path, log={"path": "none/log.csv", "optional": True})
    assert files.locate(optional, raw) == {}


@pytest.mark.parametrize("path", ["log.csv", "*.csv", "clicks/*.csv"])
def test_a_bucket_that_is_not_there_is_named(server: S3Server, tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match=r"There is no bucket s3://nowhere"):
        files.locate(the_schema(tmp_path, log=path), "s3://nowhere")


def test_missing_credentials_are_said_with_where_they_are_taken_from(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DataError, match=r"may not be read: Unable to locate credentials.*\$AWS_PROFILE"):
        files.locate(the_schema(tmp_path, log="log.csv"), "s3://shop")


def test_credentials_that_are_refused_are_said(server: S3Server, tmp_path: Path) -> None:
    put_bucket("shop")
    put("s3://shop/clicks/log.csv", "a\n")
    server.post("reset-auth", b"0")  # from now on moto looks at who asks
    try:
        for path in ("clicks/log.csv", "clicks/*.csv"):
            with pytest.raises(DataError, match=rf"s3://shop/{path} may not be read".replace("*", r"\*")):
                files.locate(the_schema(tmp_path, log=path), "s3://shop")
    finally:
        server.post("reset-auth", b"inf")


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from multidomain.sources import objects as o\n"
        "try: o.bring(o.stored('s3://shop', 'log.csv'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "ConfigurationError" in done.stdout
    assert "pip install 'multidomain[s3]'" in done.stdout


@pytest.mark.parametrize(
    ("raw", "path", "said"),
    [
        ("s33://shop", "log.csv", r"s33:// is no object store: 's33' is not known; did you mean 's3'\?"),
        ("https://example.org", "log.csv", r"gives no list.*'fetch'"),
        ("s3://", "log.csv", r"names no files in a bucket"),
        ("s3://shop/../x", "log.csv", r"names no files in a bucket"),
        ("s3://shop/day=*", "log.csv", r"holds a wildcard: those belong into 'path'"),
    ],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, raw: str, path: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        files.locate(the_schema(tmp_path, log=path), raw)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": "log.csv", "fetch": "s3://shop/log.csv"}, r"files\.log\.fetch: .*s3://bucket/name\) is its 'path'"),
        ({"path": "https://example.org/log.csv"}, r"files\.log\.path: .*given as 'fetch'"),
        ({"path": "s3://shop/log.csv", "fetch": "log==1"}, r"files\.log\.fetch: .*leave one of both out"),
    ],
)
def test_an_entry_with_its_address_in_the_wrong_key_is_refused(tmp_path: Path, entry: Any, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        the_schema(tmp_path, log=entry)


@pytest.mark.parametrize(("content", "said"), [("other", "found    sha256"), ("", "is empty")])
def test_an_object_that_is_not_the_expected_one_is_said_with_its_address(
    store: str, tmp_path: Path, content: str, said: str
) -> None:
    put(f"{store}/log.csv", content)
    read = the_schema(tmp_path, log={"path": "log.csv", "sha256": "0" * 64})
    with pytest.raises(DataError, match=rf"(?s){said}.*copy of {store}/log\.csv: put a whole file there"):
        files.locate(read, store)


def test_a_data_folder_in_a_store_is_refused_with_what_may_lie_there() -> None:
    with pytest.raises(
        ConfigurationError, match=r"data is s3://b: .*Raw logs may lie in an object store.*raw_folder.*output_store"
    ):
        local("s3://b", name="data")


# --- what a changed object makes stale -----------------------------------------------------------------------------


def test_the_stamp_of_a_log_is_that_of_its_objects_and_changes_with_them(store: str, tmp_path: Path) -> None:
    raw = filled(store)
    source = objects.stored(raw, "clicks/day=*/part-*.parquet")
    assert source is not None
    before = objects.stamp(source)
    assert [one[0] for one in before] == [f"clicks/{part}" for part in PARTS]
    locate_files(the_schema(tmp_path), raw)
    put(f"{raw}/clicks2/part-9.parquet", "none of the log, and another")
    assert objects.stamp(source) == before
    put(f"{raw}/clicks/day=2026-11-22/part-0.parquet", parquet(rows(range(9))))
    assert objects.stamp(source) != before


def test_without_the_store_what_was_made_from_its_copies_stays_up_to_date(
    server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_bucket("shop")
    raw = filled("s3://shop")
    source = objects.stored(raw, "clicks/day=*/part-*.parquet")
    assert source is not None
    before = objects.stamp(source)
    locate_files(the_schema(tmp_path), raw)
    server.stop()
    assert objects.stamp(source) == before
    assert "could not be reached" in caplog.text
    elsewhere = objects.stored("s3://other", "log.csv")
    assert elsewhere is not None
    with pytest.raises(DataError, match="could not be reached"):  # it may have changed, for all that is known
        objects.stamp(elsewhere)
