"""The equations of the DCN V2 paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interactions_by_hand import common_parameters
from model_cases import SCHEMA, SMALL, make_batch, trained
from towers_by_hand import State, auxiliary, dense, network, state

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.models.baselines.dcn import CrossNetwork
from multidomain.models.baselines.dcnv2 import LowRankCross, MatrixCross, MixtureCross


def expected_parameters(model: models.MultiDomainModel) -> int:
    """Three full matrices with biases, and the deep network behind them."""
    c = model.inputs.width
    return common_parameters(model) + 3 * (c * c + c) + dense(c, *SMALL["hidden"], 1)


def _cross(s: State, number: int, kind: str, gate: str, x_0: np.ndarray, x_l: np.ndarray) -> np.ndarray:
    s = {key.removeprefix(f"cross.{number}."): value for key, value in s.items()}
    if kind == "matrix":
        return x_0 * (s["linear.weight"] @ x_l + s["linear.bias"]) + x_l  # Eq. 1
    if kind == "low_rank":
        U, V = s["u.weight"], s["v.weight"].T
        return x_0 * (U @ (V.T @ x_l) + s["u.bias"]) + x_l  # Eq. 2
    scores = s["gate.weight"] @ x_l
    G = np.exp(scores) / np.exp(scores).sum() if gate == "softmax" else 1 / (1 + np.exp(-scores))
    out = x_l
    for G_i, U, C, V in zip(G, s["u"], s["c"], s["v"], strict=True):
        E_i = x_0 * (U.T @ np.tanh(C.T @ np.tanh(V.T @ x_l)) + s["bias"])  # Eq. 4
        out = out + G_i * E_i  # Eq. 3
    return out


def _by_hand(s, config, z: np.ndarray, p: int) -> float:
    x_l = z
    for number in range(3):
        x_l = _cross(s, number, config["cross"], config.get("gate", "softmax"), z, x_l)
    if config["structure"] == "stacked":
        logit = network(s, "deep.layers.", x_l, linear_output=True).item()
    else:
        h = z
        for number in range(2):
            h = np.maximum(s[f"deep.layers.{number}.weight"] @ h + s[f"deep.layers.{number}.bias"], 0)
        w_logit = np.concatenate([s["cross_output.weight"][0], s["deep.layers.2.weight"][0]])
        logit = w_logit @ np.concatenate([x_l, h]) + s["deep.layers.2.bias"].item()  # σ(w_logitᵀ [x_{L_c}, h_{L_d}])
    return logit + auxiliary(s, z, p)


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize(
    "kind",
    [
        {"cross": "matrix"},
        {"cross": "low_rank", "rank": 3},
        {"cross": "mixture", "rank": 3, "experts": 2},
        {"cross": "mixture", "rank": 3, "experts": 2, "gate": "sigmoid"},
    ],
    ids=str,
)
def test_the_logit_is_that_of_equations_1_to_4(kind, structure):
    config = {**kind, "structure": structure}
    model = trained("dcnv2", steps=20, **config).eval()
    batch, s = make_batch(12, seed=4), state(model)
    z = model.inputs(batch).z.detach().double().numpy()
    expected = [_by_hand(s, config, row, p) for row, p in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "each"),
    [
        ({"cross": "low_rank", "rank": 3}, lambda c: 2 * 3 * c + c),
        ({"cross": "mixture", "rank": 3, "experts": 2}, lambda c: 2 * (2 * 3 * c + 3 * 3) + c + 2 * c),
    ],
)
def test_a_low_rank_takes_the_parameters_of_its_factors(kind, each):
    model = models.build("dcnv2", SCHEMA, **SMALL, **kind)
    assert sum(parameter.numel() for parameter in model.cross.parameters()) == 3 * each(model.inputs.width)


def test_a_matrix_of_equal_rows_is_the_first_dcn():
    torch.manual_seed(0)
    old, new = CrossNetwork(features=5, layers=1), MatrixCross(features=5)
    with torch.no_grad():
        new.linear.weight.copy_(old.weight.expand(5, 5))
    x = torch.randn(4, 5)
    torch.testing.assert_close(new(x, x), old(x))


def test_a_low_rank_layer_with_the_factors_of_a_matrix_is_that_matrix():
    torch.manual_seed(0)
    full, low = MatrixCross(features=5), LowRankCross(features=5, rank=5)
    with torch.no_grad():
        U, S, Vh = torch.linalg.svd(full.linear.weight)
        low.u.weight.copy_(U * S)
        low.v.weight.copy_(Vh)
    x_0, x_l = torch.randn(4, 5), torch.randn(4, 5)
    torch.testing.assert_close(low(x_0, x_l), full(x_0, x_l))


def test_the_softmax_gate_of_one_expert_is_always_one():
    torch.manual_seed(0)
    layer = MixtureCross(features=5, rank=2, experts=1, gate="softmax")
    x_0, x_l = torch.randn(4, 5), torch.randn(4, 5)
    before = layer(x_0, x_l)
    torch.nn.init.normal_(layer.gate.weight, std=10)
    torch.testing.assert_close(layer(x_0, x_l), before)


def test_every_matrix_layer_adds_one_degree_to_the_polynomial():
    torch.manual_seed(0)
    layers = [MatrixCross(features=4).double() for _ in range(2)]
    x_0 = torch.arange(5).unsqueeze(1) * torch.randn(4, dtype=torch.float64)  # 0, x, 2x, …
    x_l = x_0
    for layer in layers:
        x_l = layer(x_0, x_l)
    values = x_l.detach().numpy()
    assert np.abs(np.diff(values, n=3, axis=0)).max() > 1e-6
    np.testing.assert_allclose(np.diff(values, n=4, axis=0), 0, atol=1e-8)


def test_the_deep_network_learns_through_the_cross_network_only_if_stacked():
    for structure, depends in (("stacked", True), ("parallel", False)):
        model = trained("dcnv2", structure=structure, auxiliary=False).eval()
        with torch.no_grad():
            if model.cross_output is not None:
                model.cross_output.weight.zero_()
            before = model(make_batch(6))
            for layer in model.cross:
                layer.linear.weight.normal_(std=5)
        assert torch.equal(model(make_batch(6)), before) is not depends


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cross": "matrx"}, "cross: 'matrx' is not known; did you mean 'matrix'"),
        ({"structure": "paralel"}, "structure: 'paralel' is not known; did you mean 'parallel'"),
        ({"gate": "softmx"}, "gate: 'softmx' is not known; did you mean 'softmax'"),
        ({"rank": 0}, "rank must be a whole number of at least 1"),
    ],
)
def test_an_impossible_option_is_an_error(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("dcnv2", SCHEMA, **config)
