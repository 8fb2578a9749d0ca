"""The encoder: ids, buckets, padding, and the same code from training rows to a served request."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain import encoder
from multidomain.encoder import Encoder, Field

ENCODER = Encoder(
    fields=(
        Field(name="user_id", kind="categorical", value_type="string", owner="user"),
        Field(name="age", kind="categorical", value_type="int", owner="user", distribution=True),
        Field(name="price", kind="bucket", value_type="float", boundaries=(1.0, 2.0)),
        Field(name="score", kind="value", value_type="float", mean=10.0, scale=2.0),
        Field(name="tags", kind="bag", value_type="string", length=2),
    ),
    vocabularies={
        "user_id": pa.array(["u1", "u2"]),
        "age": pa.array([25, 18], pa.int64()),
        "tags": pa.array(["red", "blue", "green"]),
        "item_id": pa.array(["a", "b", "c"]),
    },
    history={"positives_item_id": "item_id"},
    history_length=3,
    domains=("home", "search"),
)


def rows(**changed: object) -> pa.Table:
    columns = {
        "domain": pa.array(["search"]),
        "user_id": pa.array(["u2"]),
        "age": pa.array([25], pa.int64()),
        "price": pa.array([1.5]),
        "score": pa.array([14.0]),
        "tags": pa.array([["blue", "pink"]]),
        "positives_item_id": pa.array([["a", "z"]]),
    }
    return pa.table(columns | changed)


def test_known_values_get_their_place_in_the_vocabulary_after_padding_and_unknown():
    arrays = ENCODER.transform(rows())
    assert arrays["categorical"].tolist() == [[3, 2, 3]]  # u2 second, 25 first, 1.5 in the middle bucket
    assert arrays["numerical"].tolist() == [[2.0]]
    assert arrays["bag_tags"].tolist() == [[3, 1]]
    assert arrays["history_positives_item_id"].tolist() == [[0, 2, 1]]
    assert arrays["domain"].tolist() == [1]


def test_nulls_and_unseen_values_are_unknown_and_empty_lists_are_padding():
    nulls = rows(
        domain=pa.array([None], pa.string()),
        user_id=pa.array(["stranger"]),
        age=pa.array([None], pa.int64()),
        price=pa.array([None], pa.float64()),
        score=pa.array([None], pa.float64()),
        tags=pa.array([None], pa.list_(pa.string())),
        positives_item_id=pa.array([[]], pa.list_(pa.string())),
    )
    arrays = ENCODER.transform(nulls)
    assert arrays["categorical"].tolist() == [[1, 1, 1]]
    assert arrays["numerical"].tolist() == [[0.0]]  # the mean
    assert arrays["bag_tags"].tolist() == [[0, 0]]
    assert arrays["history_positives_item_id"].tolist() == [[0, 0, 0]]
    assert arrays["domain"].tolist() == [2]


def test_a_column_without_any_type_is_all_unknown():
    empty = rows(user_id=pa.nulls(1), tags=pa.nulls(1), positives_item_id=pa.nulls(1), price=pa.nulls(1))
    arrays = ENCODER.transform(empty)
    assert arrays["categorical"].tolist() == [[1, 2, 1]]
    assert arrays["bag_tags"].tolist() == [[0, 0]]


@pytest.mark.parametrize("ages", [pa.array([25.0]), pa.array(["25"]), pa.array([25], pa.int8())])
def test_whole_numbers_that_came_as_another_type_are_still_found(ages: pa.Array):
    assert ENCODER.transform(rows(age=ages))["categorical"][0, 1] == 2


@pytest.mark.parametrize(
    "ages",
    [
        pa.array([25.5]),
        pa.array(["young"]),
        pa.array([float("nan")]),
        pa.array(["9" * 30]),
        pa.array([2**63], pa.uint64()),
        pa.array(["inf"]),
    ],
)
def test_values_that_cannot_be_a_whole_number_are_unknown(ages: pa.Array):
    assert ENCODER.transform(rows(age=ages))["categorical"][0, 1] == 1


def test_bucket_edges_belong_to_the_bucket_above():
    prices = pa.table({"price": pa.array([0.99, 1.0, 1.99, 2.0, float("inf"), float("nan")])})
    ids = ENCODER._ids(ENCODER.fields[2], prices.column("price"), ENCODER._scan)
    assert ids.tolist() == [2, 3, 3, 4, 4, 1]


def test_a_history_keeps_its_most_recent_values_and_a_bag_its_first():
    arrays = ENCODER.transform(
        rows(positives_item_id=pa.array([["c", "c", "a", "b", "z"]]), tags=pa.array([["red", "blue", "green"]]))
    )
    assert arrays["history_positives_item_id"].tolist() == [[2, 3, 1]]
    assert arrays["bag_tags"].tolist() == [[2, 3]]


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="lack the columns price, tags"):
        ENCODER.transform(rows().drop(["price", "tags"]))


def test_saved_and_loaded_it_encodes_the_same(tmp_path):
    ENCODER.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.inputs == ENCODER.inputs
    for name, array in ENCODER.transform(rows()).items():
        np.testing.assert_array_equal(array, loaded.transform(rows())[name])


def test_another_format_is_refused(tmp_path):
    ENCODER.save(tmp_path)
    file = tmp_path / "encoder.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(ValueError, match="format 99"):
        Encoder.load(tmp_path)


def test_the_inputs_say_what_models_must_know():
    inputs = ENCODER.inputs
    assert inputs.categorical == ("user_id", "age", "price")
    assert inputs.vocabularies == {"user_id": 4, "age": 4, "tags": 5, "item_id": 5, "price": 5}
    assert inputs.numerical == ("score",)
    assert inputs.distribution == ("age",)
    assert (inputs.domains, inputs.history_length) == (2, 3)


VALUES = st.lists(st.sampled_from(["a", "b", "c", "?"]), max_size=6)
LISTS = st.lists(st.one_of(st.none(), VALUES), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(LISTS, st.integers(0, 3))
def test_lists_encode_as_a_plain_loop_would(lists, skipped):
    known = {"a": 2, "b": 3, "c": 4}
    column = pa.array([None] * skipped + lists, pa.list_(pa.string()))[skipped:]  # a sliced array has an offset
    expected = []
    for values in lists:
        ids = [known.get(value, 1) for value in values or []][-3:]
        expected.append([0] * (3 - len(ids)) + ids)
    assert ENCODER.histories("positives_item_id", column).tolist() == expected
    assert ENCODER.histories("positives_item_id", pa.chunked_array([column, column])).tolist() == expected * 2


@settings(max_examples=30, deadline=None)
@given(st.permutations(list(range(6))))
def test_a_row_is_encoded_alike_wherever_it_stands(order):
    table = pa.concat_tables(
        [rows(user_id=pa.array([u]), tags=pa.array([t])) for u in ("u1", "u2", "x") for t in (["red"], ["green"])]
    )
    whole = ENCODER.transform(table)
    for name, array in ENCODER.transform(table.take(order)).items():
        np.testing.assert_array_equal(array, whole[name][order])


TEXTS = st.lists(st.one_of(st.none(), st.sampled_from(["u1", "u2", "", "x"])), max_size=6).map(
    lambda values: pa.array(values, pa.string())
)
NUMBERS = st.lists(st.one_of(st.none(), st.sampled_from([18, 25, 7, -(2**63)])), max_size=6)
AGES = st.one_of(
    NUMBERS.map(lambda values: pa.array(values, pa.int64())),
    NUMBERS.map(lambda values: pa.array([None if v is None else v / 2 for v in values], pa.float64())),
    NUMBERS.map(lambda values: pa.array([None if v is None else str(v) for v in values], pa.string())),
    st.integers(0, 3).map(pa.nulls),
)


COLUMNS = st.one_of(
    TEXTS.map(lambda column: ("user_id", column)),
    AGES.map(lambda column: ("age", column)),
    TEXTS.map(lambda column: ("domain", column)),
)


@pytest.mark.parametrize("few", [0, encoder.FEW])
@settings(max_examples=60, deadline=None)
@given(named=COLUMNS)
def test_looking_values_up_finds_what_going_through_the_vocabulary_finds(few, named):
    name, column = named
    for shape in (column, pa.chunked_array([column, column[1:]], column.type), pa.chunked_array([], column.type)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encoder, "FEW", few)
            found, expected = ENCODER._look_up(shape, name), ENCODER._scan(shape, name)
        assert found.dtype == expected.dtype == np.int32
        np.testing.assert_array_equal(found, expected)


def test_of_equal_values_in_a_vocabulary_the_first_counts_and_floats_find_nan():
    vocabularies = {"v": pa.array(["b", "a", "b", None]), "f": pa.array([2.0, float("nan")])}
    made = Encoder(fields=(), vocabularies=vocabularies, domains=())
    for find in (made._look_up, made._scan):
        assert find(pa.array(["b", "a", None]), "v").tolist() == [0, 1, -1]
        assert find(pa.array([float("nan"), 2.0, 3.0]), "f").tolist() == [1, 0, -1]
        assert find(pa.array(["2.0", "two"]), "f").tolist() == [0, -1]


def test_a_batch_holds_the_same_ids():
    batch = ENCODER.batch(rows())
    assert batch.categorical.tolist() == [[3, 2, 3]]
    assert batch.history["positives_item_id"].tolist() == [[0, 2, 1]]
    assert batch.bags["tags"].tolist() == [[3, 1]]
    assert batch.domain.tolist() == [1]


def test_columns_of_one_row_stand_for_every_row():
    many = pa.concat_tables([rows(price=pa.array([price]), tags=pa.array([["red"]])) for price in (0.5, 1.5, 9.0)])
    shared = [name for name in many.column_names if name not in ("price", "tags")]
    expected = ENCODER.batch(many)
    batch = ENCODER.batch(many.select(["price", "tags"]), many.select(shared).slice(0, 1))
    assert batch.repeated == set(shared)
    assert expected.repeated == set()
    for name in ("categorical", "numerical", "domain", "label"):
        assert getattr(batch, name).equal(getattr(expected, name))
    assert batch.history["positives_item_id"].equal(expected.history["positives_item_id"])
    assert batch.history["positives_item_id"].stride(0) == 0
    assert batch.bags["tags"].equal(expected.bags["tags"])


def test_a_column_missing_from_both_tables_is_named():
    with pytest.raises(ValueError, match="lack the columns price; they have domain"):
        ENCODER.batch(rows().drop_columns(["price", "tags"]), rows().select(["tags"]))
