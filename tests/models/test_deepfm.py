"""The equations of the DeepFM paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interactions_by_hand import common_parameters, first_order
from model_cases import SCHEMA, SMALL, make_batch, trained
from towers_by_hand import auxiliary, dense, network, state

from multidomain import models
from multidomain.models.baselines.deepfm import pairwise_products
from multidomain.training.optimizers import sparse_tables


def expected_parameters(model: models.MultiDomainModel) -> int:
    """A weight per id and per number; the deep network."""
    first = sum(model.schema.vocabularies.values()) + len(model.schema.numerical)
    return common_parameters(model) + first + dense(model.inputs.width, *SMALL["hidden"], 1)


def test_the_logit_is_that_of_equations_1_to_4():
    model = trained("deepfm", steps=20).eval()
    batch, s = make_batch(12, seed=4), state(model)
    fields = model.inputs(batch).fields.detach().double().numpy()
    expected = []
    for row, (e, p) in enumerate(zip(fields, batch.domain.tolist(), strict=True)):
        y_fm = first_order(model, s, "first_order", batch, row)
        y_fm += sum(e[i] @ e[j] for i, j in itertools.combinations(range(len(e)), 2))  # Eq. 2
        y_dnn = network(s, "deep.layers.", e.reshape(-1), linear_output=True).item()  # Eq. 3-4
        expected.append(y_fm + y_dnn + auxiliary(s, e.reshape(-1), p))
    assert np.abs(s["first_order.table.weight"]).max() > 0.01
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_pairwise_products_computed_by_hand():
    fields = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    assert pairwise_products(fields).tolist() == [11.0 + 17.0 + 39.0]
    assert pairwise_products(fields[:, :1]).tolist() == [0.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_the_difference_of_squares_is_the_sum_over_all_pairs(rows, fields, width, seed):
    e = np.random.default_rng(seed).normal(size=(rows, fields, width))
    pairs = itertools.combinations(range(fields), 2)
    expected = sum(((e[:, i] * e[:, j]).sum(1) for i, j in pairs), np.zeros(rows))
    np.testing.assert_allclose(pairwise_products(torch.from_numpy(e)), expected, atol=1e-12)
    shuffled = torch.from_numpy(e[:, np.random.default_rng(seed).permutation(fields)])
    np.testing.assert_allclose(pairwise_products(shuffled), expected, atol=1e-12)


@pytest.mark.parametrize("part", ["factorization machine", "deep network"])
def test_each_part_alone_teaches_the_shared_embeddings(part):
    torch.manual_seed(0)
    model = models.build("deepfm", SCHEMA, **SMALL, sparse=False, unknown_rate=0.0, auxiliary=False, dropout=0.0)
    batch = make_batch(20)
    if part == "factorization machine":
        with torch.no_grad():
            model.deep.layers[-1].weight.zero_()
        model(batch).sum().backward()
    else:
        model.deep(model.inputs(batch).z).sum().backward()
    assert model.inputs.embedding.table.weight.grad.abs().max() > 0


def test_a_normalization_leaves_the_factorization_machine_its_embeddings():
    model = trained("deepfm", normalization="batch", auxiliary=False).eval()
    with torch.no_grad():
        model.deep.layers[-1].weight.zero_()
        model.deep.layers[-1].bias.zero_()
    batch = make_batch(10)
    x = model.inputs(batch)
    expected = model.first_order(x.lookup, batch.numerical) + pairwise_products(x.fields)
    torch.testing.assert_close(model(batch), expected)


def test_both_tables_give_sparse_gradients_when_one_does():
    assert len(sparse_tables(models.build("deepfm", SCHEMA, **SMALL))) == 2
    assert sparse_tables(models.build("deepfm", SCHEMA, **SMALL, sparse=False)) == []
