"""The faster products of training are the usual ones, up to rounding; evaluation keeps to the usual ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from multidomain.layers import products
from multidomain.layers.blocks import Blocks
from multidomain.layers.grouped import grouped_linear, star_linear
from multidomain.layers.products import Linear, linear, outer, padded, times


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """On whatever processor, and however small the product."""
    if not torch._C._has_mkldnn:
        pytest.skip("this PyTorch is built without oneDNN")
    monkeypatch.setattr(products, "faster_by_onednn", lambda: True)
    monkeypatch.setattr(products, "LEAST", 1)
    monkeypatch.setattr(products, "ROWS", 1)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), i=st.integers(1, 40), o=st.integers(1, 40))
@pytest.mark.parametrize("biased", [True, False])
def test_a_linear_layer_and_its_gradients_are_the_usual_ones(biased, shape, i, o):
    generator = torch.Generator().manual_seed(i * 41 + o)
    parts = [torch.randn(*shape, i, generator=generator), torch.randn(o, i, generator=generator)]
    parts += [torch.randn(o, generator=generator)] if biased else []
    kinds = (linear, functional.linear)
    found, wanted = ([part.clone().requires_grad_() for part in parts] for _ in kinds)
    outputs = [kind(*given) for kind, given in zip(kinds, (found, wanted), strict=True)]
    close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for one, other in zip(found, wanted, strict=True):
        close(one.grad, other.grad)


def test_evaluation_computes_as_pytorch_does():
    layer, x = Linear(30, 20), torch.randn(50, 30)
    plain = torch.nn.Linear(30, 20)
    plain.load_state_dict(layer.state_dict())
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
    with torch.inference_mode():
        assert torch.equal(layer(x), plain(x))


def test_another_precision_is_left_to_pytorch():
    layer, x = Linear(30, 20).double(), torch.randn(5, 30, dtype=torch.float64)
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(30, 20)(x.float()).dtype == torch.bfloat16


@settings(deadline=None, max_examples=40)
@given(before=st.integers(0, 70), rows=st.integers(1, 90), behind=st.integers(0, 70))
def test_the_rows_of_a_group_are_multiplied_whatever_lies_beside_them(before, rows, behind):
    x, g = torch.randn(before + rows + behind, 12), torch.randn(before + rows + behind, 7)
    W, b, own = torch.randn(12, 7), torch.randn(7), slice(before, before + rows)
    place = torch.empty(rows, 7)
    close(times(x, before, rows, W, place, b), x[own] @ W + b)
    close(times(x, before, rows, W, place), x[own] @ W)
    place = torch.full((rows, 7), torch.nan)
    alone = before + behind == 0  # then it need not be copied there
    assert alone or times(x, before, rows, W, place).data_ptr() == place.data_ptr()
    assert alone or not place.isnan().any()
    close(outer(x, g, before, rows, torch.empty(12, 7)), x[own].T @ g[own])


def test_onednn_never_meets_weights_with_gaps(monkeypatch):
    """Of part of a wider matrix oneDNN takes hundreds of times as long."""
    met, plain = [], products._dense
    monkeypatch.setattr(products, "_dense", lambda weight: met.append(plain(weight)) or met[-1])
    W, x = torch.randn(5, 12, requires_grad=True), torch.randn(40, 9, requires_grad=True)
    given_part = linear(x[:, 3:6], W[:, 6:9])
    outer(x.detach()[:, 3:6], torch.randn(40, 10)[:, 2:7], 4, 30, torch.empty(3, 5))
    given_part.square().sum().backward()
    assert len(met) == 4  # forward, back to x, back to W, outer
    assert all(weight.is_contiguous() or weight.t().is_contiguous() for weight in met)
    close(x.grad[:, 3:6], 2 * given_part.detach() @ W.detach()[:, 6:9])
    for whole in (W.detach(), W.detach().t()):
        assert plain(whole) is whole  # nothing is copied in vain


@given(rows=st.integers(1, 100_000))
def test_rows_are_filled_up_by_an_eighth_at_most(rows):
    assert rows <= padded(rows) <= rows * 1.125
    assert padded(padded(rows)) == padded(rows)


def test_there_are_few_numbers_of_rows():
    assert len({padded(rows) for rows in range(1025, 2049)}) == products.STEPS


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("counts", [[0, 40, 3, 17, 0, 60], [0, 0, 120, 0, 0, 0], [0, 0, 0, 0, 0, 120]])
def test_layers_of_domains_are_the_usual_ones(monkeypatch, sparse, counts):
    x, W, b = torch.randn(120, 30), torch.randn(30, 20), torch.randn(20)
    W_p, b_p, own, own_b = torch.randn(5, 30, 20), torch.randn(5, 20), torch.randn(6, 30, 20), torch.randn(6, 20)
    found = []
    for fast in (True, False):
        monkeypatch.setattr(products, "faster_by_onednn", lambda fast=fast: fast)
        given_ = [part.clone().requires_grad_() for part in (x, W, b, W_p, b_p, own, own_b)]
        star = star_linear(given_[0], Blocks.sorted(counts), *given_[1:5], sparse=sparse)
        grouped = grouped_linear(given_[0], Blocks.sorted(counts), *given_[5:], sparse=sparse)
        (star.square().sum() + grouped.square().sum()).backward()
        found.append([star, grouped, *(part.grad.to_dense() for part in given_)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-2)


def test_scores_of_evaluation_do_not_depend_on_the_rows_beside():
    x, W, b = torch.randn(100, 30), torch.randn(2, 30, 20), torch.randn(2, 20)
    with torch.inference_mode():
        together = grouped_linear(x, Blocks.sorted([37, 63]), W, b)
        assert torch.equal(together[:37], torch.addmm(b[0], x[:37], W[0]))
