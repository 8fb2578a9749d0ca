"""MuLANN: the label by hand, the discriminator's loss by hand, and who gets which gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, take, trained, with_domain
from torch.nn.functional import cross_entropy
from towers_by_hand import (
    auxiliary,
    auxiliary_parameters,
    batch_normalized,
    dense,
    input_parameters,
    network,
    softmax,
    state,
)

from multidomain import models
from multidomain.errors import ConfigurationError

STILL = {**SMALL, "unknown_rate": 0.0, "normalization": "none", "sparse": False}  # training as evaluation


def expected_parameters(model: models.MultiDomainModel) -> int:
    label = dense(model.inputs.width, 16, 8) + dense(8, 64, 32, 16, 1)
    discriminator = dense(8, 128, 128, model.schema.domains)
    return label + discriminator + input_parameters(model) + auxiliary_parameters(model)


def _features(s: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return network(s, "extractor.layers.", x, linear_output=False)


def test_the_logit_is_that_of_extractor_and_classifier_beside_the_auxiliary_network():
    model = trained("mulann", steps=20).eval()
    batch = make_batch(12, seed=4)
    s, z = state(model), model.inputs(batch).z.detach().double().numpy()
    expected = [
        network(s, "classifier.layers.", _features(s, batch_normalized(s, row)), linear_output=True).item()
        + auxiliary(s, row, p)
        for row, p in zip(z, batch.domain.tolist(), strict=True)
    ]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_the_loss_is_the_cross_entropy_of_the_domains_that_are_known():
    torch.manual_seed(0)
    model = models.build("mulann", SCHEMA, **STILL)
    batch = make_batch(20, domains=4)
    s, z = state(model), model.inputs(batch).z.detach().double().numpy()
    d = "discriminator."
    losses = []
    for row, p in zip(z, batch.domain.tolist(), strict=True):
        hidden = network(s, d + "layers.layers.", _features(s, row), linear_output=False)
        share = softmax(hidden @ s[d + "output.domain_weight"] + s[d + "output.domain_bias"])
        if p < 3:  # 3 is the unknown domain
            losses.append(-np.log(share[p]))
    assert len(losses) < 20
    model(batch)
    assert model.auxiliary_loss().item() == pytest.approx(np.mean(losses), abs=1e-5)


def _gradients(model: models.MultiDomainModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: g for name, g in zip(names, gradients, strict=True) if g is not None}


@pytest.mark.parametrize("adversary", [0.1, 2.0])
def test_the_discriminator_gets_its_own_gradient_and_the_extractor_the_reversed_one(adversary):
    torch.manual_seed(0)
    model = models.build("mulann", SCHEMA, **STILL, adversary=adversary)
    batch = make_batch(50)
    model(batch)
    got = _gradients(model, model.auxiliary_loss())
    features = model.extractor(model.inputs(batch).z)
    plain = _gradients(model, cross_entropy(model.discriminator(features), batch.domain.long()))
    assert got.keys() == plain.keys()
    kinds = {name.split(".")[0] for name in got}
    assert kinds == {"discriminator", "extractor", "inputs"}  # neither classifier nor auxiliary network
    for name, gradient in got.items():
        factor = 1.0 if name.startswith("discriminator") else -adversary
        torch.testing.assert_close(gradient, factor * plain[name], rtol=1e-4, atol=1e-7)
    assert plain["extractor.layers.0.weight"].any()
    assert plain["inputs.embedding.table.weight"].any()


def test_without_weight_the_features_take_no_notice_of_the_discriminator():
    torch.manual_seed(0)
    model = models.build("mulann", SCHEMA, **STILL, adversary=0.0)
    model(make_batch(50))
    gradients = _gradients(model, model.auxiliary_loss())
    assert not any(g.any() for name, g in gradients.items() if not name.startswith("discriminator"))
    assert gradients["discriminator.output.domain_weight"].any()


def test_rows_of_an_unknown_domain_add_nothing():
    torch.manual_seed(0)
    model = models.build("mulann", SCHEMA, **STILL)
    batch = make_batch(40, domains=4)
    model(batch)
    mixed = model.auxiliary_loss()
    model(take(batch, (batch.domain < 3).nonzero()[:, 0]))
    torch.testing.assert_close(model.auxiliary_loss(), mixed)
    for nothing in (with_domain(batch, 3), make_batch(0)):
        loss = model(nothing).sum() + model.auxiliary_loss()
        assert model.auxiliary_loss() == 0
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_evaluation_does_not_ask_the_discriminator():
    model = trained("mulann").eval()
    batch = make_batch(20)
    expected = model(batch)
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter.fill_(float("nan"))
    assert torch.equal(model(batch), expected)
    assert model.auxiliary_loss() == 0


def _told_apart(adversary: float) -> float:
    """Share of rows whose domain the discriminator finds after training, the domain being written in a feature."""
    torch.manual_seed(0)
    config = {**STILL, "normalization": "batch", "hidden": [32, 16], "classifier": [8], "discriminator": [16]}
    model = models.build("mulann", SCHEMA, **config, adversary=adversary, auxiliary=False)
    batch = make_batch(300)
    batch.categorical[:, 2] = 2 + batch.domain  # the genre says which domain it is
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(300):
        optimizer.zero_grad()
        model(batch)
        model.auxiliary_loss().backward()
        optimizer.step()
    z = model.normalization(model.inputs(batch).z, batch.domain)
    found = model.discriminator(model.extractor(z)).argmax(1)
    return (found == batch.domain).float().mean().item()


def test_the_features_hide_the_domain_that_an_idle_adversary_finds():
    assert _told_apart(0.0) > 0.8
    assert _told_apart(1.0) < 0.6


@pytest.mark.parametrize("value", [-0.1, "0.1", True, float("nan"), float("inf")])
def test_an_impossible_weight_is_an_error(value):
    with pytest.raises(ConfigurationError, match="adversary must be a number of at least 0"):
        models.build("mulann", SCHEMA, adversary=value)


def test_by_default_it_has_the_depth_of_the_dnn():
    model = models.build("mulann", SCHEMA)
    assert len(model.extractor.layers) + len(model.classifier.layers) == 7
