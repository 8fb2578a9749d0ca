"""The equations of the STAR paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained

from multidomain import models


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, d, M = model.inputs.width, model.inputs.embedding_dim, model.schema.domains
    normalization = 2 * c + 2 * M * c
    fcn = (M + 1) * ((c + 1) * 16 + (16 + 1) * 8 + (8 + 1) * 1)
    auxiliary = (M + 1) * d + (d + c + 1) * 64 + (64 + 1) * 1
    return normalization + fcn + auxiliary + d * len(model.schema.numerical)


def _by_hand(model: models.MultiDomainModel, z: np.ndarray, p: int) -> float:
    """Eq. 4-7 for one row z (c,) of a domain p < M that training met."""
    s = {key: value.detach().double().numpy() for key, value in model.state_dict().items()}
    n = "normalization."
    z_p = s[n + "weight"] * s[n + "domain_weight"][p] * (z - s[n + "running_mean"][p])
    z_p = z_p / np.sqrt(s[n + "running_var"][p] + 1e-5) + s[n + "bias"] + s[n + "domain_bias"][p]  # Eq. 4
    h = z_p
    for number in range(3):
        f = f"fcn.layers.{number}."
        weight = s[f + "domain_weight"][p] * s[f + "weight"]  # Eq. 5
        h = weight.T @ h + s[f + "domain_bias"][p] + s[f + "bias"]  # Eq. 6
        h = np.maximum(h, 0) if number < 2 else h
    x = np.concatenate([s["inputs.distribution.domain.weight"][p], z])
    hidden = np.maximum(s["auxiliary.mlp.layers.0.weight"] @ x + s["auxiliary.mlp.layers.0.bias"], 0)
    s_a = s["auxiliary.mlp.layers.1.weight"] @ hidden + s["auxiliary.mlp.layers.1.bias"]
    return (h + s_a).item()  # Eq. 7


def test_the_logit_is_that_of_equations_4_to_7():
    model = trained("star", steps=20).eval()
    batch = make_batch(12, seed=4)
    z = model.inputs(batch).z.detach().double().numpy()
    expected = [_by_hand(model, row, p) for row, p in zip(z, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_an_unseen_domain_uses_the_shared_centre():
    model = trained("star", steps=20).eval()
    batch = make_batch(6, seed=4)
    unknown = type(batch)(
        batch.categorical, batch.numerical, batch.history, batch.bags, torch.full((6,), 3), batch.label
    )
    score = model(unknown)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "domain_" in name:  # whatever the domains learnt
                parameter.normal_()
    assert torch.equal(model(unknown), score)
    assert not torch.allclose(model(batch), score)


def test_a_domain_training_never_met_scores_as_an_unknown_one():
    model = trained("star", steps=20, domains=2).eval()
    batch = make_batch(6, seed=4)
    scores = [
        model(
            type(batch)(batch.categorical, batch.numerical, batch.history, batch.bags, torch.full((6,), p), batch.label)
        )
        for p in (2, 3, 0)
    ]
    torch.testing.assert_close(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_only_the_domains_in_a_batch_get_gradients_of_their_own():
    torch.manual_seed(0)
    model = models.build("star", SCHEMA, **SMALL)
    batch = make_batch(50, domains=1)
    model(batch).sum().backward()
    for name, parameter in model.named_parameters():
        if "domain_" in name:
            assert parameter.grad[0].any(), name
            assert not parameter.grad[1:].any(), name


def test_a_broken_network_of_another_domain_does_not_matter():
    model = trained("star").eval()
    batch = make_batch(20, domains=1)
    expected = model(batch)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "domain_" in name:
                parameter[1:] = float("nan")
    assert torch.equal(model(batch), expected)


def test_one_row_of_a_domain_is_no_trouble_in_training():
    torch.manual_seed(0)
    model = models.build("star", SCHEMA, **SMALL)
    batch = make_batch(33, domains=1)
    batch.domain[7] = 2
    model(batch).sum().backward()
    assert model.normalization.rows_seen.tolist() == [32, 0, 0]
    assert model.fcn.layers[0].domain_weight.grad[2].any()
    assert torch.isfinite(model.fcn.layers[0].weight.grad).all()


def test_at_the_start_the_networks_of_all_domains_are_the_shared_one():
    torch.manual_seed(0)
    model = models.build("star", SCHEMA)
    assert len(model.fcn.layers) == 7
    for layer in model.fcn.layers:
        assert (layer.domain_weight == 1).all()
    logits = model(make_batch(500))
    assert 0.1 < logits.std().item() < 3


@pytest.mark.parametrize(
    ("normalization", "fcn", "auxiliary"),
    list(itertools.product(["partitioned", "batch", "layer", "none"], ["star", "shared"], [True, False])),
)
def test_every_ablation_trains_and_serves(normalization, fcn, auxiliary):
    config = {"normalization": normalization, "fcn": fcn, "auxiliary": auxiliary}
    model = trained("star", steps=2, **config).eval()
    batch = make_batch(20, domains=4)
    torch.testing.assert_close(model.serving_form()(batch), model(batch), atol=1e-5, rtol=1e-5)


def test_dropout_is_for_training_alone():
    model = trained("star", steps=2, dropout=0.5)
    batch = make_batch(20)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


def test_the_served_form_holds_the_product_of_the_weights_and_no_normalization():
    model = trained("star", steps=20).eval()
    served = model.serving_form()
    layer = model.fcn.layers[1]
    torch.testing.assert_close(served.fcn.layers[1].domain_weight[:3], layer.domain_weight * layer.weight)
    assert torch.equal(served.fcn.layers[1].domain_weight[3], layer.weight)
    assert not any("running" in key for key in served.state_dict())
    before = served(make_batch(5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(served(make_batch(5)), before)  # it holds weights of its own


def test_the_distance_from_the_centre_is_the_root_mean_square_of_what_a_domain_changed():
    model = models.build("star", SCHEMA, **SMALL).eval()
    batch = make_batch(30, domains=4)
    assert not model.insights(batch)["distance_from_centre"].any()
    with torch.no_grad():
        model.fcn.layers[2].domain_weight[1] = 1 + torch.tensor([3.0, 4.0, 0, 0, 0, 0, 0, 0]).reshape(8, 1)
    found = model.insights(batch)["distance_from_centre"]
    assert found.shape == (30, 3)
    expected = torch.where(batch.domain == 1, 5 / 8**0.5, 0.0)
    torch.testing.assert_close(found[:, 2], expected)
    assert not found[:, :2].any()
    assert models.build("star", SCHEMA, **SMALL, fcn="shared").insights(batch) == {}
