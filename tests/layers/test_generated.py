"""Generated weights: once for each different condition, and the same layer as one whose weights are written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from multidomain.layers import generated
from multidomain.layers.generated import Distinct, GeneratedLinear


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def _conditions(rows: int, different: int, width: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """A table of conditions and, for each row, which of them it has; each occurs."""
    index = torch.cat([torch.arange(different), torch.randint(different, (rows - different,))])
    return torch.randn(different, width), index[torch.randperm(rows)]


def _layer(**sizes: int) -> GeneratedLinear:
    layer = GeneratedLinear(**{"condition": 3, "in_features": 5, "out_features": 2, **sizes})
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def _by_hand(layer: GeneratedLinear, x: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``W(c)ᵀ x + b(c)`` for one row, W written out number by number."""
    A, a = (p.detach().numpy() for p in (layer.generator.weight, layer.generator.bias))
    made = A @ c + a
    i, o = layer.in_features, layer.out_features
    b = made[i * o :] if len(made) > i * o else np.zeros(o)
    return np.array([sum(made[p * o + q] * x[p] for p in range(i)) + b[q] for q in range(o)])


def test_the_different_rows_are_found_each_once():
    table, index = _conditions(50, 7)
    found = Distinct.of(table[index])
    assert found.rows.shape == (7, 3)
    assert torch.equal(found.rows[found.index], table[index])


def test_no_rows_and_one_row_are_no_trouble():
    assert Distinct.of(torch.randn(0, 3)).rows.shape == (0, 3)
    assert Distinct.of(torch.randn(1, 3)).index.tolist() == [0]


def test_rows_that_only_look_the_same_to_the_sort_are_told_apart(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cumprod", lambda tensor, _: torch.zeros_like(tensor))  # every row has key 0
    table, index = _conditions(50, 7)
    found = Distinct.of(table[index])
    assert len(found.rows) == 7
    assert torch.equal(found.rows[found.index], table[index])


def test_what_the_rows_of_a_condition_learn_reaches_its_embedding_whole():
    table, index = _conditions(50, 4)
    learnt, weight = table.clone().requires_grad_(), torch.randn(50, 3)
    found = Distinct.of(learnt[index])
    (found.rows[found.index] * weight).sum().backward()
    torch.testing.assert_close(learnt.grad, torch.zeros(4, 3).index_add(0, index, weight))


def test_rows_that_share_a_condition_by_value_share_its_gradient():
    condition = torch.tensor([[1.0], [2.0], [1.0]], requires_grad=True)
    found = Distinct.of(condition)
    (found.rows[found.index] * torch.tensor([[3.0], [5.0], [4.0]])).sum().backward()
    assert condition.grad.tolist() == [[3.5], [5.0], [3.5]]


@pytest.mark.parametrize("different", [2, 40], ids=["many rows per condition", "few"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_made_for_each_condition_is_the_one_written_down(different, bias):
    table, index = _conditions(90, different)
    layer, x = _layer(bias=bias), torch.randn(90, 5)
    found, conditions = Distinct.of(table[index]), table[index].numpy()
    expected = [_by_hand(layer, row, c) for row, c in zip(x.numpy(), conditions, strict=True)]
    np.testing.assert_allclose(layer.distinct(x, found).detach(), expected, atol=1e-4)
    wide = torch.stack([x, -x, 2 * x], dim=1)
    expected = [[_by_hand(layer, one, c) for one in row] for row, c in zip(wide.numpy(), conditions, strict=True)]
    np.testing.assert_allclose(layer.distinct(wide, found).detach(), expected, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_made_for_each_row_and_head_is_the_one_written_down(bias):
    layer, x, condition = _layer(bias=bias), torch.randn(6, 5), torch.randn(6, 4, 3)
    pairs = zip(x.numpy(), condition.numpy(), strict=True)
    expected = [[_by_hand(layer, row, c) for c in heads] for row, heads in pairs]
    np.testing.assert_allclose(layer(x, condition).detach(), expected, atol=1e-4)  # one input for all heads
    each = x.unsqueeze(1).expand(-1, 4, -1)
    np.testing.assert_allclose(layer(each, condition).detach(), expected, atol=1e-4)


def test_both_ways_to_apply_a_layer_have_the_same_gradients():
    x, condition = torch.randn(6, 5), torch.randn(6, 4, 3)
    layer, gradients = _layer(), []
    for inputs in (x, x.unsqueeze(1).expand(-1, 4, -1)):
        layer.zero_grad()
        layer(inputs, condition).square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("different", [2, 40], ids=["many rows per condition", "few"])
def test_gradients_are_those_of_finite_differences(different):
    table, index = _conditions(90, different)
    table, layer, x = table.double().requires_grad_(), _layer().double(), torch.randn(90, 5).double().requires_grad_()
    weights = tuple(layer.parameters())

    def output(table, x, *_):
        found = Distinct(table, index)
        return layer.distinct(x, found).square().mean(0)

    assert torch.autograd.gradcheck(output, (table, x, *weights), fast_mode=True)


@pytest.mark.parametrize("rows", [6, 600])
def test_weights_are_generated_once_for_each_condition_however_many_rows_have_it(rows):
    layer, condition = _layer(), torch.eye(3)[torch.arange(rows) % 3]
    with FlopCounterMode(display=False) as counter:
        layer.distinct(torch.randn(rows, 5), Distinct.of(condition))
    generating, applying = 3 * 3 * (5 * 2 + 2), rows * 5 * 2  # multiplications
    assert counter.get_total_flops() == 2 * (generating + applying)


def test_at_the_start_the_layer_is_an_ordinary_one_with_he_weights():
    torch.manual_seed(0)
    layer = GeneratedLinear(condition=16, in_features=64, out_features=64)
    weight, bias = layer.weights(torch.zeros(1, 16))
    assert not bias.any()
    assert weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    other = layer.weights(torch.randn(1, 16))[0] - weight  # a condition as large as weights ever are adds as much
    assert other.std().item() == pytest.approx(64**-0.5, rel=0.5)


def test_a_layer_may_start_as_the_identity():
    layer = GeneratedLinear(condition=3, in_features=5, out_features=5, identity=True)
    weight, bias = layer.weights(torch.zeros(1, 3))
    assert torch.equal(weight[0], torch.eye(5))
    assert not bias.any()


def test_the_threshold_between_the_two_ways_is_where_the_tests_think_it_is():
    assert 90 / 40 < generated._FEW < 90 / 2
