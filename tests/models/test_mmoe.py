"""The equations of the MMoE paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, take, trained, with_domain
from towers_by_hand import (
    auxiliary,
    auxiliary_parameters,
    batch_normalized,
    dense,
    input_parameters,
    relu,
    softmax,
    state,
    tower,
)

from multidomain import models
from multidomain.errors import ConfigurationError


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, slots = model.inputs.width, model.schema.domains + 1
    experts = 4 * dense(c, 16, 8)
    gates_and_towers = slots * (dense(c, 4) + dense(8, 64, 32, 16, 1))
    return experts + gates_and_towers + input_parameters(model) + auxiliary_parameters(model)


def _gate(s: dict[str, np.ndarray], x: np.ndarray, k: int) -> np.ndarray:
    return softmax(x @ s["gates.domain_weight"][k] + s["gates.domain_bias"][k])  # Eq. 8


def _by_hand(model: models.MultiDomainModel, z: np.ndarray, k: int) -> float:
    s = state(model)
    x = batch_normalized(s, z)
    gate = _gate(s, x, k)
    f_k = np.zeros(8)
    for i in range(len(gate)):
        h = x
        for layer in range(2):
            h = relu(h @ s[f"experts.weights.{layer}"][i] + s[f"experts.biases.{layer}"][i, 0])
        f_k += gate[i] * h  # Eq. 7
    return tower(s, "towers.layers.", k, f_k) + auxiliary(s, z, k)  # Eq. 6


def test_the_logit_is_that_of_equations_6_to_8():
    model = trained("mmoe", steps=20).eval()
    batch = make_batch(12, seed=4, domains=4)
    z = model.inputs(batch).z.detach().double().numpy()
    expected = [_by_hand(model, row, k) for row, k in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_the_gate_of_each_row_can_be_looked_at():
    model = trained("mmoe", steps=20, experts=3).eval()
    batch = make_batch(12, seed=4, domains=4)
    gate = model.insights(batch)["gate"].detach()
    s, z = state(model), model.inputs(batch).z.detach().double().numpy()
    expected = [_gate(s, batch_normalized(s, row), k) for row, k in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(gate, expected, atol=1e-5)
    torch.testing.assert_close(gate.sum(1), torch.ones(12))


def test_indifferent_gates_give_the_mean_of_the_experts():
    model = trained("mmoe", auxiliary=False).eval()
    with torch.no_grad():
        for parameter in model.gates.parameters():
            parameter.zero_()
    batch = take(make_batch(40, seed=3), torch.arange(10))
    z = model.normalization(model.inputs(batch).z, batch.domain)
    mean = model.experts(z).mean(0).detach().double().numpy()
    s = state(model)
    expected = [tower(s, "towers.layers.", k, row) for row, k in zip(mean, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_experts_learn_from_all_rows_and_gates_and_towers_from_their_own():
    torch.manual_seed(0)
    model = models.build("mmoe", SCHEMA, **SMALL, unknown_rate=0.0)
    model(make_batch(50, domains=1)).sum().backward()
    for part in (model.gates, model.towers):
        for name, parameter in part.named_parameters():
            assert parameter.grad[0].any(), name
            assert not parameter.grad[1:].any(), name
    for parameter in model.experts.parameters():
        assert all(gradient.any() for gradient in parameter.grad)


def test_broken_gates_and_towers_of_other_domains_do_not_matter():
    model = trained("mmoe").eval()
    batch = make_batch(20, domains=1)
    expected = model(batch)
    with torch.no_grad():
        for parameter in (*model.gates.parameters(), *model.towers.parameters()):
            parameter[1:] = float("nan")
    assert torch.equal(model(batch), expected)


def test_a_domain_training_never_met_scores_as_an_unknown_one():
    model = trained("mmoe", steps=20, domains=2).eval()
    batch = make_batch(6, seed=4)
    assert torch.equal(model(with_domain(batch, 2)), model(with_domain(batch, 3)))
    assert not torch.allclose(model(with_domain(batch, 0)), model(with_domain(batch, 3)))


def test_by_default_it_has_the_depth_of_the_dnn():
    model = models.build("mmoe", SCHEMA)
    assert len(model.experts.weights) + len(model.towers.layers) == 7


@pytest.mark.parametrize(
    ("config", "message"),
    [({"experts": 0}, "experts must be a whole number of at least 1"), ({"hidden": []}, "at least one layer")],
)
def test_impossible_experts_are_an_error(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("mmoe", SCHEMA, **config)
