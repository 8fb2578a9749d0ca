from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain.layers.domain_linear import (
    DomainLinear,
    DomainMLP,
    DomainOutputs,
    FoldedFCN,
    Segments,
    StarFCN,
    StarLinear,
)


def _layer(domains: int = 3) -> StarLinear:
    torch.manual_seed(2)
    layer = StarLinear(in_features=4, out_features=2, domains=domains)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


@given(st.lists(st.integers(0, 5), min_size=0, max_size=30))
@settings(max_examples=30, deadline=None)
def test_sorting_and_unsorting_a_batch_gives_it_back(ids):
    domain = torch.tensor(ids, dtype=torch.int32)
    segments = Segments.of(domain, 5)
    x = torch.arange(len(ids))
    assert segments.domain.tolist() == sorted(ids)
    assert segments.counts == [ids.count(p) for p in range(6)]
    assert torch.equal(segments.unsort(segments.sort(x)), x)


@pytest.mark.parametrize("p", [0, 3, 5])
def test_a_batch_of_one_domain_is_sorted_as_it_stands(p):
    x, segments = torch.randn(7, 2), Segments.of(torch.full((7,), p, dtype=torch.int32), 5)
    assert segments.sort(x) is x
    assert segments.unsort(x) is x
    assert segments.domain.tolist() == [p] * 7
    assert segments.domain.dtype == torch.int64
    assert segments.counts == [7 if q == p else 0 for q in range(6)]


@pytest.mark.parametrize("domains", [[2, 2, 2], [0, 2, 2, 3], [3], []], ids=str)
def test_folded_weights_give_what_the_star_gives(domains):
    fcn = StarFCN(in_features=4, hidden=[6, 5], domains=3, out_features=2)
    with torch.no_grad():
        for layer in fcn.layers:
            layer.domain_weight.normal_(mean=1.0)
            layer.domain_bias.normal_()
    x, segments = torch.randn(len(domains), 4), Segments.of(torch.tensor(domains, dtype=torch.int64), 3)
    torch.testing.assert_close(FoldedFCN(fcn)(x, segments), fcn(x, segments), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("ids", [[0, 4], [-1, 0]])
def test_a_domain_id_out_of_range_is_an_error(ids):
    with pytest.raises(IndexError, match="the model knows 0 to 2, and 3 for an unknown domain"):
        Segments.of(torch.tensor(ids), 3)


def test_the_state_has_the_names_and_shapes_of_the_specification():
    shapes = {key: tuple(value.shape) for key, value in _layer().state_dict().items()}
    assert shapes == {"weight": (4, 2), "bias": (2,), "domain_weight": (3, 4, 2), "domain_bias": (3, 2)}


def test_each_row_meets_the_product_of_shared_and_own_weights_eq_5_and_6():
    layer = _layer()
    s = {key: value.detach().double().numpy() for key, value in layer.named_parameters()}
    x, domain = torch.randn(7, 4), torch.tensor([2, 0, 3, 2, 0, 3, 2])  # domain 1 is absent, 3 is unknown
    expected = []
    for row, p in zip(x.double().numpy(), domain.tolist(), strict=True):
        weight = s["weight"] * (s["domain_weight"][p] if p < 3 else 1)
        bias = s["bias"] + (s["domain_bias"][p] if p < 3 else 0)
        expected.append(weight.T @ row + bias)
    np.testing.assert_allclose(layer(x, domain).detach(), np.stack(expected), atol=1e-5)


def test_gradients_are_those_of_the_product():
    layer = _layer().double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    domain = torch.tensor([0, 2, 0, 3, 2])
    assert torch.autograd.gradcheck(
        lambda x, *_: layer(x, domain), (x, *layer.parameters()), atol=1e-6, check_batched_grad=False
    )


def test_the_weights_of_a_domain_move_only_with_its_rows():
    layer = _layer()
    layer(torch.randn(6, 4), torch.tensor([0, 0, 2, 2, 2, 3])).sum().backward()
    moved = [layer.domain_weight.grad[p].any().item() for p in range(3)]
    assert moved == [True, False, True]
    assert [layer.domain_bias.grad[p].any().item() for p in range(3)] == moved
    assert layer.weight.grad.any()


def test_the_network_of_another_domain_is_never_computed():
    layer = _layer()
    with torch.no_grad():
        layer.domain_weight[1] = float("nan")
        layer.domain_bias[1] = float("nan")
    out = layer(torch.randn(5, 4), torch.tensor([0, 2, 3, 0, 2]))
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert torch.isfinite(layer.weight.grad).all()
    assert torch.isfinite(layer.domain_weight.grad[[0, 2]]).all()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_of_one_row_and_of_none(rows):
    assert _layer()(torch.randn(rows, 4), torch.full((rows,), 1)).shape == (rows, 2)


def test_domain_weights_start_at_one_and_biases_at_zero():
    layer = StarLinear(in_features=300, out_features=200, domains=2)
    assert (layer.domain_weight == 1).all()
    assert not layer.bias.any()
    assert not layer.domain_bias.any()
    assert layer.weight.std().item() == pytest.approx((2 / 300) ** 0.5, rel=0.02)


def test_star_gives_the_weights_of_every_domain_and_of_the_unknown_one():
    layer = _layer()
    weight, bias = layer.star()
    assert torch.equal(weight[1], layer.domain_weight[1] * layer.weight)
    assert torch.equal(weight[3], layer.weight)
    assert torch.equal(bias[3], layer.bias)
    assert weight.shape == (4, 4, 2)
    assert bias.shape == (4, 2)


def test_autocast_agrees_to_its_precision():
    torch.manual_seed(0)
    network = StarFCN(in_features=8, hidden=[16, 8], domains=3)
    x, segments = torch.randn(20, 8), Segments.of(torch.arange(20) % 4, 3)
    exact = network(segments.sort(x), segments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(segments.sort(x), segments)
    rough.float().sum().backward()
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0.1)


def test_the_logit_has_a_sensible_spread_after_seven_layers():
    torch.manual_seed(0)
    network = StarFCN(in_features=100, hidden=[512, 256, 128, 64, 32, 16], domains=2)
    segments = Segments.of(torch.arange(500) % 2, 2)
    spread = network(torch.randn(500, 100), segments).std().item()
    assert 0.2 < spread < 3


def test_a_domain_mlp_is_a_plain_network_per_domain_and_only_domains_present_learn():
    torch.manual_seed(0)
    towers = DomainMLP(in_features=3, hidden=[4], domains=2)
    x, domain = torch.randn(7, 3), torch.tensor([2, 0, 0, 2, 0, 2, 0])
    segments = Segments.of(domain, 2)
    output = segments.unsort(towers(segments.sort(x), segments))
    first, last = towers.layers
    for row, p in enumerate(domain.tolist()):
        hidden = torch.relu(x[row] @ first.domain_weight[p] + first.domain_bias[p])
        torch.testing.assert_close(output[row], hidden @ last.domain_weight[p] + last.domain_bias[p])
    output.sum().backward()
    for layer in towers.layers:
        assert layer.domain_weight.grad[0].any()
        assert layer.domain_weight.grad[2].any()
        assert not layer.domain_weight.grad[1].any()


def test_the_layers_of_all_domains_on_one_input_or_on_one_each():
    torch.manual_seed(0)
    layer = DomainLinear(weight=torch.randn(3, 4, 2), bias=torch.randn(3, 2))
    together, apart = torch.randn(6, 4), torch.randn(3, 6, 4)
    for p in range(3):
        weight, bias = layer.domain_weight[p], layer.domain_bias[p]
        torch.testing.assert_close(layer.every(together)[p], together @ weight + bias)
        torch.testing.assert_close(layer.every(apart)[p], apart[p] @ weight + bias)
    own = layer.segmented(together, Segments.of(torch.tensor([0, 0, 1, 1, 2, 2]), 2))
    torch.testing.assert_close(layer.every(together)[[0, 0, 1, 1, 2, 2], range(6)], own)


def test_a_shared_layer_with_an_output_per_domain():
    torch.manual_seed(0)
    layer = DomainOutputs(in_features=400, out_features=30)
    x = torch.randn(200, 400)
    torch.testing.assert_close(layer(x), x @ layer.domain_weight + layer.domain_bias)
    assert layer(x).std().item() == pytest.approx(1, abs=0.1)
