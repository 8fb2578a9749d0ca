"""The equations of the PLE paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, flops, make_batch, trained, with_domain
from towers_by_hand import batch_normalized, dense, input_parameters, relu, softmax, state, tower

from multidomain import models
from multidomain.errors import ConfigurationError


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, slots = model.inputs.width, model.schema.domains + 1
    below = (slots + 1) * dense(c, 16, 8) + slots * dense(c, 2) + dense(c, slots + 1)  # the shared gate is here alone
    last = (slots + 1) * dense(8, 16, 8) + slots * dense(8, 2)
    return below + last + slots * dense(8, 32, 16, 1) + input_parameters(model)


def _expert(s: dict[str, np.ndarray], prefix: str, number: tuple[int, ...], x: np.ndarray, kind: str) -> np.ndarray:
    for layer in range(2):
        if kind == "specific":
            weight = s[f"{prefix}specific.layers.{layer}.domain_weight"][number]
            bias = s[f"{prefix}specific.layers.{layer}.domain_bias"][number]
        else:
            weight, bias = s[f"{prefix}shared.weights.{layer}"][number], s[f"{prefix}shared.biases.{layer}"][number]
        x = relu(x @ weight + bias[0])
    return x


def _by_hand(model: models.MultiDomainModel, z: np.ndarray, own: int) -> tuple[float, np.ndarray]:
    """The logit of a row z (c,) of domain ``own`` and its gate at the last level."""
    s = state(model)
    x = batch_normalized(s, z)
    slots, levels = model.schema.domains + 1, len(model.levels)
    g = [x] * slots  # g^{k,0} of every domain
    g_s = x
    w = np.empty(0)
    for j in range(levels):
        prefix = f"levels.{j}."
        m_k = s[prefix + "specific.layers.0.domain_weight"].shape[1]
        m_s = s[prefix + "shared.weights.0"].shape[0]
        specific = [[_expert(s, prefix, (k, i), g[k], "specific") for i in range(m_k)] for k in range(slots)]
        shared = [_expert(s, prefix, (i,), g_s, "shared") for i in range(m_s)]
        following = []
        for k in range(slots):
            S = np.stack(specific[k] + shared)  # Eq. 3
            gate = softmax(g[k] @ s[prefix + "gates.domain_weight"][k] + s[prefix + "gates.domain_bias"][k])  # Eq. 2
            following.append(gate @ S)  # Eq. 1, 5
            w = gate if k == own else w
        if j < levels - 1:
            S = np.stack([expert for experts in specific for expert in experts] + shared)  # all experts of the level
            weights = g_s @ s[prefix + "shared_gate.domain_weight"] + s[prefix + "shared_gate.domain_bias"]
            g_s = softmax(weights) @ S
        g = following
    return tower(s, "towers.layers.", own, g[own]), w  # Eq. 6


@pytest.mark.parametrize(
    ("levels", "experts", "shared"), [(1, 1, 1), (2, 1, 1), (3, 1, 1), (1, 2, 3), (2, 3, 2), (4, 2, 1)]
)
def test_the_logit_is_that_of_equations_1_to_6(levels, experts, shared):
    model = trained("ple", steps=10, levels=levels, experts=experts, shared_experts=shared).eval()
    batch = make_batch(12, seed=4, domains=4)
    z = model.inputs(batch).z.detach().double().numpy()
    by_hand = [_by_hand(model, row, k) for row, k in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), [logit for logit, _ in by_hand], atol=1e-5)
    gate = model.insights(batch)["gate"].detach()
    np.testing.assert_allclose(gate, np.stack([w for _, w in by_hand]), atol=1e-5)


def test_the_shared_gate_is_absent_at_the_last_level_and_mixes_all_experts_below_it():
    model = models.build("ple", SCHEMA, **SMALL, levels=3, experts=2, shared_experts=3)
    outputs = [
        None if level.shared_gate is None else level.shared_gate.domain_weight.shape[1] for level in model.levels
    ]
    assert outputs == [4 * 2 + 3, 4 * 2 + 3, None]


def test_who_learns_from_the_rows_of_one_domain():
    torch.manual_seed(0)
    model = models.build("ple", SCHEMA, **SMALL, unknown_rate=0.0)
    model(make_batch(200, domains=1)).sum().backward()
    below, last = model.levels
    for weight in (layer.domain_weight.grad for layer in below.specific.layers):
        assert all(weight[k].any() for k in range(4))  # the shared gate mixes the experts of all domains
    own = [below.gates, last.specific, last.gates, model.towers]
    for name, parameter in (pair for part in own for pair in part.named_parameters()):
        assert parameter.grad[0].any(), name
        assert not parameter.grad[1:].any(), name


def test_with_three_levels_the_first_gates_of_all_domains_learn():
    torch.manual_seed(0)
    model = models.build("ple", SCHEMA, **SMALL, unknown_rate=0.0, levels=3)
    model(make_batch(200, domains=1)).sum().backward()
    first, second, third = (level.gates.domain_weight.grad for level in model.levels)
    assert all(first[k].any() for k in range(4))
    assert not second[1:].any()
    assert not third[1:].any()


def test_at_the_last_level_broken_experts_of_other_domains_do_not_matter_and_below_it_they_do():
    model = trained("ple").eval()
    batch = make_batch(20, domains=1)
    expected = model(batch)
    below, last = model.levels
    with torch.no_grad():
        for part in (last.specific, last.gates, model.towers, below.gates):
            for parameter in part.parameters():
                parameter[1:] = float("nan")
    assert torch.equal(model(batch), expected)
    with torch.no_grad():
        below.specific.layers[1].domain_bias[2] += 1.0
    assert not torch.allclose(model(batch), expected)


@pytest.mark.parametrize("domains", [3, 12])
def test_a_row_costs_all_experts_below_the_last_level_and_its_own_domain_s_at_the_last(domains):
    schema = dataclasses.replace(SCHEMA, domains=domains)
    model = models.build("ple", schema, **SMALL, experts=3, shared_experts=2)
    c, everyone, own = model.inputs.width, (domains + 1) * 3 + 2, 3 + 2
    below = everyone * (c * 16 + 16 * 8)  # the experts of all domains and the shared ones
    below += c * everyone + everyone * 8  # the shared gate and what it mixes
    below += c * own + own * 8  # the gate of the row's own domain
    last = own * (8 * 16 + 16 * 8) + 8 * own + own * 8
    tower_ = 8 * 32 + 32 * 16 + 16
    assert flops(model, make_batch(10, domains=1)) == 2 * 10 * (below + last + tower_)


def test_with_one_level_the_cost_of_a_row_does_not_grow_with_the_number_of_domains():
    few, many = (
        flops(models.build("ple", dataclasses.replace(SCHEMA, domains=domains), **SMALL, levels=1), make_batch(10))
        for domains in (3, 12)
    )
    assert few == many


def test_a_domain_training_never_met_scores_as_an_unknown_one():
    model = trained("ple", steps=20, domains=2).eval()
    batch = make_batch(6, seed=4)
    assert torch.equal(model(with_domain(batch, 2)), model(with_domain(batch, 3)))
    assert not torch.allclose(model(with_domain(batch, 0)), model(with_domain(batch, 3)))


def test_a_single_row_of_training_and_none_work_at_every_depth():
    for levels in (1, 2, 3):
        torch.manual_seed(0)
        model = models.build("ple", SCHEMA, **SMALL, levels=levels, experts=2, shared_experts=2)
        for rows in (0, 1):
            assert model(make_batch(rows)).shape == (rows,)
            assert model.insights(make_batch(rows))["gate"].shape == (rows, 4)


def test_dropout_is_for_training_alone():
    model = trained("ple", steps=2, dropout=0.5)
    batch = make_batch(20)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"levels": 0}, "levels must be a whole number of at least 1"),
        ({"experts": 0}, "experts must be a whole number of at least 1"),
        ({"shared_experts": 0}, "shared_experts must be a whole number of at least 1"),
        ({"hidden": []}, "at least one layer"),
    ],
)
def test_impossible_experts_are_an_error(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("ple", SCHEMA, **config)


def test_by_default_it_has_the_depth_of_the_dnn():
    model = models.build("ple", SCHEMA)
    experts = sum(len(level.specific.layers) for level in model.levels)
    assert experts + len(model.towers.layers) == 7
