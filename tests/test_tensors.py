from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multidomain.errors import DataError
from multidomain.inputs import InputSchema
from multidomain.tensor_writer import TensorWriter
from multidomain.tensors import EncodedSplit

INPUTS = InputSchema(
    domains=2,
    vocabularies={"item": 9, "genre": 5},
    categorical=("item",),
    numerical=("age", "height"),
    history={"past_item": "item"},
    history_length=3,
    bags={"genres": "genre"},
)
CATEGORICAL = [[2], [3], [4], [5]]
NUMERICAL = [[0.5, 1.0], [1.5, 2.0], [2.5, 3.0], [3.5, 4.0]]
BAGS = [[2, 0], [3, 4], [0, 0], [4, 2]]


def start(folder: Path, inputs: InputSchema = INPUTS) -> Path:
    folder.mkdir()
    (folder / "inputs.json").write_text(json.dumps(inputs.to_dict()))
    (folder / "domains.json").write_text(json.dumps(["a", "b"]))
    return folder


def rows_of(values: slice) -> dict[str, np.ndarray]:
    return {
        "categorical": np.array(CATEGORICAL)[values],
        "numerical": np.array(NUMERICAL)[values],
        "domain": np.array([0, 1, 1, 0])[values],
        "bag_genres": np.array(BAGS)[values],
    }


def table_of(values: slice) -> pa.Table:
    ids, groups = np.arange(10, 14)[values], np.array(["u", "v", "u", "w"])[values]
    return pa.table({"impression_id": ids, "group": groups, "domain": ["a"] * len(ids), "other": ids})


@pytest.fixture
def written(tmp_path) -> Path:
    """Four training rows in two chunks, no test rows, three user states."""
    folder = start(tmp_path / "encoded")
    with TensorWriter(folder, INPUTS, rows={"train": 4, "test": 0}, states=3) as writer:
        for part, state in ((slice(0, 3), [1, 0, 2]), (slice(3, 4), [1])):
            label = np.array([1, 0, 1, 0], np.int8)[part]
            writer.write("train", rows_of(part), label=label, state=np.array(state), rows=table_of(part))
        writer.write_states("past_item", np.array([2]), np.array([[0, 4, 5]]))
        writer.write_states("past_item", np.array([1]), np.array([[0, 0, 7]]))
    return folder


def test_rows_come_back_in_the_order_asked_for(written):
    batch = EncodedSplit(written, "train").batch(np.array([3, 0]))
    assert batch.categorical.tolist() == [[5], [2]]
    assert batch.numerical.tolist() == [[3.5, 4.0], [0.5, 1.0]]
    assert batch.bags["genres"].tolist() == [[4, 2], [2, 0]]
    assert batch.domain.tolist() == [0, 0]
    assert batch.label.tolist() == [0.0, 1.0]


def test_a_history_is_gathered_through_the_user_state(written):
    batch = EncodedSplit(written, "train").batch(slice(0, 4))
    assert batch.history["past_item"].tolist() == [[0, 0, 7], [0, 0, 0], [0, 4, 5], [0, 0, 7]]


def test_files_have_the_documented_types_and_shapes(written):
    shapes = {path.relative_to(written).as_posix(): np.load(path) for path in written.rglob("*.npy")}
    assert {name: (array.shape, array.dtype.name) for name, array in shapes.items() if "test" not in name} == {
        "train/categorical.npy": ((4, 1), "int32"),
        "train/numerical.npy": ((4, 2), "float32"),
        "train/domain.npy": ((4,), "int32"),
        "train/label.npy": ((4,), "float32"),
        "train/state.npy": ((4,), "int32"),
        "train/bag_genres.npy": ((4, 2), "int32"),
        "states/past_item.npy": ((3, 3), "int32"),
    }


def test_row_keys_are_kept_beside_the_tensors(written):
    rows = pq.read_table(written / "train" / "rows.parquet")
    assert rows.column_names == ["impression_id", "group", "domain"]
    assert rows["impression_id"].to_pylist() == [10, 11, 12, 13]
    assert pq.read_table(written / "test" / "rows.parquet").num_rows == 0


def test_a_split_without_rows_can_be_read(written):
    split = EncodedSplit(written, "test")
    assert split.rows == len(split) == 0
    assert len(split.batch(slice(0, 5))) == 0


def test_batches_are_copies_that_outlive_the_files(written):
    batch = EncodedSplit(written, "train").batch(slice(0, 2))
    batch.categorical.fill_(8)
    shutil.rmtree(written / "train" / "categorical.npy", ignore_errors=True)
    assert np.load(written / "train" / "categorical.npy").tolist() == CATEGORICAL


def test_bytes_count_every_array(written):
    assert EncodedSplit(written, "train").bytes == 4 * (4 + 8 + 4 + 4 + 4 + 8) + 3 * 3 * 4


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    folder = start(tmp_path / "encoded")
    usage = namedtuple("usage", "total used free")(1000, 990, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"needs 24,000 bytes in .*encoded, 10 are free"):
        TensorWriter(
            folder,
            InputSchema(domains=2, vocabularies={"a": 3}, categorical=("a", "a", "a", "a")),
            rows={"train": 1000},
        )
    assert not (folder / "train").exists()


def test_a_disk_that_fills_while_writing_gives_the_same_message(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = start(tmp_path / "encoded")
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(
        DataError, match=r"The disk is full: writing the encoded tensors needs [\d,]+ bytes in .*encoded"
    ):
        TensorWriter(folder, INPUTS, rows={"train": 4}, states=3)


def test_the_space_of_every_array_is_taken_when_it_is_made(tmp_path):
    folder = start(tmp_path / "encoded")
    inputs = InputSchema(domains=2, vocabularies={"a": 3}, categorical=("a",))
    writer = TensorWriter(folder, inputs, rows={"train": 100_000})
    taken = (folder / "train" / "categorical.npy").stat().st_blocks * 512
    assert taken >= 400_000
    del writer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categorical": np.array([[2**40]] * 4)}, "holds int32, got values from 1099511627776"),
        ({"categorical": np.array([2, 3, 4, 5])}, r"shape \(4, 1\), got \(4,\)"),
        ({"numerical": np.ones((4, 1))}, r"shape \(4, 2\), got \(4, 1\)"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, change, message):
    writer = TensorWriter(start(tmp_path / "encoded"), INPUTS, rows={"train": 4})
    with pytest.raises(ValueError, match=message):
        writer.write("train", rows_of(slice(0, 4)) | change, label=np.ones(4), state=np.zeros(4, int))


def test_too_many_and_too_few_rows_are_refused(tmp_path):
    writer = TensorWriter(start(tmp_path / "encoded"), INPUTS, rows={"train": 3})
    with pytest.raises(ValueError, match="announced with 3 rows, got 4"):
        writer.write("train", rows_of(slice(0, 4)), label=np.ones(4), state=np.zeros(4, int))
    with pytest.raises(ValueError, match="announced with 3 rows, got 0"):
        writer.close()


def test_a_missing_field_is_named(tmp_path):
    writer = TensorWriter(start(tmp_path / "encoded"), INPUTS, rows={"train": 4})
    with pytest.raises(ValueError, match="'state' is missing"):
        writer.write("train", rows_of(slice(0, 4)), label=np.ones(4))


@pytest.mark.parametrize("name", ["label", "categorical", "bag_genres"])
def test_a_damaged_file_is_named(written, name):
    path = written / "train" / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=rf"{name}\.npy.*Run the encode stage again"):
        EncodedSplit(written, "train")


def test_arrays_of_different_lengths_are_refused(written):
    np.save(written / "train" / "domain.npy", np.zeros(3, np.int32))
    with pytest.raises(DataError, match=r"domain\.npy: shape \(3,\), expected \(4,\)"):
        EncodedSplit(written, "train")


def test_the_digest_follows_the_contents(written):
    before = EncodedSplit(written, "train").digest()
    assert EncodedSplit(written, "train").digest() == before
    states = np.load(written / "states" / "past_item.npy", mmap_mode="r+")
    states[2, 0] = 1
    states.flush()
    assert EncodedSplit(written, "train").digest() != before


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 7), max_size=6), seed=st.integers(0, 99))
def test_any_chunks_give_the_rows_that_were_written(tmp_path_factory, sizes, seed):
    inputs = InputSchema(domains=2, vocabularies={"a": 50}, categorical=("a", "a"), bags={"b": "a"})
    folder = start(tmp_path_factory.mktemp("any") / "encoded", inputs)
    random = np.random.default_rng(seed)
    ids, bags = random.integers(0, 50, (sum(sizes), 2)), random.integers(0, 50, (sum(sizes), 3))
    with TensorWriter(folder, inputs, rows={"test": sum(sizes)}) as writer:
        position = 0
        for size in sizes:
            part = slice(position, position + size)
            arrays = {"categorical": ids[part], "numerical": np.zeros((size, 0)), "bag_b": bags[part]}
            writer.write("test", arrays | {"domain": np.zeros(size, int)}, label=np.zeros(size))
            position += size
    rows = random.permutation(sum(sizes))
    batch = EncodedSplit(folder, "test").batch(rows)
    assert batch.categorical.tolist() == ids[rows].tolist()
    assert batch.bags["b"].tolist() == bags[rows].tolist()
