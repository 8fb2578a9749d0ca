"""The sliding window that batches are drawn from, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multidomain.streaming import buffer as buffers
from multidomain.streaming.buffer import Buffer, Queue


def rows(first: int, count: int) -> dict[str, np.ndarray]:
    ids = np.arange(first, first + count)
    return {"id": ids, "pair": np.stack([ids, -ids], axis=1)}


def test_a_batch_is_drawn_without_replacement_and_leaves_the_buffer():
    buffer = Buffer(rows=10, batch_size=4, seed=0)
    buffer.add(rows(0, 10))
    assert buffer.full
    drawn = buffer.draw(1)["id"]
    assert len(set(drawn.tolist())) == 4
    assert buffer.size == 6
    assert sorted([*drawn, *buffer.state()["id"]]) == list(range(10))
    assert (buffer.state()["pair"] == np.stack([buffer.state()["id"], -buffer.state()["id"]], axis=1)).all()


def test_gaps_are_filled_with_the_last_rows():
    buffer = Buffer(rows=6, batch_size=3, seed=0)
    buffer.add(rows(0, 6))
    buffer._places = lambda count, step: np.array([4, 0, 1])  # by hand: of the last three, 3 and 5 stay
    assert buffer.draw(1)["id"].tolist() == [4, 0, 1]
    assert buffer.state()["id"].tolist() == [3, 5, 2]


def test_new_rows_take_the_room_and_no_more():
    buffer = Buffer(rows=10, batch_size=4, seed=0)
    buffer.add(rows(0, 10))
    with pytest.raises(ValueError, match="1 rows for a buffer with room for 0"):
        buffer.add(rows(10, 1))
    buffer.draw(1)
    assert buffer.room == 4
    buffer.add(rows(10, 4))
    assert buffer.full


def test_the_queue_gives_rows_as_they_came():
    queue = Queue(rows=5, batch_size=2)
    queue.add(rows(0, 5))
    assert queue.draw(1)["id"].tolist() == [0, 1]
    queue.add(rows(5, 2))
    assert [queue.draw(step)["id"].tolist() for step in (2, 3, 4)] == [[2, 3], [4, 5], [6]]


def test_draws_depend_on_seed_step_and_rows_alone():
    def draws(seed: int, step: int) -> list[int]:
        buffer = Buffer(rows=50, batch_size=10, seed=seed)
        buffer.add(rows(0, 50))
        return buffer.draw(step)["id"].tolist()

    assert draws(1, 1) == draws(1, 1)
    assert draws(1, 1) != draws(1, 2)
    assert draws(1, 1) != draws(2, 1)


def test_every_row_is_as_likely_as_the_others_to_be_drawn():
    """2000 draws of 2 of 8: each row 500 times, give or take five standard deviations (19.4)."""
    counts = np.zeros(8)
    for step in range(2000):
        buffer = Buffer(rows=8, batch_size=2, seed=5)
        buffer.add(rows(0, 8))
        counts[buffer.draw(step)["id"]] += 1
    assert counts.sum() == 4000
    assert np.abs(counts - 500).max() < 97


@given(
    capacity=st.integers(1, 40),
    batch=st.integers(1, 40),
    pieces=st.lists(st.integers(1, 60), max_size=8),
    seed=st.integers(0, 9),
)
def test_whatever_comes_every_row_is_drawn_once_and_memory_stays(capacity, batch, pieces, seed):
    buffer = Buffer(rows=max(capacity, batch), batch_size=batch, seed=seed)
    drawn, first, step, sizes = [], 0, 0, set()
    for piece in pieces:
        left = rows(first, piece)
        first += piece
        while len(left["id"]):
            room = buffer.room
            buffer.add({name: values[:room] for name, values in left.items()})
            left = {name: values[room:] for name, values in left.items()}
            sizes.add(buffer.nbytes)
            if buffer.full:
                drawn += buffer.draw(step := step + 1)["id"].tolist()
    while buffer.size:
        drawn += buffer.draw(step := step + 1)["id"].tolist()
    assert sorted(drawn) == list(range(first))
    assert len(sizes) <= 1


def test_a_buffer_that_was_written_and_read_goes_on_as_it_was():
    one, other = (Buffer(rows=20, batch_size=6, seed=2) for _ in range(2))
    one.add(rows(0, 20))
    one.draw(1)
    other.load({name: values.copy() for name, values in one.state().items()})
    assert one.draw(2)["id"].tolist() == other.draw(2)["id"].tolist()


def test_values_change_a_few_rows_at_a_time(monkeypatch):
    """Whatever the buffer holds: a copy of all its rows would be as large as itself."""
    monkeypatch.setattr(buffers, "CHANGED", 8)
    buffer, given = Buffer(rows=20, batch_size=4, seed=0), []
    buffer.add(rows(0, 19))
    buffer.change("pair", lambda values: (given.append(len(values)), values + 100)[1])
    buffer.change("nothing of that name", lambda values: values + 1)
    assert given == [8, 8, 3]
    assert buffer.state()["pair"][:, 0].tolist() == list(range(100, 119))
    assert buffer.state()["id"].tolist() == list(range(19))


def test_batches_larger_than_the_buffer_are_refused():
    with pytest.raises(ValueError, match="a buffer of 3 rows gives no batches of 4"):
        Buffer(rows=3, batch_size=4, seed=0)


def test_rows_of_another_kind_are_refused():
    buffer = Buffer(rows=4, batch_size=2, seed=0)
    buffer.add(rows(0, 1))
    with pytest.raises(ValueError, match="rows of id for a buffer of id, pair"):
        buffer.add({"id": np.arange(1)})
    with pytest.raises(ValueError, match="of another kind than before"):
        buffer.add({"id": np.arange(1), "pair": np.zeros((1, 3), np.int64)})
