"""The equations of the FRNet paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interactions_by_hand import common_parameters
from model_cases import SCHEMA, SMALL, make_batch, trained
from towers_by_hand import State, auxiliary, dense, network, state

from multidomain import models
from multidomain.layers.history import HISTORIES


def expected_parameters(model: models.MultiDomainModel) -> int:
    """Two extraction units: four projections (d_k = 10), two layers with a slope each; the network behind them."""
    c, d = model.inputs.width, model.inputs.embedding_dim
    unit = 4 * d * 10 + dense(c, 256, d) + 2
    return common_parameters(model) + 2 * unit + dense(c, *SMALL["hidden"], 1)


def _prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, slope * x)


def _unit(s: State, name: str, E: np.ndarray) -> np.ndarray:
    s = {key.removeprefix(f"{name}."): value for key, value in s.items()}
    Q, K, V = (E @ s[f"{part}.weight"].T for part in ("query", "key", "value"))
    scores = np.exp(Q @ K.T)
    o_vec = scores / scores.sum(1, keepdims=True) @ V @ s["projection.weight"].T  # softmax over the fields
    h = E.reshape(-1)
    for number in (0, 2):
        h = s[f"context.{number}.weight"] @ h + s[f"context.{number}.bias"]
        h = _prelu(h, s[f"context.{number + 1}.weight"])
    return o_vec * h  # O_vec ⊙ O_bit, the same O_bit for every field


def _refined(s: State, E: np.ndarray) -> np.ndarray:
    kept = 1 / (1 + np.exp(-_unit(s, "ieu_w", E)))
    return E * kept + _unit(s, "ieu_g", E) * (1 - kept)


def test_the_logit_is_that_of_the_extraction_units_the_gate_and_the_network():
    model = trained("frnet", steps=20, attention=3, context_hidden=[6]).eval()
    batch, s = make_batch(12, seed=4), state(model)
    fields = model.inputs(batch).fields.detach().double().numpy()
    expected = []
    for E, p in zip(fields, batch.domain.tolist(), strict=True):
        expected.append(
            network(s, "mlp.layers.", _refined(s, E).reshape(-1), linear_output=True).item()
            + auxiliary(s, E.reshape(-1), p)
        )
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_the_refined_embeddings_are_those_of_the_gate_when_numbers_are_large_too():
    torch.manual_seed(0)
    model = models.build("frnet", SCHEMA, **SMALL).double()
    E = torch.randn(6, 7, 4, dtype=torch.float64)
    refined, kept = model.refine(E)
    s = state(model)
    np.testing.assert_allclose(refined.detach(), [_refined(s, e) for e in E.numpy()], atol=1e-10)
    assert kept.min() < 0.4 < 0.6 < kept.max()


class _Constant(torch.nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, E: torch.Tensor) -> torch.Tensor:
        return torch.full_like(E, self.value)


def test_an_open_gate_keeps_the_embeddings_and_a_closed_one_takes_the_complementary():
    torch.manual_seed(0)
    model = models.build("frnet", SCHEMA, **SMALL)
    E = torch.randn(5, 7, 4)
    complementary = model.ieu_g(E)
    for value, expected in ((100.0, E), (-100.0, complementary), (0.0, (E + complementary) / 2)):
        model.ieu_w = _Constant(value)
        torch.testing.assert_close(model.refine(E)[0], expected)


def test_with_the_gate_open_it_is_the_plain_network():
    model = trained("frnet", auxiliary=False).eval()
    model.ieu_w = _Constant(100.0)
    batch = make_batch(9)
    torch.testing.assert_close(model(batch), model.mlp(model.inputs(batch).z)[:, 0])


def test_the_same_id_is_refined_by_what_stands_beside_it():
    torch.manual_seed(0)
    model = models.build("frnet", SCHEMA, **SMALL)
    E = torch.randn(1, 7, 4).expand(2, 7, 4).clone()
    E[1, 6] += 1.0
    refined, _ = model.refine(E)
    assert ((refined[0, :6] - refined[1, :6]).abs().max(1).values > 1e-3).all()


@pytest.mark.parametrize("unit", ["ieu_g", "ieu_w"])
def test_both_units_learn(unit):
    torch.manual_seed(0)
    model = models.build("frnet", SCHEMA, **SMALL, auxiliary=False)
    model(make_batch(50)).square().sum().backward()
    for name, parameter in getattr(model, unit).named_parameters():
        assert parameter.grad.any(), name


def test_it_tells_how_much_of_each_field_is_kept():
    model = trained("frnet").eval()
    batch = make_batch(8, domains=4)
    kept = model.insights(batch)["kept"]
    assert kept.shape == (8, 7)
    assert ((kept > 0) & (kept < 1)).all()
    torch.testing.assert_close(kept, model.refine(model.inputs(batch).fields)[1].mean(2))


@pytest.mark.parametrize("history", HISTORIES)
def test_it_stands_behind_every_history_encoder(history):
    model = trained("frnet", steps=1, history=history)
    assert model(make_batch(6)).shape == (6,)
    assert model.eval()(make_batch(6, domains=4)).shape == (6,)
