from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.layers.blocks import Blocks
from multidomain.layers.grouped import grouped_linear, star_linear

COUNTS = st.lists(st.integers(0, 4), min_size=1, max_size=5)


def grouped(counts: list[int]) -> tuple[torch.Tensor, ...]:
    """x, weight and bias of so many groups, in double precision."""
    torch.manual_seed(sum(counts))
    shapes = [(sum(counts), 3), (len(counts), 3, 2), (len(counts), 2)]
    return tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


def star(counts: list[int]) -> tuple[torch.Tensor, ...]:
    """x, W, b, W_p and b_p; the last count is that of the unknown domain."""
    torch.manual_seed(sum(counts))
    M = len(counts) - 1
    shapes = [(sum(counts), 3), (3, 2), (2,), (M, 3, 2), (M, 2)]
    return tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


def by_row(x, counts, weight, bias):
    group = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return torch.einsum("bi,bio->bo", x, weight[group]) + bias[group]


def star_by_row(x, counts, weight, bias, domain_weight, domain_bias):
    one, none = torch.ones_like(weight).unsqueeze(0), torch.zeros_like(bias).unsqueeze(0)
    return by_row(x, counts, torch.cat([domain_weight, one]) * weight, torch.cat([domain_bias, none]) + bias)


def gradients(output: torch.Tensor, tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    found = torch.autograd.grad((output * weights).sum(), tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


@settings(max_examples=40, deadline=None)
@given(counts=COUNTS, sparse=st.booleans())
def test_each_row_meets_its_group_s_weights_and_teaches_them(counts, sparse):
    x, weight, bias = tensors = grouped(counts)
    ours, expected = (
        grouped_linear(x, Blocks.sorted(counts), weight, bias, sparse=sparse),
        by_row(x, counts, weight, bias),
    )
    torch.testing.assert_close(ours, expected)
    for found, right in zip(gradients(ours, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(found.to_dense(), right)


@settings(max_examples=40, deadline=None)
@given(counts=COUNTS.filter(lambda counts: len(counts) > 1), sparse=st.booleans())
def test_each_row_meets_shared_times_own_weights_and_teaches_both(counts, sparse):
    tensors = star(counts)
    x, *weights = tensors
    ours, expected = star_linear(x, Blocks.sorted(counts), *weights, sparse=sparse), star_by_row(x, counts, *weights)
    torch.testing.assert_close(ours, expected)
    for found, right in zip(gradients(ours, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(found.to_dense(), right)


def test_a_sparse_gradient_holds_the_groups_with_rows_alone():
    counts = [2, 0, 3, 0]
    x, weight, bias = grouped(counts)
    _, of_weight, of_bias = gradients(
        grouped_linear(x, Blocks.sorted(counts), weight, bias, sparse=True), (x, weight, bias)
    )
    for gradient, tensor in ((of_weight, weight), (of_bias, bias)):
        assert gradient.is_sparse
        assert gradient.shape == tensor.shape
        assert gradient._indices().tolist() == [[0, 2]]
        assert gradient._values().shape == (2, *tensor.shape[1:])
    tensors = star([0, 2, 1])  # the last row is of an unknown domain
    *_, of_W_p, of_b_p = gradients(
        star_linear(tensors[0], Blocks.sorted([0, 2, 1]), *tensors[1:], sparse=True), tensors
    )
    assert of_W_p._indices().tolist() == of_b_p._indices().tolist() == [[1]]


def test_what_needs_no_gradient_gets_none():
    x, weight, bias = grouped([2, 1])
    output = grouped_linear(x.detach(), Blocks.sorted([2, 1]), weight, bias.detach())
    (found,) = torch.autograd.grad(output.sum(), [weight])
    torch.testing.assert_close(
        found, torch.stack([part.sum(0) for part in x.detach().split([2, 1])])[..., None].expand_as(weight)
    )


@pytest.mark.parametrize("kind", ["grouped", "star"])
@pytest.mark.parametrize(("counts", "dtype"), [([0, 5, 0], torch.bfloat16), ([3, 0, 2], torch.float32)])
def test_autocast_computes_one_group_in_its_precision_several_in_float32_and_gives_whole_gradients(kind, counts, dtype):
    make, product = (grouped, grouped_linear) if kind == "grouped" else (star, star_linear)
    tensors = tuple(tensor.detach().float().requires_grad_() for tensor in make(counts))
    exact = product(tensors[0], Blocks.sorted(counts), *tensors[1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = product(tensors[0], Blocks.sorted(counts), *tensors[1:], sparse=True)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), exact, atol=0.1, rtol=0.05)
    for found, right in zip(gradients(output.float(), tensors), gradients(exact, tensors), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.to_dense(), right, atol=0.2, rtol=0.05)
