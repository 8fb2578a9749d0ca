"""The equations of the cross-stitch paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, flops, make_batch, trained, with_domain
from towers_by_hand import auxiliary, auxiliary_parameters, batch_normalized, dense, input_parameters, relu, state

from multidomain import models


def expected_parameters(model: models.MultiDomainModel) -> int:
    slots = model.schema.domains + 1
    networks, units = slots * dense(model.inputs.width, 16, 8, 1), 2 * slots * slots
    return networks + units + input_parameters(model) + auxiliary_parameters(model)


def _by_hand(model: models.MultiDomainModel, z: np.ndarray, p: int) -> float:
    s = state(model)
    slots = model.schema.domains + 1
    x = [batch_normalized(s, z)] * slots  # what each network reads
    for number in range(2):
        layer = f"layers.{number}."
        x = [relu(x[q] @ s[layer + "domain_weight"][q] + s[layer + "domain_bias"][q]) for q in range(slots)]
        alpha = s[f"units.{number}.domain_alpha"]
        x = [sum(alpha[a, b] * x[b] for b in range(slots)) for a in range(slots)]  # Eq. 1
    return (x[p] @ s["output.domain_weight"][p] + s["output.domain_bias"][p]).item() + auxiliary(s, z, p)


def test_the_logit_is_that_of_equation_1_after_every_hidden_layer():
    model = trained("cross_stitch", steps=20).eval()
    batch = make_batch(12, seed=4, domains=4)
    z = model.inputs(batch).z.detach().double().numpy()
    expected = [_by_hand(model, row, p) for row, p in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_the_units_start_as_convex_combinations_near_the_identity():
    for own in (0.9, 0.5):
        for unit in models.build("cross_stitch", SCHEMA, **SMALL, own=own).units:
            alpha = unit.domain_alpha.detach()
            torch.testing.assert_close(alpha.sum(1), torch.ones(4))
            torch.testing.assert_close(alpha.diagonal(), torch.full((4,), own))
            torch.testing.assert_close(alpha[0, 1:], torch.full((3,), (1 - own) / 3))


def test_units_at_the_identity_leave_the_networks_to_themselves():
    model = trained("cross_stitch", auxiliary=False).eval()
    with torch.no_grad():
        for unit in model.units:
            unit.domain_alpha.copy_(torch.eye(4))
    batch = make_batch(20, domains=1)
    alone = model(batch)
    with torch.no_grad():
        for layer in model.layers:
            layer.domain_weight[1:].normal_()
    torch.testing.assert_close(model(batch), alone)


def test_units_that_hand_over_another_network_s_activations_do():
    model = trained("cross_stitch", auxiliary=False).eval()
    with torch.no_grad():
        model.units[0].domain_alpha.copy_(torch.eye(4))
        model.units[1].domain_alpha.copy_(torch.eye(4)[[1, 0, 2, 3]])  # the last unit swaps the networks of 0 and 1
        for parameter in model.output.parameters():
            parameter[1] = parameter[0]
    batch = make_batch(20)
    swapped = model(with_domain(batch, 0)), model(with_domain(batch, 1))
    with torch.no_grad():
        model.units[1].domain_alpha.copy_(torch.eye(4))
    torch.testing.assert_close((model(with_domain(batch, 1)), model(with_domain(batch, 0))), swapped)


def test_who_learns_from_the_rows_of_one_domain():
    torch.manual_seed(0)
    model = models.build("cross_stitch", SCHEMA, **SMALL, unknown_rate=0.0)
    model(make_batch(200, domains=1)).sum().backward()
    for layer in model.layers:
        assert all(layer.domain_weight.grad[q].any() for q in range(4))  # through the units
    assert all(model.units[0].domain_alpha.grad[q].any() for q in range(4))
    for parameter in (model.units[1].domain_alpha, *model.output.parameters()):
        assert parameter.grad[0].any()
        assert not parameter.grad[1:].any()


@pytest.mark.parametrize("domains", [3, 12])
def test_a_row_costs_the_networks_of_all_domains_and_one_output(domains):
    model = models.build("cross_stitch", dataclasses.replace(SCHEMA, domains=domains), **SMALL)
    c, d, slots = model.inputs.width, 4, domains + 1
    networks = slots * (c * 16 + 16 * 8)
    units = slots * slots * 16 + slots * 8  # the last hands over to the row's own network alone
    assert flops(model, make_batch(10, domains=1)) == 2 * 10 * (networks + units + 8 + (d + c) * 64 + 64)


def test_a_domain_training_never_met_scores_as_an_unknown_one():
    model = trained("cross_stitch", steps=20, domains=2).eval()
    batch = make_batch(6, seed=4)
    assert torch.equal(model(with_domain(batch, 2)), model(with_domain(batch, 3)))
    assert not torch.allclose(model(with_domain(batch, 0)), model(with_domain(batch, 3)))


def test_without_hidden_layers_there_is_nothing_to_stitch():
    model = models.build("cross_stitch", SCHEMA, embedding_dim=4, hidden=[])
    assert len(model.units) == 0
    assert model(make_batch(5)).shape == (5,)
