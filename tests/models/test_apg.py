"""The equations of the APG paper, evaluated row by row in NumPy with whole matrices, against the model."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained
from torch.utils.flop_counter import FlopCounterMode
from towers_by_hand import State, state

from multidomain import models
from multidomain.errors import ConfigurationError

K, P = 8, 64
GROUP_WISE = {"condition": "distribution"}


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, d, M = model.inputs.width, model.inputs.embedding_dim, model.schema.domains

    def layer(i: int, o: int) -> int:  # V_l V_r, U_l U_r, the generator of S from features and domain, the bias
        return K * P + P * i + o * P + P * K + (c + d + 1) * K * K + o

    hidden = sum(layer(i, o) for i, o in itertools.pairwise([c, 16, 8]))
    return len(model.schema.numerical) * d + (M + 1) * d + hidden + 8 + 1


def _matrix(s: State, layer: str, z: np.ndarray, factors: int = 2) -> np.ndarray:
    """``W_z = U S_z V`` (o, i), with U = U_l U_r and V = V_l V_r; the model holds the factors transposed."""
    V, U = np.eye(s[layer + "V.0"].shape[0]), np.eye(K)
    for number in range(factors):
        V, U = s[f"{layer}V.{number}"].T @ V, s[f"{layer}U.{number}"].T @ U
    S = (s[layer + "S.generator.weight"] @ z + s[layer + "S.generator.bias"]).reshape(K, K).T
    return U @ S @ V


def _fitted(**config) -> models.MultiDomainModel:
    model = trained("apg", steps=20, **config).double().eval()
    model.zero_grad()
    with torch.no_grad():
        model.inputs.embedding.table.weight.normal_()
        for layer in model.layers:
            layer.S.generator.weight.normal_()
            layer.bias.normal_(mean=2.0)  # so that rows pass the ReLU
    return model


@pytest.mark.parametrize("over", [0, P])
@pytest.mark.parametrize("condition", ["mixed", "self", "distribution"])
def test_the_logit_is_that_of_whole_matrices_U_S_V(over, condition):
    model, batch = _fitted(over_parameterization=over, condition=condition), make_batch(12, seed=4)
    s, expected = state(model), []
    for x, p in zip(model.inputs(batch).z.detach().numpy(), batch.domain.tolist(), strict=True):
        h = x
        for number in range(2):
            layer = f"layers.{number}."
            e_s = s.get("inputs.distribution.domain.weight", np.zeros((4, 0)))[p]
            z = {"mixed": np.concatenate([x, e_s]), "distribution": e_s, "self": h}[condition]
            h = np.maximum(_matrix(s, layer, z, factors=2 if over else 1) @ h + s[layer + "bias"], 0)
        expected.append((s["head.layers.0.weight"] @ h + s["head.layers.0.bias"]).item())
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-9)


def test_the_generated_matrix_has_rank_K_and_differs_between_domains():
    model = _fitted(**GROUP_WISE)
    s = state(model)
    one, other = (_matrix(s, "layers.0.", e) for e in s["inputs.distribution.domain.weight"][:2])
    assert one.shape == (16, model.inputs.width)
    assert np.linalg.matrix_rank(one) == K
    assert not np.allclose(one, other)


def test_gradients_are_those_of_whole_matrices():
    model = _fitted(**GROUP_WISE)
    layer, x, e_s = model.layers[0], torch.randn(9, model.inputs.width).double(), torch.randn(3, 4).double()
    index, pull = torch.arange(9) % 3, torch.randn(9, 16).double()
    decomposed = layer(x, models.baselines.apg.Distinct(e_s, index))
    S = layer.S.generator(e_s[index]).view(9, K, K)
    whole = torch.einsum("iv,vk,bkl,lu,uo->bio", layer.V[0], layer.V[1], S, layer.U[0], layer.U[1])
    direct = torch.einsum("bi,bio->bo", x, whole) + layer.bias
    weights = list(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad((decomposed * pull).sum(), weights), torch.autograd.grad((direct * pull).sum(), weights)
    )


def test_S_is_generated_once_per_domain():
    model = trained("apg", unknown_rate=0.0, **GROUP_WISE).eval()

    def work(rows: int) -> int:
        batch = dataclasses.replace(make_batch(rows), domain=torch.arange(rows) % 3)
        with FlopCounterMode(display=False) as counter:
            model(batch)
        return sum(counter.get_flop_counts()["APG.layers.0.S.generator"].values())

    assert work(6) == work(600) == 2 * 3 * 4 * K * K


def test_over_parameterization_costs_nothing_per_row():
    def per_row(over: int) -> int:
        model, work = trained("apg", steps=1, over_parameterization=over, unknown_rate=0.0, **GROUP_WISE).eval(), []
        for rows in (300, 600):
            batch = dataclasses.replace(make_batch(rows), domain=torch.arange(rows) % 3)
            with FlopCounterMode(display=False) as counter:
                model(batch)
            work.append(counter.get_total_flops())
        return (work[1] - work[0]) // 300

    assert per_row(P) == per_row(0)


def test_at_the_start_the_network_of_every_domain_is_nearly_the_shared_one():
    torch.manual_seed(0)
    model = models.build("apg", SCHEMA, embedding_dim=16, unknown_rate=0.0, **GROUP_WISE)
    logits = [model(dataclasses.replace(make_batch(400), domain=torch.full((400,), p))) for p in (0, 1)]
    assert 1e-3 < logits[0].std().item() < 3
    assert (logits[0] - logits[1]).std() < 0.3 * logits[0].std()
    scale = model.layers[0](torch.randn(400, 7 * 16), models.baselines.apg.Distinct.of(torch.zeros(400, 16)))
    assert scale.square().mean().item() == pytest.approx(2, rel=0.5)  # He: variance 2 ahead of a ReLU


def test_the_self_wise_strategy_does_not_see_the_domain():
    model = trained("apg", condition="self", steps=3).eval()
    batch = make_batch(9)
    assert torch.equal(model(dataclasses.replace(batch, domain=torch.full((9,), 3))), model(batch))
    assert model.inputs.distribution is None


@pytest.mark.parametrize("condition", ["mixed", "self"])
@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_are_no_trouble_where_each_makes_its_own_weights(rows, condition):
    assert trained("apg", condition=condition, steps=1)(make_batch(rows)).shape == (rows,)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"over_parameterization": -1}, "over_parameterization must be a whole number"),
        ({"condition": "group"}, "condition: 'group' is not known"),
    ],
)
def test_an_impossible_option_is_refused(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("apg", SCHEMA, **SMALL, **config)
