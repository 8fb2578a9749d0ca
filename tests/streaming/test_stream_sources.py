"""Where the rows of a stream come from: files that arrive, and a Redis Stream with a consumer group."""

from __future__ import annotations

import itertools
import json
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_stream import arrive, encoder, learnt, log, same, source, stream

from multidomain.errors import ConfigurationError, DataError
from multidomain.streaming.redis_stream import RedisSource, connect, publish
from multidomain.streaming.rows import wanted
from multidomain.streaming.source import Bad, Chunk, ticks


def ids(ticks_or_chunks) -> list[int]:
    return [i for one in ticks_or_chunks for i in one.rows.column("impression_id").to_pylist()]


# --- a folder ----------------------------------------------------------------------------------------------------


def test_files_are_read_in_the_order_of_their_names(tmp_path):
    arrive(tmp_path, log(100), [30, 30])
    assert ids(source(tmp_path).chunks(None)) == list(range(100))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 130), stop=st.integers(1, 120))
def test_reading_goes_on_after_any_position(tmp_path, size, stop):
    if not (tmp_path / "_SUCCESS").exists():
        arrive(tmp_path, log(120), [30, 1, 40])
    first = [tick for tick, _ in zip(ticks(source(tmp_path).chunks(None), size), range(-(-stop // size)), strict=False)]
    rest = ids(source(tmp_path).chunks(first[-1].position))
    assert ids(first) + rest == list(range(120))


def test_a_file_without_its_name_does_not_count_and_one_that_comes_later_does(tmp_path):
    arrive(tmp_path, log(50), [], end=False)
    (tmp_path / ".0001.parquet.tmp").write_bytes(b"half a file")
    (tmp_path / "_0002.parquet").write_bytes(b"half a file")
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(ids(source(tmp_path).chunks(None))))
    reader.start()
    arrive(tmp_path, log(20, first=50), [])
    reader.join(20)
    assert seen == list(range(70))


def test_a_stream_that_is_silent_for_long_enough_has_ended(tmp_path):
    arrive(tmp_path, log(10), [], end=False)
    assert ids(source(tmp_path, idle_seconds=0.05).chunks(None)) == list(range(10))


def test_a_file_that_comes_before_one_that_was_read_is_refused_by_name(tmp_path):
    arrive(tmp_path, log(10), [], end=False)
    chunks = source(tmp_path).chunks(None)
    next(chunks)
    pq.write_table(log(5), tmp_path / "00.parquet")
    with pytest.raises(DataError, match=r"00\.parquet came after 0000\.parquet, which was read before it"):
        next(chunks)


def test_a_column_that_is_missing_or_of_another_type_is_named_with_its_file(tmp_path):
    pq.write_table(log(10).drop_columns(["price", "genre"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet lacks the columns 'genre', 'price'\. The rows of a stream are"):
        next(source(tmp_path).chunks(None))
    table = log(10)
    words = pa.array(["ten"] * 10)
    pq.write_table(table.set_column(table.column_names.index("price"), "price", words), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column 'price' must hold double, it holds string"):
        next(source(tmp_path).chunks(None))


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def no_text(rows: int) -> pa.Array:
    """Strings, the second of which is none."""
    return pa.array([b"u1", b"\xff", *[b"u2"] * (rows - 2)], pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        (
            "price",
            pa.array(["1", "ten"] * 5),
            "must hold double, it holds string; 5 of 10 rows do not fit, such as 'ten'",
        ),
        ("label", pa.array([0] * 9 + [300]), "must hold int8, it holds int64; 1 of 10 rows do not fit, such as 300"),
        ("price", no_text(10), r"must hold double, it holds string; 10 of 10 rows do not fit, such as 'u1'"),
        (
            "tags",
            pa.array([[("x", 1)]] * 10, pa.map_(pa.string(), pa.int64())),
            "10 of 10 rows do not fit, such as [('x', 1)]",
        ),
        (
            "user",
            pa.array([b"\xff"] * 10),
            r"must hold string, it holds binary; 10 of 10 rows do not fit, such as b'\xff'",
        ),
    ],
)
def test_values_that_cannot_be_are_told_with_column_count_and_one_of_them(tmp_path, name, values, said):
    pq.write_table(with_column(log(10), name, values), tmp_path / "a.parquet")
    with pytest.raises(DataError) as raised:
        next(source(tmp_path).chunks(None))
    assert f"a.parquet: column '{name}' " in str(raised.value)
    assert said in str(raised.value)


def test_a_column_that_is_there_twice_is_named_with_its_file(tmp_path):
    table = log(10)
    pq.write_table(table.append_column("user", table.column("user")), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has the column 'user' more than once"):
        next(source(tmp_path).chunks(None))


def test_rows_whose_strings_are_no_text_are_kept_apart(tmp_path):
    words = pa.ListArray.from_arrays(pa.array(range(31), pa.int32()), no_text(30))
    (tmp_path / "in").mkdir()
    pq.write_table(with_column(log(30), "user_id", no_text(30)), tmp_path / "in/0000.parquet")
    pq.write_table(with_column(log(30, first=30), "tags", words), tmp_path / "in/0001.parquet")
    (tmp_path / "in/_SUCCESS").touch()
    made = stream(tmp_path / "kept")
    made.run(source(tmp_path / "in"))
    assert (made.progress.rows, made.progress.rejected) == (58, 2)
    rejected = pq.read_table(next((tmp_path / "kept/rejected").glob("*"))).to_pydict()
    assert rejected["reason"] == ["user_id is no UTF-8 text", "tags is no UTF-8 text"]
    assert rejected["position"] == ['["0000.parquet", 1]', '["0001.parquet", 1]']
    assert all(r"\xff" in row for row in rejected["row"])


def test_a_damaged_file_and_a_missing_folder_are_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read: .* write it under a name that begins with '\.'"):
        next(source(tmp_path).chunks(None))
    with pytest.raises(ConfigurationError, match=r"stream\.source\.path: there is no folder .*nowhere"):
        source(tmp_path / "nowhere")


def test_files_that_were_taken_away_after_they_were_read_are_not_missed(tmp_path):
    arrive(tmp_path, log(90), [30, 30])
    (tmp_path / "0000.parquet").unlink()
    assert ids(source(tmp_path).chunks(["0000.parquet", 29])) == list(range(30, 90))


def test_bad_rows_belong_to_the_rows_that_follow_them_and_positions_to_the_last_of_all():
    found = told(ticks([chunk(0, "gbgb"), chunk(4, "bggg"), chunk(8, "bb")], 2))
    assert found == [([0, 2], 2, [1]), ([5, 6], 6, [3, 4]), ([7], 9, [8, 9])]


def test_bad_rows_that_are_too_many_to_wait_for_good_ones_come_without_them():
    made = list(ticks([chunk(0, "gbbb"), chunk(4, "bbbbgg"), chunk(10, "bgb")], 3, most_bad=3))
    assert told(made) == [([0], 3, [1, 2, 3]), ([], 6, [4, 5, 6]), ([8, 9, 11], 11, [7, 10]), ([], 12, [12])]
    assert [tick.last for tick in made] == [False, False, False, True]


@given(
    kinds=st.text("gb", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    size=st.integers(1, 5),
    most_bad=st.integers(1, 5),
)
def test_ticks_are_the_same_whatever_the_chunks_and_from_the_end_of_any_of_them_on(kinds, cuts, size, most_bad):
    edges = sorted({0, len(kinds), *(min(cut, len(kinds)) for cut in cuts)})
    pieces = [chunk(start, kinds[start:stop]) for start, stop in itertools.pairwise(edges)]
    whole = told(ticks([chunk(0, kinds)], size, most_bad=most_bad))
    assert told(ticks(pieces, size, most_bad=most_bad)) == whole
    assert [row for good, _, _ in whole for row in good] == [row for row, kind in enumerate(kinds) if kind == "g"]
    assert [row for _, _, bad in whole for row in bad] == [row for row, kind in enumerate(kinds) if kind == "b"]
    for good, position, bad in whole:
        assert len(good) <= size
        assert len(bad) <= most_bad
        assert position == max([*good, *bad])
    for number, (_, position, _) in enumerate(whole):
        rest = chunk(position + 1, kinds[position + 1 :])
        assert told(ticks([rest], size, most_bad=most_bad)) == whole[number + 1 :]


def chunk(first: int, kinds: str) -> Chunk:
    """Rows from a position on, good (g) and bad (b)."""
    good = [place for place, kind in enumerate(kinds) if kind == "g"]
    bad = [Bad(p, first + p, "odd", "") for p, kind in enumerate(kinds) if kind == "b"]
    rows = pa.table({"impression_id": pa.array([first + p for p in good], pa.int64())})
    return Chunk(rows, good, list(range(first, first + len(kinds))), tuple(bad))


def told(made) -> list[tuple[list[int], int, list[int]]]:
    """Good rows, position and bad rows of ticks."""
    return [(ids([tick]), tick.position, [one.position for one in tick.bad]) for tick in made]


# --- Redis -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with redis_server.running(tmp_path_factory.mktemp("redis")) as address:
        yield address


def of(address: str, key: str, **changed) -> RedisSource:
    given = {"group": "g", "consumer": "c", "schema": wanted(encoder()), "retry_seconds": 1.0}
    return RedisSource(address=address, key=key, **(given | changed))


def pending(address: str, key: str) -> int:
    return connect(address).xpending(key, "g")["pending"]


def test_the_rows_of_a_redis_stream_are_those_that_were_published(redis):
    publish(connect(redis), "same", log(150), end=True)
    found = pa.concat_tables([chunk.rows for chunk in of(redis, "same").chunks(None)])
    assert found.equals(log(150).cast(found.schema))


def test_a_redis_stream_trains_the_same_weights_as_files(redis, tmp_path):
    publish(connect(redis), "train", log(300), end=True)
    one, other = stream(tmp_path / "redis"), stream(tmp_path / "folder")
    one.run(of(redis, "train"))
    other.run(source(arrive(tmp_path / "files", log(300), [])))
    assert same(one, other)
    assert pending(redis, "train") == 0  # all acknowledged, the end too


def test_only_what_a_checkpoint_holds_is_acknowledged_and_the_rest_comes_again(redis, tmp_path, monkeypatch):
    publish(connect(redis), "crash", log(300), end=True)
    dying = stream(tmp_path / "kept")
    inner = dying._learn

    def learn() -> None:
        if dying.progress.steps == 3:
            raise KeyboardInterrupt
        inner()

    dying._learn = learn
    with pytest.raises(KeyboardInterrupt):
        dying.run(of(redis, "crash"))
    assert pending(redis, "crash") == 301 - 128  # two checkpoints of 64 rows; 300 rows and the end were delivered
    again = stream(tmp_path / "kept")
    assert again.progress.rows == 128
    again.run(of(redis, "crash"))
    assert sorted(learnt(tmp_path / "kept")) == list(range(300))
    whole = stream(tmp_path / "whole")
    whole.run(source(arrive(tmp_path / "files", log(300), [])))
    assert same(again, whole)
    assert pending(redis, "crash") == 0


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_crash_after_the_last_row_still_finds_the_end_of_the_stream(redis, tmp_path, crash_at):
    """What waits in the buffer is learnt after a checkpoint of the last row: without its end, more would be awaited."""
    key, settings = f"end {crash_at}", {"checkpoint_rows": 30}
    publish(connect(redis), key, log(330), end=True)
    dying, after = stream(tmp_path / "kept", **settings), [0]
    inner = dying._learn

    def learn() -> None:
        if dying.progress.rows == 330 and dying.progress.saves >= 11:
            after[0] += 1
            if after[0] > crash_at:
                raise KeyboardInterrupt
        inner()

    dying._learn = learn
    with pytest.raises(KeyboardInterrupt):
        dying.run(of(redis, key))
    again = stream(tmp_path / "kept", **settings)
    assert again.progress.rows == 330
    reader = of(redis, key, idle_seconds=5.0)
    again.run(reader)
    assert reader._end  # and not by its silence
    assert pending(redis, key) == 0
    assert sorted(learnt(tmp_path / "kept")) == list(range(330))


def test_a_crash_between_checkpoint_and_acknowledgement_repeats_nothing(redis, tmp_path):
    publish(connect(redis), "between", log(200), end=True)
    first, reader = stream(tmp_path / "kept"), of(redis, "between")
    reader.commit = lambda position: None
    first.run(reader)
    assert pending(redis, "between") == 201
    again = stream(tmp_path / "kept")
    again.run(of(redis, "between"))
    assert again.progress.rows == 200
    assert pending(redis, "between") == 0
    publish(connect(redis), "between", log(50, first=200), end=True)  # the next day
    more = stream(tmp_path / "kept")
    more.run(of(redis, "between"))
    assert sorted(learnt(tmp_path / "kept")) == list(range(250))


def test_entries_that_are_no_rows_are_kept_apart(redis, tmp_path):
    client = connect(redis)
    publish(client, "odd", log(40))
    client.xadd("odd", {"row": "not json"})
    client.xadd("odd", {"row": '{"impression_id": 99}'})
    client.xadd("odd", {"else": "1"})
    publish(client, "odd", log(40, first=40), end=True)
    made = stream(tmp_path / "kept")
    made.run(of(redis, "odd"))
    assert (made.progress.rows, made.progress.rejected) == (80, 3)
    reasons = pq.read_table(next((tmp_path / "kept/rejected").glob("*"))).column("reason").to_pylist()
    assert reasons[0].startswith("the field 'row' is no JSON object")
    assert reasons[1].startswith("it lacks user, group, label")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"label": 0', b'"label": 300', "label must hold int8, got 300"),
        (b'"label": 0', b'"label": 0, "label": 1', "a key is there twice"),
        (b'"price": 2.5', b'"price": "dear"', "price must hold double, got 'dear'"),
        (b'"price": 2.5', b'"price": ' + b"[" * 200_000, "the field 'row' is no JSON object of one line"),
        (b'"user": "u"', b'"user": "\\ud800"', r"user must hold string, got '\ud800'"),
        (b'"user": "u"', b'"user": "\xff"', "user is no UTF-8 text"),
        (b'"impression_id": 0', b'"impression_id": 99999999999999999999', "impression_id must hold int64, got 9999999"),
    ],
)
def test_an_entry_that_is_no_row_is_told_with_its_column_and_value(redis, old, new, said):
    row = dict.fromkeys(wanted(encoder()).names) | {"impression_id": 0, "user": "u", "label": 0, "price": 2.5}
    good, client = json.dumps(row).encode(), connect(redis)
    assert old in good
    client.delete("told")
    for text in (good, good.replace(old, new), good):
        client.xadd("told", {"row": text})
    client.xadd("told", {"end": "1"})
    (chunk,) = of(redis, "told").chunks(None)
    assert len(chunk.rows) == 2
    assert [bad.place for bad in chunk.bad] == [1]
    assert said in chunk.bad[0].reason


def test_entries_whose_delivery_was_lost_with_the_connection_are_read_again_in_order(redis, monkeypatch):
    """The server has handed them out and keeps them as pending; asked for new ones, it would pass over them."""
    from redis import ConnectionError as Broken

    from multidomain.streaming import redis_stream

    monkeypatch.setattr(redis_stream, "READ", 20)
    publish(connect(redis), "broken", log(100), end=True)
    reader, lost = of(redis, "broken"), [1, 3]
    inner, replies = reader._client.xreadgroup, []

    def read(group, consumer, given, **options):
        found = inner(group, consumer, given, **options)
        if b">" in given.values():
            replies.append(found)
            if len(replies) in lost:
                raise Broken("the reply was cut off")
        return found

    reader._client.xreadgroup = read
    chunks = list(reader.chunks(None))
    assert len(replies) > max(lost)
    assert ids(chunks) == list(range(100))
    reader.commit(chunks[-1].positions[-1])
    assert pending(redis, "broken") == 0


def test_a_redis_that_is_killed_on_the_way_and_comes_back_costs_nothing(tmp_path):
    server = redis_server.Server(tmp_path, kept=True)
    try:
        publish(connect(server.address), "killed", log(300), end=True)
        follower, back = stream(tmp_path / "kept"), []
        inner = follower._learn

        def learn() -> None:
            inner()
            if follower.progress.steps in (2, 5):  # it comes back while it is asked again
                server.kill()
                back.append(threading.Timer(0.5, server.start))
                back[-1].start()

        follower._learn = learn
        follower.run(of(server.address, "killed", retry_seconds=20.0))
        assert len(back) == 2
        whole = stream(tmp_path / "whole")
        whole.run(source(arrive(tmp_path / "files", log(300), [])))
        assert same(follower, whole)
        assert sorted(learnt(tmp_path / "kept")) == list(range(300))
        assert pending(server.address, "killed") == 0
    finally:
        server.stop()


def test_a_redis_that_stays_away_ends_the_run_and_the_same_command_goes_on(tmp_path, monkeypatch):
    from multidomain.streaming import redis_stream

    monkeypatch.setattr(redis_stream, "READ", 50)
    server = redis_server.Server(tmp_path, kept=True)
    try:
        publish(connect(server.address), "away", log(300), end=True)
        first = stream(tmp_path / "kept")
        inner = first._learn

        def learn() -> None:
            inner()
            if first.progress.steps == 4:
                server.kill()

        first._learn = learn
        with pytest.raises(DataError, match=r"does not answer: .* Start the server, then the same command again"):
            first.run(of(server.address, "away"))
        server.start()
        again = stream(tmp_path / "kept")
        assert 0 < again.progress.rows < 300
        again.run(of(server.address, "away"))
        whole = stream(tmp_path / "whole")
        whole.run(source(arrive(tmp_path / "files", log(300), [])))
        assert same(again, whole)
        assert sorted(learnt(tmp_path / "kept")) == list(range(300))
    finally:
        server.stop()


def test_entries_that_were_trimmed_before_they_were_learnt_are_told(redis):
    publish(connect(redis), "trimmed", log(10))
    next(of(redis, "trimmed").chunks(None))
    connect(redis).xtrim("trimmed", maxlen=4, approximate=False)
    with pytest.raises(DataError, match="no longer holds 6 entries that were delivered and not learnt"):
        list(of(redis, "trimmed", idle_seconds=0.1).chunks(None))


def test_a_silent_redis_stream_has_ended(redis):
    publish(connect(redis), "silent", log(5))
    assert ids(of(redis, "silent", idle_seconds=0.1).chunks(None)) == list(range(5))


def test_what_cannot_be_asked_is_told(redis, monkeypatch):
    monkeypatch.delenv("MULTIDOMAIN_REDIS", raising=False)
    with pytest.raises(ConfigurationError, match="nor is the environment variable MULTIDOMAIN_REDIS"):
        of("", "x")
    start = time.monotonic()
    with pytest.raises(DataError, match=r"The Redis server at 127\.0\.0\.1:1 does not answer"):
        next(of("127.0.0.1:1", "x", retry_seconds=0.2).chunks(None))
    assert time.monotonic() - start < 20
    connect(redis).set("text", "1")
    with pytest.raises(DataError, match=r"The Redis stream 'text' .* cannot be read: WRONGTYPE"):
        next(of(redis, "text").chunks(None))
