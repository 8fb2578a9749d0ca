"""The equations of the Wide & Deep paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from interactions_by_hand import common_parameters, first_order
from model_cases import SCHEMA, SMALL, make_batch, trained
from torch.nn.functional import binary_cross_entropy_with_logits
from towers_by_hand import auxiliary, dense, network, state

from multidomain import models
from multidomain.batch import Batch
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema
from multidomain.models.baselines.wide_deep import Crosses
from multidomain.training.optimizers import sparse_tables

CROSSES = [["user", "item"], ["item", "genre", "user"]]


def expected_parameters(model: models.MultiDomainModel) -> int:
    """A weight per id and per number; the deep network; no crosses."""
    first = sum(model.schema.vocabularies.values()) + len(model.schema.numerical)
    return common_parameters(model) + first + dense(model.inputs.width, *SMALL["hidden"], 1)


@pytest.mark.parametrize("crosses", [[], CROSSES])
def test_the_logit_is_that_of_equations_1_to_3(crosses):
    model = trained("wide_deep", steps=20, crosses=crosses).eval()
    batch, s = make_batch(40, seed=4), state(model)
    z = model.inputs(batch).z.detach().double().numpy()
    expected, crossed = [], 0
    for row, (a, p) in enumerate(zip(z, batch.domain.tolist(), strict=True)):
        logit = (
            first_order(model, s, "wide", batch, row)
            + network(s, "deep.layers.", a, linear_output=True).item()
            + auxiliary(s, a, p)
        )
        user, item, genre = batch.categorical[row].tolist()
        if crosses and min(user, item) > 1:  # Eq. 1: 1 for the combination the row has; 0 and 1 are no ids
            logit += s["crosses.table.weight"][user * 20 + item, 0]
        if crosses and min(user, item, genre) > 1:
            logit += s["crosses.table.weight"][12 * 20 + (item * 6 + genre) * 12 + user, 0]
            crossed += 1
        expected.append(logit)
    assert crossed > 5 or not crosses
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_a_cross_takes_a_weight_per_combination_or_per_bucket():
    plain = models.build("wide_deep", SCHEMA, **SMALL)
    crossed = models.build("wide_deep", SCHEMA, **SMALL, crosses=CROSSES, cross_buckets=500)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (plain, crossed)]
    assert sizes[1] - sizes[0] == 12 * 20 + 500


def test_a_cross_learns_what_no_sum_of_weights_can():
    schema = InputSchema(domains=1, vocabularies={"a": 4, "b": 4}, categorical=("a", "b"))
    model = models.build("wide_deep", schema, hidden=[4], crosses=[["a", "b"]], unknown_rate=0.0, sparse=False)
    ids = torch.tensor([[2, 2], [2, 3], [3, 2], [3, 3]])
    label = torch.tensor([1.0, 0.0, 0.0, 1.0])  # whether a and b are the same
    batch = Batch(ids, torch.zeros(4, 0), {}, {}, torch.zeros(4).long(), label)
    x = model.inputs(batch)
    wide = model.wide(x.lookup, batch.numerical) + model.crosses(x.lookup.ids)
    binary_cross_entropy_with_logits(wide, label, reduction="sum").backward()
    assert not model.wide.table.weight.grad.any()
    cells = [2 * 4 + 2, 2 * 4 + 3, 3 * 4 + 2, 3 * 4 + 3]
    assert model.crosses.table.weight.grad[cells, 0].tolist() == [-0.5, 0.5, 0.5, -0.5]


def test_a_combination_with_a_missing_or_unknown_id_counts_nothing():
    crosses = Crosses(schema=SCHEMA, crosses=CROSSES, buckets=10_000)
    torch.nn.init.ones_(crosses.table.weight)
    ids = torch.tensor([[5, 5, 5], [0, 5, 5], [5, 1, 5], [5, 5, 0]])
    assert crosses(ids).tolist() == [2.0, 0.0, 0.0, 1.0]  # the last: [user, item] is whole


def test_an_id_drawn_as_unknown_is_unknown_to_the_crosses_too():
    model = models.build("wide_deep", SCHEMA, **SMALL, crosses=CROSSES, unknown_rate=0.999999)
    torch.nn.init.ones_(model.crosses.table.weight)
    assert not model.crosses(model.inputs(make_batch(30)).lookup.ids).any()


def test_combinations_are_hashed_evenly_into_the_buckets_of_their_cross():
    crosses = Crosses(schema=SCHEMA, crosses=[["user", "item"], ["item", "genre", "user"]], buckets=240)
    ids = torch.cartesian_prod(torch.arange(12), torch.arange(20), torch.arange(6))
    rows = crosses.rows(ids)
    assert rows[:, 0].unique().numel() == 12 * 20  # it fits: a weight each
    assert rows[:, 0].max() < 240 <= rows[:, 1].min()
    assert rows[:, 1].max() < 480
    load = torch.bincount(rows[:, 1] - 240, minlength=240).double()  # 6 each on average
    assert math.sqrt(load.var().item()) < 3.5  # Poisson: 2.4
    assert torch.equal(crosses.rows(ids.flip(0)).flip(0), rows)


def test_numbers_beyond_64_bits_are_hashed_too():
    schema = InputSchema(domains=1, vocabularies={"a": 2**40, "b": 2**40}, categorical=("a", "b"))
    with torch.device("meta"):
        crosses = Crosses(schema=schema, crosses=[["a", "b"]], buckets=1000)
    rows = crosses.rows(torch.randint(2, 2**40, (5000, 2)))
    assert 0 <= rows.min() <= rows.max() < 1000
    assert rows.unique().numel() > 950


def test_all_tables_give_sparse_gradients_when_one_does():
    assert len(sparse_tables(models.build("wide_deep", SCHEMA, **SMALL, crosses=CROSSES))) == 3
    assert sparse_tables(models.build("wide_deep", SCHEMA, **SMALL, crosses=CROSSES, sparse=False)) == []


@pytest.mark.parametrize(
    ("crosses", "message"),
    [
        ("user", "crosses must be a list of lists of fields"),
        (["user", "item"], "crosses must be a list of lists of fields"),
        ([["user"]], "a cross has two or more different fields"),
        ([["user", "user"]], "a cross has two or more different fields"),
        ([["usr", "item"]], "crosses: 'usr' is not known; did you mean 'user'"),
    ],
)
def test_an_impossible_cross_is_an_error(crosses, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("wide_deep", SCHEMA, crosses=crosses)
