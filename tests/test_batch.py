from __future__ import annotations

import dataclasses

import pytest
import torch

from multidomain.batch import Batch


def _batch(**changes) -> Batch:
    values = {
        "categorical": torch.ones(3, 2, dtype=torch.int32),
        "numerical": torch.zeros(3, 0),
        "history": {"item": torch.zeros(3, 5, dtype=torch.int32), "genre": torch.zeros(3, 5, dtype=torch.int64)},
        "bags": {"tags": torch.zeros(3, 4, dtype=torch.int32)},
        "domain": torch.tensor([0, 1, 0]),
        "label": torch.zeros(3),
    }
    return Batch(**{**values, **changes})


def test_a_batch_knows_its_number_of_rows():
    assert len(_batch()) == 3


def test_fields_may_be_empty():
    empty = _batch(categorical=torch.zeros(3, 0, dtype=torch.int64), history={}, bags={})
    assert len(empty) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain": torch.zeros(3, 1, dtype=torch.int64)}, r"domain must have the shape \(B,\), got \(3, 1\)"),
        ({"label": torch.zeros(2)}, "label has 2 rows where domain has 3"),
        ({"categorical": torch.ones(3, dtype=torch.int32)}, r"categorical must have the shape \(B, F\), got \(3,\)"),
        ({"categorical": torch.ones(3, 2)}, "categorical must hold int32 or int64 ids, got torch.float32"),
        ({"numerical": torch.ones(3, 1, dtype=torch.int32)}, "numerical must hold floats"),
        ({"bags": {"tags": torch.zeros(4, 2, dtype=torch.int32)}}, "bag 'tags' has 4 rows"),
        (
            {"history": {n: torch.zeros(3, t, dtype=torch.int32) for n, t in (("a", 2), ("b", 3))}},
            "one length T, got {'a': 2, 'b': 3}",
        ),
    ],
)
def test_a_wrong_shape_is_an_error_that_names_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        _batch(**changes)


def test_moving_a_batch_moves_every_tensor():
    moved = _batch().to("meta")
    tensors = [moved.categorical, moved.numerical, *moved.history.values(), *moved.bags.values(), moved.domain]
    assert {tensor.device.type for tensor in [*tensors, moved.label]} == {"meta"}
    assert [field.name for field in dataclasses.fields(moved)][-4:] == ["domain", "label", "repeated", "weight"]


def test_a_batch_that_moves_still_says_what_is_the_same_in_every_row():
    repeated = frozenset({"user", "clicks"})
    assert dataclasses.replace(_batch(), repeated=repeated).to("meta").repeated == repeated
