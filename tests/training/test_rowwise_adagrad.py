from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_table import backward, table
from torch import nn

from multidomain.training.rowwise_adagrad import RowwiseAdagrad


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=8),
    decay=st.sampled_from([0.0, 0.3]),
)
def test_every_step_is_the_published_equation_with_repeated_ids_summed_first(steps, decay):
    embedding = table()
    optimizer = RowwiseAdagrad(embedding.parameters(), lr=0.1, weight_decay=decay)
    w, s = embedding.weight.detach().numpy().astype(np.float64), np.zeros(6)
    for number, ids in enumerate(steps):
        weights = torch.randn(len(ids), 3, generator=torch.Generator().manual_seed(number))
        backward(embedding, ids, weights)
        optimizer.step()
        for row in set(ids):
            g = weights.numpy()[np.array(ids) == row].astype(np.float64).sum(0)
            s[row] += (g**2).mean()
            w[row] = w[row] * (1 - 0.1 * decay) - 0.1 * g / (np.sqrt(s[row]) + 1e-8)
        np.testing.assert_allclose(embedding.weight.detach().numpy(), w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(optimizer.state[embedding.weight]["square"].numpy(), s, rtol=1e-5)


def test_the_first_step_of_a_row_is_the_root_of_its_width_long():
    embedding = table(width=4)
    optimizer = RowwiseAdagrad(embedding.parameters(), lr=0.1)
    before = embedding.weight.detach().clone()
    backward(embedding, [2], torch.tensor([[1e-3, 5e-3, -2e-3, 0.0]]))
    optimizer.step()
    assert (embedding.weight[2] - before[2]).norm().item() == pytest.approx(0.1 * 4**0.5, rel=1e-4)


def test_a_row_whose_gradient_is_zero_stays_as_it_is():
    embedding = table()
    optimizer = RowwiseAdagrad(embedding.parameters(), lr=0.1)
    before = embedding.weight.detach().clone()
    backward(embedding, [0, 0], torch.zeros(2, 3))
    optimizer.step()
    assert torch.equal(embedding.weight, before)


def test_the_state_is_one_number_per_row():
    embedding = table()
    state = RowwiseAdagrad(embedding.parameters()).state[embedding.weight]
    assert {name: tuple(value.shape) for name, value in state.items()} == {"step": (), "square": (6,)}


def test_a_dense_gradient_is_refused():
    embedding = nn.Embedding(4, 2)
    optimizer = RowwiseAdagrad(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"RowwiseAdagrad takes sparse gradients, the table \(4, 2\)"):
        optimizer.step()
