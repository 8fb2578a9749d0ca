"""The equations of the DCN paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interactions_by_hand import common_parameters
from model_cases import SCHEMA, SMALL, make_batch, trained
from towers_by_hand import State, auxiliary, dense, state

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.layers.normalization import BatchNorm
from multidomain.models.baselines.dcn import CrossNetwork


def expected_parameters(model: models.MultiDomainModel) -> int:
    """Six cross layers of 2c; two deep layers with batch normalization (2 each); the combination layer."""
    c, (h1, h2) = model.inputs.width, SMALL["hidden"]
    return common_parameters(model) + 6 * 2 * c + dense(c, h1, h2) + 2 * (h1 + h2) + (c + h2 + 1)


def _by_hand(s: State, z: np.ndarray, p: int, batch_norm: bool) -> float:
    x_l = z
    for w, b in zip(s["cross.weight"], s["cross.bias"], strict=True):
        x_l = np.outer(z, x_l) @ w + b + x_l  # Eq. 3
    h = z
    for number in range(2):
        h = s[f"deep.layers.{number}.weight"] @ h + s[f"deep.layers.{number}.bias"]
        if batch_norm:
            n = f"deep.norms.{number}."
            h = (h - s[n + "running_mean"]) / np.sqrt(s[n + "running_var"] + 1e-5) * s[n + "weight"] + s[n + "bias"]
        h = np.maximum(h, 0)  # Eq. 4
    logit = s["combination.weight"][0] @ np.concatenate([x_l, h]) + s["combination.bias"][0]  # Eq. 5
    return logit + auxiliary(s, z, p)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_logit_is_that_of_equations_3_to_5(batch_norm):
    model = trained("dcn", steps=20, batch_norm=batch_norm).eval()
    batch, s = make_batch(12, seed=4), state(model)
    z = model.inputs(batch).z.detach().double().numpy()
    expected = [_by_hand(s, row, p, batch_norm) for row, p in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_two_cross_layers_computed_by_hand():
    cross = CrossNetwork(features=2, layers=2)
    with torch.no_grad():
        cross.weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
        cross.bias.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    # x_0 = (1, 2): x_0ᵀ w = -1, x_1 = (-1, -2) + (0, 1) + (1, 2) = (0, 1); x_1ᵀ w = 1, x_2 = (1, 2) + (0, 1)
    assert cross(torch.tensor([[1.0, 2.0]])).tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_cross_layer_adds_one_degree_to_the_polynomial(layers):
    torch.manual_seed(0)
    cross = CrossNetwork(features=5, layers=layers).double()
    x = torch.randn(5, dtype=torch.float64)
    values = cross(torch.arange(layers + 3).unsqueeze(1) * x).detach().numpy()  # at 0, x, 2x, …
    degree = layers + 1
    assert np.abs(np.diff(values, n=degree, axis=0)).max() > 1e-6
    np.testing.assert_allclose(np.diff(values, n=degree + 1, axis=0), 0, atol=1e-8)


def test_the_deep_layers_are_normalized_by_layers_that_training_brings_up_to_date():
    model = models.build("dcn", SCHEMA, **SMALL)
    assert [layer.num_features for layer in model.modules() if isinstance(layer, BatchNorm)] == SMALL["hidden"]


def test_without_deep_layers_the_cross_network_stands_beside_its_input():
    model = trained("dcn", hidden=[]).eval()
    assert model.combination.in_features == 2 * model.inputs.width
    assert torch.isfinite(model(make_batch(5))).all()


def test_an_impossible_option_is_an_error():
    with pytest.raises(ConfigurationError, match="cross_layers must be a whole number of at least 1, got 0"):
        models.build("dcn", SCHEMA, cross_layers=0)
    with pytest.raises(ConfigurationError, match="batch_norm must be true or false"):
        models.build("dcn", SCHEMA, batch_norm=1)
