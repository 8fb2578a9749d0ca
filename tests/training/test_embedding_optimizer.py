from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_table import backward, table
from torch import nn

from multidomain.training.embedding_optimizer import LazyAdam
from multidomain.training.row_optimizer import coalesced


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=8))
def test_every_step_equals_sparse_adam(steps):
    ours, theirs = table(), table()
    optimizers = [LazyAdam(ours.parameters(), lr=0.1), torch.optim.SparseAdam(list(theirs.parameters()), lr=0.1)]
    for number, ids in enumerate(steps):
        weights = torch.randn(len(ids), 3, generator=torch.Generator().manual_seed(number))
        for embedding, optimizer in zip((ours, theirs), optimizers, strict=True):
            backward(embedding, ids, weights)
            optimizer.step()
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, 5), max_size=20), width=st.integers(1, 5))
def test_repeated_rows_are_summed_exactly(ids, width):
    values = torch.randint(-8, 8, (len(ids), width)).float()
    gradient = torch.sparse_coo_tensor(
        torch.tensor(ids, dtype=torch.int64)[None], values, (6, width), check_invariants=True
    )
    result = coalesced(gradient)
    assert result.is_coalesced()
    assert result._indices()[0].tolist() == sorted(set(ids))
    assert torch.equal(result.to_dense(), gradient.to_dense())


def test_rows_that_were_not_touched_keep_their_weights_and_moments():
    embedding = table()
    optimizer = LazyAdam(embedding.parameters(), lr=0.1, weight_decay=0.5)
    backward(embedding, [1, 1, 4], torch.ones(3, 3))
    before = embedding.weight.detach().clone()
    optimizer.step()
    untouched = [0, 2, 3, 5]
    assert torch.equal(embedding.weight[untouched], before[untouched])
    assert optimizer.state[embedding.weight]["exp_avg"][untouched].abs().sum() == 0
    assert not (embedding.weight[[1, 4]] == before[[1, 4]]).any()


def test_the_first_update_is_one_learning_rate_against_the_gradient():
    embedding = table()
    optimizer = LazyAdam(embedding.parameters(), lr=0.1)
    backward(embedding, [2, 2], torch.tensor([[1.0, -2.0, 5.0], [1.0, -2.0, 5.0]]))
    before = embedding.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(embedding.weight[2] - before[2], torch.tensor([-0.1, 0.1, -0.1]), rtol=1e-5, atol=1e-6)


def test_decay_is_decoupled_from_the_gradient():
    embedding = table()
    optimizer = LazyAdam(embedding.parameters(), lr=0.1, weight_decay=0.5)
    backward(embedding, [2], torch.zeros(1, 3))
    before = embedding.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(embedding.weight[2], before[2] * 0.95)


def test_state_moves_to_another_optimizer():
    first, second = table(), table()
    one, other = LazyAdam(first.parameters(), lr=0.1), LazyAdam(second.parameters(), lr=0.1)
    for ids in ([1, 2], [2, 3]):
        backward(first, ids, torch.ones(2, 3))
        one.step()
    second.load_state_dict(first.state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for embedding, optimizer in ((first, one), (second, other)):
        backward(embedding, [1, 5], torch.full((2, 3), 0.3))
        optimizer.step()
    assert torch.equal(first.weight, second.weight)
    assert set(one.state[first.weight]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_dense_gradient_is_refused():
    embedding = nn.Embedding(4, 2)
    optimizer = LazyAdam(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="dense"):
        optimizer.step()
