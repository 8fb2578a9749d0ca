from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import embedding_bag

from multidomain.layers.pooling import grouped, pooled_sum

ROWS = st.lists(st.integers(0, 6), min_size=1, max_size=30)


def first_columns(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths[:-1]]).cumsum(0)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS)
def test_the_places_of_equal_rows_are_put_together_in_their_order(rows):
    different, places, starts = grouped(torch.tensor(rows), 7)
    assert different.tolist() == sorted(set(rows))
    ends = [*starts.tolist()[1:], len(rows)]
    for row, start, end in zip(different.tolist(), starts.tolist(), ends, strict=True):
        assert places[start:end].tolist() == [place for place, one in enumerate(rows) if one == row]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 5),
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any),
    weighted=st.booleans(),
    seed=st.integers(0, 9),
)
def test_sums_and_gradients_are_those_of_plain_indexing(batch, lengths, weighted, seed):
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(7, 3, generator=draw, dtype=torch.float64).requires_grad_()
    rows = torch.randint(0, 7, (batch, sum(lengths)), generator=draw)
    weights = torch.rand(rows.shape, generator=draw, dtype=torch.float64) if weighted else None
    pooled = pooled_sum(table, rows, first_columns(lengths), weights, sparse=True)
    embedded = table[rows] * (1 if weights is None else weights.unsqueeze(-1))
    expected = torch.stack([part.sum(1) for part in embedded.split(lengths, 1)], dim=1)
    torch.testing.assert_close(pooled.view_as(expected), expected)
    factor = torch.randn(expected.shape, generator=draw, dtype=torch.float64)
    (by_hand,) = torch.autograd.grad((expected * factor).sum(), table)
    (ours,) = torch.autograd.grad((pooled.view_as(expected) * factor).sum(), table)
    assert ours.is_sparse
    assert ours._indices()[0].tolist() == sorted(set(rows.flatten().tolist()))
    torch.testing.assert_close(ours.to_dense(), by_hand)


@pytest.mark.parametrize("lengths", [[1, 1, 1, 1], [1, 3], [2, 2]])
def test_the_gradient_is_the_one_of_embedding_bag(lengths):
    torch.manual_seed(0)
    table = torch.randn(9, 4, requires_grad=True)
    rows, weights = torch.randint(0, 9, (50, 4)), torch.rand(50, 4)
    firsts = first_columns(lengths)
    bags = (torch.arange(50)[:, None] * 4 + firsts).flatten()
    theirs = embedding_bag(rows.flatten(), table, bags, mode="sum", per_sample_weights=weights.flatten(), sparse=True)
    ours = pooled_sum(table, rows, firsts, weights, sparse=True)
    assert torch.equal(ours, theirs)
    factor = torch.randn_like(ours)
    gradients = [torch.autograd.grad((one * factor).sum(), table)[0].to_dense() for one in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_a_table_without_sparse_gradients_gets_a_dense_one():
    table = torch.randn(5, 2, requires_grad=True)
    pooled_sum(table, torch.tensor([[1, 1], [3, 0]]), torch.tensor([0, 1]), None, sparse=False).sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[1, 1], [2, 2], [0, 0], [1, 1], [0, 0]]
