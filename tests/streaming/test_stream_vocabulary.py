"""Which ids come and go, by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from small_stream import encoder, log

from multidomain.inputs import UNKNOWN
from multidomain.streaming.options import VocabularyOptions
from multidomain.streaming.rows import arrays
from multidomain.streaming.vocabulary import Vocabularies, places, translated, translations


def rows(items: list[str | None], past: list[list[str]] | None = None) -> pa.Table:
    """Rows with these items and histories; the rest is that of the small log."""
    table = log(len(items))
    for name, values in (("item_id", items), ("positives_item_id", past or [[]] * len(items))):
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    return table


def follow(vocabularies: Vocabularies, table: pa.Table, now: int) -> None:
    vocabularies.saw(table, arrays(vocabularies.encoder, table), now)


def items(vocabularies: Vocabularies) -> list[str]:
    return vocabularies.encoder.vocabularies["item_id"].to_pylist()


def test_a_value_enters_when_it_came_often_enough_and_takes_the_row_of_one_that_is_stale():
    one = Vocabularies(encoder(4), VocabularyOptions(every=4, minimum_count=2, forget_after=6))
    follow(one, rows(["i0", "i1", "new", None]), 4)
    assert one.due(0, 4)
    assert one.candidates["item_id"].counts == {"new": (1, 4)}
    one.change(4)
    assert items(one) == ["i0", "i1", "i2", "i3"]
    follow(one, rows(["new", "new", "i0", "other"], [["i3"], [], [], []]), 8)
    growth = one.change(8)  # not since row 2: i2, which never came; i3 is in a history
    assert items(one) == ["i0", "i1", "new", "i3"]
    assert growth is not None
    assert growth.known["item_id"].tolist() == [True, True, True, True, False, True]
    assert places(growth, "item_id").tolist() == [0, 1, 2, 3, UNKNOWN, 5]
    assert one.candidates["item_id"].counts == {"other": (1, 8)}


def test_more_new_values_than_stale_ones_make_it_longer_and_fewer_shorter():
    one = Vocabularies(encoder(3), VocabularyOptions(every=4, minimum_count=1, forget_after=4))
    follow(one, rows(["a", "b", "b", "i2"]), 4)
    one.change(4)  # nothing is stale yet
    assert items(one)[:5] == ["i0", "i1", "i2", "b", "a"]  # the more frequent first
    follow(one, rows(["a", "a", "a", "a"]), 9)
    growth = one.change(9)
    assert items(one) == ["a"]
    assert growth is not None
    assert places(growth, "item_id").tolist() == [0, 1, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 2]


def test_a_candidate_that_long_did_not_come_is_forgotten():
    one = Vocabularies(encoder(), VocabularyOptions(every=1, minimum_count=3, forget_after=5))
    follow(one, rows(["x", "x"]), 2)
    one.change(2)
    follow(one, rows(["i0", "i1"]), 8)
    one.change(8)
    assert one.candidates["item_id"].counts == {}


def test_what_stands_for_a_null_in_a_list_is_no_value():
    one = Vocabularies(encoder(), VocabularyOptions(every=1, minimum_count=1))
    table = rows(["i0"])
    at = table.column_names.index("tags")
    table = table.set_column(at, "tags", pa.array([["", "w", "x"]]))
    follow(one, table, 1)
    assert one.candidates["tags"].counts == {"w": (1, 1)}


def test_rows_that_wait_are_translated_column_by_column():
    one = Vocabularies(encoder(3), VocabularyOptions(every=4, minimum_count=1, forget_after=4))
    waiting = arrays(one.encoder, rows(["i0", "i2", "i1", "unheard"], [["i2", "i0"], [], ["i1"], []]))
    follow(one, rows(["i2", "new"]), 9)
    growth = one.change(9)
    assert growth is not None
    found = {name: translated(waiting[name], by) for name, by in translations(growth, growth.new).items()}
    assert found["categorical"][:, 1].tolist() == [UNKNOWN, 3, UNKNOWN, UNKNOWN]
    assert found["history_positives_item_id"].tolist() == [[0, 0, 3, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert found["categorical"].dtype == waiting["categorical"].dtype == np.int32
    assert items(one) == ["new", "i2"]  # "new" in the place of i0; that of i1 closed up
