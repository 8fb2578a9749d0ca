from __future__ import annotations

import numpy as np
import pytest
import torch

from multidomain.layers.normalization import NORMALIZATIONS, PartitionedNorm, normalization


def _filled(features: int = 2, domains: int = 3) -> PartitionedNorm:
    torch.manual_seed(1)
    layer = PartitionedNorm(features=features, domains=domains)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


def _numpy(layer: PartitionedNorm) -> dict[str, np.ndarray]:
    return {key: value.detach().double().numpy().copy() for key, value in layer.state_dict().items()}


def test_the_state_has_the_names_and_shapes_of_the_specification():
    shapes = {key: tuple(value.shape) for key, value in PartitionedNorm(features=4, domains=3).state_dict().items()}
    per_domain = ("domain_weight", "domain_bias", "running_mean", "running_var")
    assert {"weight": (4,), "bias": (4,), **dict.fromkeys(per_domain, (3, 4))}.items() <= shapes.items()


def test_training_normalizes_each_domain_with_its_own_moments_eq_3():
    layer = _filled()
    s = _numpy(layer)
    z = torch.randn(40, 2) * 3 + 5
    domain = torch.tensor([0, 2] * 20)
    out = layer(z, domain).detach().numpy()
    for p in (0, 2):
        rows = z[domain == p].double().numpy()
        mean, variance = rows.mean(0), rows.var(0)
        scale, shift = s["weight"] * s["domain_weight"][p], s["bias"] + s["domain_bias"][p]
        expected = scale * (rows - mean) / np.sqrt(variance + 1e-5) + shift
        np.testing.assert_allclose(out[domain.numpy() == p], expected, atol=1e-5)
        np.testing.assert_allclose(layer.running_mean[p], 0.1 * mean, atol=1e-6)
        np.testing.assert_allclose(layer.running_var[p], 0.9 + 0.1 * variance, atol=1e-5)
    assert layer.running_mean[1].tolist() == [0, 0]
    assert layer.running_var[1].tolist() == [1, 1]
    assert layer.rows_seen.tolist() == [20, 0, 20]
    assert layer.batches_seen.tolist() == [1, 0, 1]


@pytest.mark.parametrize("rows", [8, 40])
def test_a_batch_of_one_domain_is_normalized_as_its_rows_are_in_a_mixed_batch(rows):
    """The shorter way for one domain: output, gradients and moments, against a batch with rows of another domain."""
    alone, mixed = _filled(features=3), _filled(features=3)
    z, of_others, weight = torch.randn(rows, 3) * 3 + 5, torch.randn(20, 3), torch.randn(rows, 3)
    inputs = [z.clone().requires_grad_(), z.clone().requires_grad_()]
    domain = torch.cat([torch.full((rows,), 1), torch.full((20,), 2)])
    outputs = [alone(inputs[0], domain[:rows]), mixed(torch.cat([inputs[1], of_others]), domain)[:rows]]
    for output in outputs:
        (output * weight).sum().backward()
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-5, rtol=1e-4)
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(parameter.grad, dict(mixed.named_parameters())[name].grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.running_mean[1], mixed.running_mean[1])
    torch.testing.assert_close(alone.running_var[1], mixed.running_var[1])
    assert alone.running_var[2].tolist() == [1, 1, 1]
    assert alone.rows_seen.tolist() == [0, rows, 0]
    assert alone.batches_seen.tolist() == [0, 1, 0]


def test_evaluation_uses_the_running_moments_eq_4():
    layer = _filled()
    for _ in range(3):
        layer(torch.randn(30, 2) * 2 + 1, torch.arange(30) % 3)
    layer.eval()
    s = _numpy(layer)
    z, p = torch.randn(5, 2), 1
    expected = s["weight"] * s["domain_weight"][p] * (z.numpy() - s["running_mean"][p])
    expected = expected / np.sqrt(s["running_var"][p] + 1e-5) + s["bias"] + s["domain_bias"][p]
    np.testing.assert_allclose(layer(z, torch.full((5,), p)).detach(), expected, atol=1e-5)


def test_the_gradient_is_that_of_batch_normalization_for_each_domain():
    layer = _filled(features=3, domains=2).double()
    z = torch.randn(30, 3, dtype=torch.float64, requires_grad=True)
    domain = torch.arange(30) % 2
    weights = torch.randn(30, 3, dtype=torch.float64)
    layer_gradient, *parameter_gradients = torch.autograd.grad(
        (layer.double()(z, domain) * weights).sum(), [z, layer.weight, layer.domain_weight, layer.domain_bias]
    )
    reference = torch.zeros_like(weights)
    for p in (0, 1):
        rows = domain == p
        reference[rows] = torch.nn.functional.batch_norm(
            z[rows],
            None,
            None,
            layer.weight * layer.domain_weight[p],
            layer.bias + layer.domain_bias[p],
            training=True,
        )
    expected = torch.autograd.grad(
        (reference * weights).sum(), [z, layer.weight, layer.domain_weight, layer.domain_bias]
    )
    torch.testing.assert_close(layer_gradient, expected[0], atol=1e-4, rtol=1e-4)
    for got, want in zip(parameter_gradients, expected[1:], strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_it_starts_as_plain_normalization():
    z, domain = torch.randn(64, 5), torch.zeros(64, dtype=torch.int64)
    out = PartitionedNorm(features=5, domains=2)(z, domain)
    torch.testing.assert_close(out, torch.nn.BatchNorm1d(5)(z), atol=1e-5, rtol=1e-5)


def test_a_domain_with_fewer_than_eight_rows_uses_and_keeps_its_running_moments():
    layer = _filled()
    layer(torch.randn(30, 2) + 4, torch.arange(30) % 3)
    before = _numpy(layer)
    z = torch.randn(17, 2)
    domain = torch.tensor([0] * 10 + [1] * 7)
    out = layer(z, domain).detach().numpy()[10:]
    after = _numpy(layer)
    assert (before["running_mean"][1] == after["running_mean"][1]).all()
    assert (before["running_mean"][0] != after["running_mean"][0]).all()
    expected = (z[10:].numpy() - before["running_mean"][1]) / np.sqrt(before["running_var"][1] + 1e-5)
    expected = before["weight"] * before["domain_weight"][1] * expected + before["bias"] + before["domain_bias"][1]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_eight_rows_are_enough():
    layer = PartitionedNorm(features=1, domains=1)
    out = layer(torch.arange(8.0).unsqueeze(1), torch.zeros(8, dtype=torch.int64))
    assert out.mean().item() == pytest.approx(0, abs=1e-6)
    assert layer.batches_seen.item() == 1


def test_the_unknown_domain_has_the_moments_of_all_rows_together():
    layer = PartitionedNorm(features=1, domains=3)
    layer.momentum = 1.0  # so that the running moments are those of the batch
    first, second = torch.randn(30, 1) * 2 + 7, torch.randn(10, 1) - 3
    layer(torch.cat([first, second]), torch.tensor([0] * 30 + [2] * 10))
    with torch.no_grad():
        layer.domain_weight.fill_(5)
        layer.domain_bias.fill_(5)
    layer.eval()
    everything = torch.cat([first, second])
    z = torch.tensor([[1.5]])
    expected = (z - everything.mean()) / (everything.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(layer(z, torch.tensor([3])), expected, atol=1e-5, rtol=1e-5)


def test_a_domain_never_seen_in_training_counts_as_unknown():
    layer = PartitionedNorm(features=2, domains=3)
    layer(torch.randn(40, 2) * 2 + 3, torch.arange(40) % 2)
    layer.eval()
    z = torch.randn(1, 2)
    assert torch.equal(layer(z, torch.tensor([2])), layer(z, torch.tensor([3])))
    assert not torch.equal(layer(z, torch.tensor([2])), layer(z, torch.tensor([1])))


def test_a_large_mean_does_not_swallow_the_variance():
    layer = PartitionedNorm(features=1, domains=1)
    small = torch.randn(1000, 1)
    out = layer(small + 10_000, torch.zeros(1000, dtype=torch.int64))
    expected = (small - small.mean()) / small.std(unbiased=False)
    assert (out - expected).abs().max().item() < 0.01


def test_a_constant_feature_is_finite():
    layer = PartitionedNorm(features=1, domains=1)
    z = torch.full((20, 1), 3.0, requires_grad=True)
    out = layer(z, torch.zeros(20, dtype=torch.int64))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(z.grad).all()


def test_the_affine_form_is_the_evaluation_form():
    layer = _filled()
    layer(torch.randn(30, 2) * 3 + 2, torch.arange(30) % 2)
    layer.eval()
    scale, shift = layer.affine()
    z, domain = torch.randn(4, 2), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close((scale * z + shift).float(), layer(z, domain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_every_normalization_takes_one_row_and_none(name, training):
    layer = normalization(name, features=3, domains=2).train(training)
    for rows in (1, 0):
        out = layer(torch.randn(rows, 3), torch.full((rows,), 2))
        assert out.shape == (rows, 3)
        assert torch.isfinite(out).all()


def test_an_unknown_normalization_is_an_error():
    with pytest.raises(ValueError, match="'grouped'; there are partitioned, batch, layer, none"):
        normalization("grouped", features=1, domains=1)
