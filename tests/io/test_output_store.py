"""Outputs in an object store: taken whole or not at all, from a process's memory and from an S3-compatible server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_server import S3Server

from multidomain.errors import ConfigurationError, DataError
from multidomain.io.atomic import replacing
from multidomain.io.output_store import OutputStore

OUTPUT = Path("04_feature/shop/age/views")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server.reached(monkeypatch) as started:
        yield started


@pytest.fixture(params=["memory", "s3"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a store with nothing in it."""
    with s3_server.bucket(request) as found:
        yield f"{found}/outputs/of ours"


@pytest.fixture
def machine(address: str, tmp_path: Path) -> Callable[[str], OutputStore]:
    """The same store, seen from the data folder of one machine."""
    return lambda name: OutputStore(address=address, data=tmp_path / name)


def write(path: Path, content: dict[str, bytes] | bytes) -> Path:
    with replacing(path) as temporary:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            temporary.mkdir()
            for name, held in content.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(held)
    return path


def read(path: Path) -> dict[str, bytes] | bytes:
    if path.is_file():
        return path.read_bytes()
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def test_what_one_machine_puts_another_takes_file_or_folder_and_their_successors(machine):
    one, two = machine("one"), machine("two")
    contents = [
        b"a file",
        {"part-0.parquet": b"x" * 70_000, "deep/er/é.json": b"{}", "none": b""},
        {"part-0.parquet": b"y"},  # fewer files than before
        b"",
        {},
    ]
    for turn, content in enumerate(contents):
        one.put(write(one.data / OUTPUT, content), f"digest {turn}")
        assert not two.bring(two.data / OUTPUT, "another digest")
        assert two.bring(two.data / OUTPUT, f"digest {turn}")
        assert read(two.data / OUTPUT) == content
        assert (two.data / OUTPUT).is_dir() == isinstance(content, dict)
    assert [path.name for path in (two.data / OUTPUT).parent.iterdir()] == [OUTPUT.name]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.from_regex(r"[a-z0-9_.=é-]{1,12}x", fullmatch=True), st.binary(max_size=50), max_size=4),
    )
)
def test_any_output_comes_back_as_it_was(tmp_path, content):
    store = OutputStore(address="memory://any/where", data=tmp_path)
    place = write(tmp_path / OUTPUT, content)
    store.put(place, "of this")
    write(place, b"something else")
    assert store.bring(place, "of this")
    assert read(place) == content


def test_an_output_that_was_not_put_to_its_end_is_not_taken(machine, monkeypatch):
    one, two = machine("one"), machine("two")
    one.put(write(one.data / OUTPUT, {"a": b"old", "b": b"old"}), "old")
    inner, fs = one._fs.put_file, one._fs

    def dying(local, there, **more):
        if there.endswith("/b"):
            raise ConnectionResetError("the line is cut")
        return inner(local, there, **more)

    write(one.data / OUTPUT, {"a": b"new", "b": b"new"})
    with monkeypatch.context() as patch:
        patch.setattr(fs, "put_file", dying)
        with pytest.raises(DataError, match=r"could not be written \(ConnectionReset"):
            one.put(one.data / OUTPUT, "new")
    assert not two.bring(two.data / OUTPUT, "old")
    assert not two.bring(two.data / OUTPUT, "new")
    assert not (two.data / OUTPUT).exists()
    assert read(one.data / OUTPUT) == {"a": b"new", "b": b"new"}
    one.put(one.data / OUTPUT, "new")
    assert two.bring(two.data / OUTPUT, "new")
    assert read(two.data / OUTPUT) == {"a": b"new", "b": b"new"}


@pytest.mark.parametrize("then", ["another", "the same again", "gone"])
def test_an_output_that_is_replaced_while_it_is_taken_is_not_taken(machine, monkeypatch, then):
    one, two = machine("one"), machine("two")
    place = two.data / OUTPUT
    one.put(write(one.data / OUTPUT, {"a": b"1", "b": b"1"}), "first")
    write(place, b"what was here")
    inner, asked = two._fs.get_file, []

    def meanwhile(there, local, **more):
        asked.append(there)
        if len(asked) == 1:
            if then == "gone":
                one.forget(variant(one))
            else:
                content = {"a": b"2", "b": b"2"} if then == "another" else {"a": b"1", "b": b"1", "c": b"1"}
                one.put(write(one.data / OUTPUT, content), "second" if then == "another" else "first")
        return inner(there, local, **more)

    monkeypatch.setattr(two._fs, "get_file", meanwhile)
    assert not two.bring(place, "first")
    assert read(place) == b"what was here"


def variant(store: OutputStore) -> Path:
    return (store.data / OUTPUT).parent


def test_what_is_forgotten_is_gone_and_nothing_beside_it(machine):
    store = machine("one")
    other = Path("04_feature/shop/age-2/views")
    for place in (OUTPUT, other):
        store.put(write(store.data / place, {"a": b"1", "b": b"2"}), "made")
    assert store.count(variant(store)) == 3  # two files and a mark
    store.forget(variant(store))
    assert store.count(variant(store)) == 0
    assert store.mark(store.data / OUTPUT) is None
    assert store.mark(store.data / other) is not None
    store.forget(variant(store))  # of nothing


def test_a_mark_that_cannot_be_read_does_not_count(machine):
    store = machine("one")
    place = write(store.data / OUTPUT, b"x")
    store.put(place, "made")
    mark = store._mark_of(place)
    assert json.loads(store._fs.cat_file(mark)) == {"digest": "made", "files": {"": 1}}
    store._fs.pipe_file(mark, b'{"digest": "ma')
    assert store.mark(place) is None
    assert not store.bring(place, "made")


def test_more_than_there_is_room_for_is_not_begun(machine, monkeypatch):
    store = machine("one")
    place = write(store.data / OUTPUT, b"x" * 1000)
    store.put(place, "made")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 999}))
    with pytest.raises(DataError, match=r"views has 1,000 bytes, and .* has 999 free\. .*larger disk"):
        store.bring(place, "made")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/mnt/outputs", r"output_store is '/mnt/outputs': expected .*s3://bucket/prefix, or null"),
        ("s3:///x", r"output_store is 's3:///x': expected s3://bucket/prefix"),
        ("https://shop/x", r"https:// is no object store.*Allowed: abfs, az, gcs, gs, memory, s3"),
        ("s33://shop/x", r"did you mean 's3"),
    ],
)
def test_an_address_that_is_none_is_told(address, said, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        OutputStore(address=address, data=tmp_path)


def test_a_store_that_nobody_answers_for_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    store = OutputStore(address="s3://shop/outputs", data=tmp_path)
    with pytest.raises(
        DataError, match=r"s3://shop/outputs \(output_store\) could not be written .*NoSuchBucket|exist"
    ):
        store.put(write(tmp_path / OUTPUT, b"x"), "made")
    server.stop()
    with pytest.raises(DataError, match=r"could not be read .*--only-missing-outputs"):
        store.mark(tmp_path / OUTPUT)
