"""A download goes on where it was cut, and its name stands for the whole file or for nothing."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web import Served, Server, serving

from multidomain.errors import DataError
from multidomain.io import download as module
from multidomain.io.download import download

CONTENT = random.Random(7).randbytes(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"log.zip": Served(CONTENT)}) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "raw/log.zip"


def refused(server: Server, place: Path, **options: str) -> str:
    """The message of a download that does not come to its end."""
    with pytest.raises(DataError) as error:
        download(server.url("log.zip"), place, **options)
    assert not place.exists()
    return error.value.message


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir())


def test_a_file_arrives_whole_under_its_name_and_leaves_nothing_else(server: Server, place: Path) -> None:
    download(server.url("log.zip"), place, checksum=MD5)
    assert place.read_bytes() == CONTENT
    assert left(place) == ["log.zip"]
    assert server.ranges == [None]


@pytest.mark.parametrize("checksum", [f"md5:{MD5[4:].upper()}", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"])
def test_both_kinds_of_checksum_are_known_in_any_case(server: Server, place: Path, checksum: str) -> None:
    download(server.url("log.zip"), place, checksum=checksum)
    assert place.read_bytes() == CONTENT


def test_a_connection_cut_half_way_goes_on_at_that_byte(
    server: Server, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.files["log.zip"].cuts = [150_000, 60_000]
    with caplog.at_level(logging.WARNING):
        download(server.url("log.zip"), place, checksum=MD5)
    assert place.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=150000-", "bytes=210000-"]
    assert "cut after 150,000 of 300,000 bytes" in caplog.text


def test_a_server_that_gives_no_more_ends_the_run_and_the_next_one_goes_on(server: Server, place: Path) -> None:
    server.files["log.zip"].cuts = [150_000, *[0] * module.TRIES]
    said = refused(server, place)
    for part in (server.url("log.zip"), "150,000 of 300,000 bytes are kept in", f"{place}.part", f"put it at {place}"):
        assert part in said
    assert left(place) == ["log.zip.part", "log.zip.part.json"]
    server.asked.clear()
    server.files["log.zip"].cuts.clear()
    download(server.url("log.zip"), place, checksum=MD5)
    assert server.ranges == ["bytes=150000-"]
    assert left(place) == ["log.zip"]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 40_000), max_size=6), st.booleans(), st.sampled_from([None, '"1"', 'W/"1"']))
def test_wherever_it_is_cut_the_file_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ranges: bool, tag: str | None
) -> None:
    place = tmp_path_factory.mktemp("cuts") / "log.zip"
    cuts = cuts if ranges else sorted(cuts)  # each answer brings more, so that it is not given up
    with serving({"log.zip": Served(CONTENT, cuts=cuts, ranges=ranges, tag=tag)}) as server:
        download(server.url("log.zip"), place, checksum=MD5)
    assert place.read_bytes() == CONTENT


RUN = """
import sys, pathlib
from multidomain.io.download import download
download(sys.argv[1], pathlib.Path(sys.argv[2]))
"""


def test_a_killed_run_is_gone_on_with_after_the_last_byte_it_wrote(server: Server, place: Path) -> None:
    server.files["log.zip"].pause = 0.3
    running = subprocess.Popen(
        [sys.executable, "-c", RUN, server.url("log.zip"), str(place)], stderr=subprocess.DEVNULL
    )
    part, until = place.with_name("log.zip.part"), time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    size = part.stat().st_size
    assert 0 < size < len(CONTENT)
    assert not place.exists()
    server.files["log.zip"].pause = 0
    download(server.url("log.zip"), place, checksum=MD5)
    assert place.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={size}-"]


def test_a_run_killed_before_the_whole_got_its_name_asks_for_nothing(server: Server, place: Path) -> None:
    place.parent.mkdir()
    place.with_name("log.zip.part").write_bytes(CONTENT)
    note = f'{{"address": "{server.url("log.zip")}", "mark": null, "total": {len(CONTENT)}}}'
    place.with_name("log.zip.part.json").write_text(note)
    download(server.url("log.zip"), place, checksum=MD5)
    assert left(place) == ["log.zip"]
    assert server.asked == []


def test_a_server_without_ranges_starts_again_and_the_file_is_whole(
    server: Server, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.files["log.zip"].ranges = False
    server.files["log.zip"].cuts = [150_000]
    download(server.url("log.zip"), place, checksum=MD5)
    assert place.read_bytes() == CONTENT
    assert "the server starts from the beginning" in caplog.text


@pytest.mark.parametrize("tag", ['"2"', None])
def test_bytes_of_two_versions_of_a_file_are_never_joined(server: Server, place: Path, tag: str | None) -> None:
    server.files["log.zip"].cuts = [150_000, *[0] * module.TRIES]
    server.files["log.zip"].tag = tag and '"1"'
    refused(server, place)
    other = random.Random(8).randbytes(len(CONTENT) + 1)
    server.files["log.zip"] = Served(other, tag=tag)
    download(server.url("log.zip"), place)
    assert place.read_bytes() == other


def test_a_file_that_has_become_shorter_than_what_there_is_is_fetched_anew(server: Server, place: Path) -> None:
    server.files["log.zip"].cuts = [150_000, *[0] * module.TRIES]
    server.files["log.zip"].tag = None
    refused(server, place)
    server.files["log.zip"] = Served(CONTENT[:100], tag=None)
    download(server.url("log.zip"), place)
    assert place.read_bytes() == CONTENT[:100]


def test_the_beginning_of_another_address_is_not_gone_on_with(server: Server, place: Path) -> None:
    server.files["log.zip"].cuts = [150_000, *[0] * module.TRIES]
    refused(server, place)
    server.files["other.zip"] = Served(b"other", tag=None)
    download(server.url("other.zip"), place)
    assert place.read_bytes() == b"other"


def test_a_wrong_checksum_is_said_with_both_sums_and_nothing_is_kept(server: Server, place: Path) -> None:
    said = refused(server, place, checksum=f"md5:{'0' * 32}")
    for part in (str(place), server.url("log.zip"), "0" * 32, MD5.removeprefix("md5:"), "300,000 bytes", "not kept"):
        assert part in said
    assert left(place) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "404 Not Found"), (401, "asks for an account"), (403, "asks for an account"), (410, "410 Gone")],
)
def test_a_server_that_refuses_is_not_asked_again(server: Server, place: Path, status: int, words: str) -> None:
    server.files["log.zip"].statuses = [status] * 2
    said = refused(server, place)
    for part in (words, server.url("log.zip"), str(place)):
        assert part in said
    assert left(place) == []
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_and_given_up_after_some_tries(server: Server, place: Path) -> None:
    server.files["log.zip"].statuses = [503, 429]
    download(server.url("log.zip"), place, checksum=MD5)
    assert len(server.asked) == 3
    place.unlink()
    server.files["log.zip"].statuses = [503] * 10
    assert "503 Service Unavailable" in refused(server, place)
    assert len(server.asked) == 3 + module.TRIES
    assert left(place) == []


def test_a_page_in_the_place_of_the_file_is_refused(server: Server, place: Path) -> None:
    server.files["log.zip"] = Served(b"<html>Please sign in</html>", kind="text/html; charset=utf-8")
    assert "a page instead of the file: it may ask for an account" in refused(server, place)
    assert left(place) == []


def test_an_empty_file_is_refused(server: Server, place: Path) -> None:
    server.files["log.zip"] = Served(b"")
    assert "an empty file" in refused(server, place)
    assert left(place) == []


def test_a_server_that_is_not_there_is_one_message_at_once(place: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    said = refused(Server(address=address, files={}), place)
    for part in (f"{address}/log.zip could not be fetched", "cannot be reached", f"put it at {place}"):
        assert part in said
    assert left(place) == []


def test_a_file_of_unknown_size_arrives(server: Server, place: Path) -> None:
    server.files["log.zip"].length = False
    download(server.url("log.zip"), place, checksum=MD5)
    assert place.read_bytes() == CONTENT


def test_what_cannot_be_an_address_is_one_message(place: Path) -> None:
    with pytest.raises(DataError, match="that is no address"):
        download("http://local host/log.zip", place)


def test_a_disk_without_room_is_said_before_anything_is_written(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(total=10, used=10, free=1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    assert "needs 300,000 more bytes" in refused(server, place)
    assert left(place) == []


def test_a_folder_that_cannot_be_written_is_one_message(server: Server, tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        download(server.url("log.zip"), tmp_path / "raw/log.zip")


def test_two_runs_do_not_write_into_one_file(server: Server, place: Path) -> None:
    place.parent.mkdir()
    with place.with_name("log.zip.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "by another run just now" in refused(server, place)
    assert server.asked == []
