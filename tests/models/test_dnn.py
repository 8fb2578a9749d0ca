"""The Base model of the STAR paper, evaluated row by row in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained, with_domain
from towers_by_hand import auxiliary, batch_normalized, network, state

from multidomain import models


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, d, M = model.inputs.width, model.inputs.embedding_dim, model.schema.domains
    network = (c + 1) * 16 + (16 + 1) * 8 + (8 + 1) * 1
    auxiliary = (M + 1) * d + (d + c + 1) * 64 + (64 + 1) * 1
    return network + auxiliary + 2 * c + d * len(model.schema.numerical)


def test_the_logit_is_that_of_one_network_for_all_domains_and_the_auxiliary_network():
    model = trained("dnn", steps=20).eval()
    batch = make_batch(12, seed=4)
    s, z = state(model), model.inputs(batch).z.detach().double().numpy()
    expected = [
        network(s, "mlp.layers.", batch_normalized(s, row), linear_output=True).item() + auxiliary(s, row, p)
        for row, p in zip(z, batch.domain.tolist(), strict=True)
    ]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_training_normalizes_by_the_batch_over_all_domains():
    torch.manual_seed(0)
    model = models.build("dnn", SCHEMA, **SMALL, unknown_rate=0.0, auxiliary=False)
    batch, s = make_batch(40, seed=4), state(model)
    z = model.inputs(batch).z.detach().double().numpy()
    normed = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
    expected = [network(s, "mlp.layers.", row, linear_output=True).item() for row in normed]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-4)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_domain_counts_through_the_auxiliary_network_alone(wanted):
    model = trained("dnn", steps=20, auxiliary=wanted).eval()
    batch = make_batch(12, seed=4)
    assert torch.equal(model(with_domain(batch, 0)), model(with_domain(batch, 1))) is not wanted


def test_it_has_seven_layers():
    assert len(models.build("dnn", SCHEMA).mlp.layers) == 7
    assert len(models.build("dnn", SCHEMA, **SMALL).mlp.layers) == 3
