"""The Shared Bottom model, evaluated row by row in NumPy."""

from __future__ import annotations

import numpy as np
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained, with_domain
from towers_by_hand import (
    auxiliary,
    auxiliary_parameters,
    batch_normalized,
    dense,
    input_parameters,
    network,
    state,
    tower,
)

from multidomain import models


def expected_parameters(model: models.MultiDomainModel) -> int:
    towers = (model.schema.domains + 1) * dense(8, 64, 32, 16, 1)
    return dense(model.inputs.width, 16, 8) + towers + input_parameters(model) + auxiliary_parameters(model)


def _by_hand(model: models.MultiDomainModel, z: np.ndarray, p: int) -> float:
    s = state(model)
    f = network(s, "bottom.layers.", batch_normalized(s, z), linear_output=False)
    return tower(s, "towers.layers.", p, f) + auxiliary(s, z, p)


def test_the_logit_is_that_of_the_row_s_own_tower_on_the_shared_bottom():
    model = trained("shared_bottom", steps=20).eval()
    batch = make_batch(12, seed=4, domains=4)
    assert set(batch.domain.tolist()) == {0, 1, 2, 3}  # 3 is the unknown domain
    z = model.inputs(batch).z.detach().double().numpy()
    expected = [_by_hand(model, row, p) for row, p in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_a_domain_training_never_met_scores_as_an_unknown_one():
    model = trained("shared_bottom", steps=20, domains=2).eval()
    batch = make_batch(6, seed=4)
    assert torch.equal(model(with_domain(batch, 2)), model(with_domain(batch, 3)))
    assert not torch.allclose(model(with_domain(batch, 0)), model(with_domain(batch, 3)))


def test_the_bottom_learns_from_all_rows_and_a_tower_from_its_own():
    torch.manual_seed(0)
    model = models.build("shared_bottom", SCHEMA, **SMALL, unknown_rate=0.0)
    model(make_batch(50, domains=1)).sum().backward()
    for name, parameter in model.towers.named_parameters():
        assert parameter.grad[0].any(), name
        assert not parameter.grad[1:].any(), name
    for parameter in model.bottom.parameters():
        assert parameter.grad.any()


def test_the_tower_of_the_unknown_domain_is_trained_with_a_share_of_the_rows():
    torch.manual_seed(0)
    model = models.build("shared_bottom", SCHEMA, **SMALL, unknown_rate=0.3)
    model(make_batch(50, domains=1)).sum().backward()
    gradient = model.towers.layers[0].domain_weight.grad
    assert gradient[0].any()
    assert gradient[3].any()
    assert not gradient[1:3].any()


def test_a_broken_tower_of_another_domain_does_not_matter():
    model = trained("shared_bottom").eval()
    batch = make_batch(20, domains=1)
    expected = model(batch)
    with torch.no_grad():
        for parameter in model.towers.parameters():
            parameter[1:] = float("nan")
    assert torch.equal(model(batch), expected)


def test_without_bottom_each_domain_has_a_whole_network_as_in_the_papers():
    model = models.build("shared_bottom", SCHEMA, hidden=[], tower=[16, 8], embedding_dim=4, auxiliary=False)
    assert not list(model.bottom.parameters())
    towers = sum(parameter.numel() for parameter in model.towers.parameters())
    assert towers == 4 * dense(model.inputs.width, 16, 8, 1)  # P_mlp x M (AdaptDHM, Table 3) and the unknown domain
    trained("shared_bottom", hidden=[], tower=[16, 8])


def test_by_default_it_has_the_depth_of_the_dnn():
    model = models.build("shared_bottom", SCHEMA)
    assert len(model.bottom.layers) + len(model.towers.layers) == 7
