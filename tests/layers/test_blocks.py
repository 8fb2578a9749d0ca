"""Groups put together: every row keeps its group's weights, and what fills a block up neither counts nor learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.layers import blocks
from multidomain.layers.blocks import Blocks
from multidomain.layers.domain_linear import DomainMLP, Segments, StarFCN
from multidomain.layers.grouped import grouped_linear

CPU = torch.device("cpu")
COUNTS = st.lists(st.integers(0, 300), min_size=1, max_size=30).filter(any)


@given(counts=COUNTS)
def test_every_sorted_row_lies_in_its_group_s_rows_and_comes_back(counts):
    laid = Blocks.together(counts, CPU)
    group = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    row = torch.arange(sum(counts))
    there = laid.enter(torch.stack([group, row], dim=1))
    for block in laid.each:
        rows = block.of(there).view(len(block.groups), block.rows, 2)
        for number, own in zip(block.groups, rows, strict=True):
            assert (own[:, 0] == number).all()
            assert own[: counts[number], 1].tolist() == row[group == number].tolist()
    assert torch.equal(laid.leave(there), torch.stack([group, row], dim=1))
    assert sorted(laid.groups) == [number for number, rows in enumerate(counts) if rows]


@given(counts=COUNTS)
def test_blocks_hold_few_small_groups_and_are_filled_up_by_little(counts):
    laid = Blocks.together(counts, CPU)
    for block in laid.each:
        assert len(block.groups) <= blocks.TOGETHER
        own = [counts[group] for group in block.groups]
        assert block.rows == max(own)
        assert len(own) == 1 or max(own) <= blocks.SMALL
        assert max(own) <= min(own) * (1 + 1 / blocks.SPARE) + 2


def test_groups_of_no_other_s_size_lie_as_they_are_sorted():
    laid = Blocks.together([40, 0, 200, 5, 1000, 129], CPU)
    assert laid.order is None
    assert laid == Blocks.sorted([40, 0, 200, 5, 1000, 129])


def test_blocks_of_groups_are_counted_by_hand():
    laid = Blocks.together([3, 40, 0, 2, 41, 7], CPU)
    assert [tuple(block) for block in laid.each] == [((3, 0), 0, 3), ((5,), 6, 7), ((1, 4), 13, 41)]
    assert laid.order.tolist()[:6] == [43, 44, 43, 0, 1, 2]  # the third of two rows is the first of them again
    assert len(laid.order) == 6 + 7 + 82
    assert laid.places.tolist()[:3] == [3, 4, 5]


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=2, max_size=12).filter(any), sparse=st.booleans())
@pytest.mark.parametrize("kind", ["star", "own"])
def test_layers_put_together_are_those_of_each_domain_by_itself(kind, counts, sparse):
    torch.manual_seed(sum(counts))
    domains, options = len(counts) - 1, {"in_features": 6, "hidden": [5, 4]}
    network = StarFCN(domains=domains, **options) if kind == "star" else DomainMLP(domains=domains, **options)
    for layer in network.layers:
        torch.nn.init.normal_(layer.domain_weight)
        torch.nn.init.normal_(layer.domain_bias)
        layer.sparse = sparse
    network.double()
    domain = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = torch.randn(sum(counts), 6, dtype=torch.float64, requires_grad=True)
    found = []
    for together in (True, False):
        segments = Segments.of(domain, domains)
        if not together:
            object.__setattr__(segments, "for_layers", lambda segments=segments: segments)
        output = network(x, segments)
        gradients = torch.autograd.grad(output.square().sum(), [x, *network.parameters()])
        found.append([output, *(gradient.to_dense() for gradient in gradients)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_evaluation_leaves_the_rows_as_they_are_sorted():
    segments = Segments.of(torch.tensor([0, 0, 1, 1, 2]), 2)
    assert segments.for_layers().blocks.order is not None
    with torch.inference_mode():
        assert segments.for_layers().blocks == Blocks.sorted([2, 2, 1])


def test_a_batch_without_rows_has_no_blocks():
    laid = Blocks.together([0, 0], CPU)
    assert laid.each == []
    assert grouped_linear(torch.zeros(0, 3), laid, torch.ones(2, 3, 4), torch.ones(2, 4)).shape == (0, 4)
