"""The equations of the AdaSparse paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained
from torch.nn.functional import binary_cross_entropy_with_logits
from towers_by_hand import dense, network, state

from multidomain import models
from multidomain.errors import ConfigurationError

FORMS = pytest.mark.parametrize("form", ["binarization", "scaling", "fusion"])
PRUNING = pytest.mark.parametrize("form", ["binarization", "fusion"])


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, d, M = model.inputs.width, model.inputs.embedding_dim, model.schema.domains
    pruners = dense(d + 16, 16) + dense(d + 8, 8)
    return len(model.schema.numerical) * d + (M + 1) * d + dense(d + c, 16, 8, 1) + pruners


def _model(form: str = "fusion", **config) -> models.MultiDomainModel:
    return models.build("adasparse", SCHEMA, **{**SMALL, "form": form, "sparse": False, **config})


def _pruning(form: str, **config) -> models.MultiDomainModel:
    """A model at the end of the ramp whose pruners have an opinion, in evaluation."""
    model = trained("adasparse", steps=20, form=form, ramp=10, **config).eval()
    model.zero_grad()
    with torch.no_grad():
        for pruner in model.pruners:
            pruner.weight.normal_()
        model.inputs.distribution.domain.weight.normal_()
    return model


def _factors(form: str, v_in: np.ndarray, alpha: float = 5.0, beta: float = 2.0, epsilon: float = 0.25) -> np.ndarray:
    """The three forms, the sign read as a step from 0 to 1."""
    if form == "binarization":
        return np.where(1 / (1 + np.exp(-alpha * v_in)) > epsilon, 1.0, 0.0)
    if form == "scaling":
        return beta / (1 + np.exp(-v_in))
    v_out = beta / (1 + np.exp(-alpha * v_in))
    return np.where(v_out > epsilon, v_out, 0.0)


@FORMS
@pytest.mark.parametrize("neurons", [True, False])
def test_the_logit_is_that_of_the_equations(form, neurons):
    model, batch = _pruning(form, neurons=neurons), make_batch(12, seed=4)
    s, expected, shares = state(model), [], []
    for z, p in zip(model.inputs(batch).z.detach().double().numpy(), batch.domain.tolist(), strict=True):
        e_d = s["inputs.distribution.domain.weight"][p]
        h, zeros = np.concatenate([e_d, z]), []
        for number in range(2):
            h = np.maximum(s[f"layers.{number}.weight"] @ h + s[f"layers.{number}.bias"], 0)
            seen = np.concatenate([e_d, h]) if neurons else e_d
            factors = _factors(form, s[f"pruners.{number}.weight"] @ seen + s[f"pruners.{number}.bias"])
            h, zeros = h * factors, [*zeros, (factors == 0).mean()]
        expected.append(network(s, "head.layers.", h, linear_output=True).item())
        shares.append(zeros)
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)
    np.testing.assert_allclose(model.insights(batch)["sparsity"], shares, atol=1e-6)
    assert (np.mean(shares) > 0.1) == (form != "scaling")
    assert model.insight_labels() == {"sparsity": ["layer 1", "layer 2"]}


@PRUNING
def test_factors_are_zero_below_the_threshold_and_never_negative(form):
    model = _pruning(form)
    v_in = torch.linspace(-3, 3, 201)
    factors, kept = model.factors(v_in)
    np.testing.assert_allclose(factors, _factors(form, v_in.double().numpy()), atol=1e-6)
    assert (factors == 0).sum() > 50
    assert factors.min() == 0
    assert set(kept.tolist()) == {0.0, 1.0}


def test_hand_computed_factors():
    v_in = torch.tensor([-1.0, 0.0, 1.0])
    for form, expected in (
        ("binarization", [0.0, 1.0, 1.0]),  # sigmoid(5 v): 0.0067, 0.5, 0.9933 against 0.25
        ("fusion", [0.0, 1.0, 1.98661]),  # twice that
        ("scaling", [0.53788, 1.0, 1.46212]),  # 2 sigmoid(v)
    ):
        torch.testing.assert_close(_pruning(form).factors(v_in)[0], torch.tensor(expected), atol=1e-5, rtol=0)


@PRUNING
def test_a_pruned_neuron_does_not_matter(form):
    model = _pruning(form, neurons=False)
    batch = make_batch(20, domains=1)
    with torch.no_grad():
        e_d = model.inputs.distribution.domain.weight[0]
        pruned = model.factors(model.pruners[0](e_d))[0] == 0
        assert 0 < pruned.sum() < len(pruned)
        expected = model(batch)
        model.layers[0].weight[pruned] = 1e6
        model.layers[1].weight[:, pruned] = -1e6
    assert torch.equal(model(batch), expected)


@PRUNING
def test_domains_have_structures_of_their_own(form):
    model, batch = _pruning(form, neurons=False), make_batch(4)
    kept = []
    for p in (0, 1):
        e_d = model.inputs.distribution.domain.weight[p]
        kept.append(model.factors(model.pruners[0](e_d))[0] > 0)
    assert not torch.equal(*kept)
    shares = [model.insights(dataclasses.replace(batch, domain=torch.full((4,), p)))["sparsity"] for p in (0, 1)]
    for share, one in zip(shares, kept, strict=True):
        torch.testing.assert_close(share[:, 0], (~one).float().mean().expand(4))


@FORMS
def test_at_the_start_nothing_is_pruned_and_factors_are_one(form):
    torch.manual_seed(0)
    factors, kept = _model(form).factors(torch.zeros(5))
    assert torch.equal(factors, torch.ones(5))
    assert torch.equal(kept, torch.ones(5))
    assert not _model(form).eval().insights(make_batch(50))["sparsity"].any()


def _loss_of(r: list[float], form: str = "fusion", **config) -> float:
    """R_s when the share r[l] of 100 neurons of layer l is pruned, at the end of the ramp."""
    model = _model(form, hidden=[8] * len(r), **config)
    model.batches_seen += 1000
    every = [torch.cat([torch.zeros(1, round(100 * one)), torch.ones(1, 100 - round(100 * one))], 1) for one in r]
    return model._regularization(every).item()


def test_the_regularization_is_that_of_the_equation():
    assert _loss_of([0.16]) == _loss_of([0.2]) == _loss_of([0.24]) == 0
    assert _loss_of([0.0]) == pytest.approx(0.04)  # |0 - 0.2| · |0 - 0.2|, λ = 1
    assert _loss_of([0.5]) == pytest.approx(0.09)
    assert _loss_of([0.0, 0.2, 0.5]) == pytest.approx((0.04 + 0 + 0.09) / 3)
    assert _loss_of([0.5], regularization=[0.01, 3.0]) == pytest.approx(0.27)
    assert _loss_of([0.5], sparsity=[0.4, 0.6]) == 0
    assert _loss_of([0.5], form="scaling") == 0


def test_sharpness_and_regularization_grow_with_the_batches_of_training_alone():
    model = _model(ramp=4, sharpness=[0.1, 5.0], unknown_rate=0.0)
    sigmoids = []
    for _ in range(6):
        sigmoids.append(model.factors(torch.tensor([-0.3]))[0].item())
        model.train()(make_batch(3))
        model.eval()(make_batch(3))
    alphas = [0.1, 1.325, 2.55, 3.775, 5.0, 5.0]
    expected = [v if (v := 2 / (1 + np.exp(0.3 * alpha))) > 0.25 else 0 for alpha in alphas]
    assert sigmoids == pytest.approx(expected, abs=1e-6)
    assert model.batches_seen.item() == 6
    assert "batches_seen" in model.state_dict()


@PRUNING
@pytest.mark.parametrize("sparsity", [(0.15, 0.25), (0.5, 0.6)])
def test_training_moves_the_share_of_pruned_neurons_into_the_range(form, sparsity):
    torch.manual_seed(0)
    model = _model(form, hidden=[64, 32], ramp=60, sparsity=sparsity)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    penalties = []
    for step in range(200):
        batch = make_batch(128, seed=step)
        label = (batch.categorical[:, 1] + batch.domain) % 2
        loss = binary_cross_entropy_with_logits(model(batch), label.float())
        penalties.append(model.auxiliary_loss())
        optimizer.zero_grad()
        (loss + penalties[-1]).backward()
        optimizer.step()
    shares = model.eval().insights(make_batch(500, seed=999))["sparsity"].mean(0)
    low, high = sparsity
    assert ((shares > low - 0.03) & (shares < high + 0.03)).all()
    assert penalties[-1] < 0.1 * max(penalties)


@PRUNING
def test_the_regularization_teaches_pruners_although_the_step_has_no_gradient(form):
    model = _model(form)
    model(make_batch(50))
    assert model.auxiliary_loss() > 0
    model.auxiliary_loss().backward()
    for pruner in model.pruners:
        assert (pruner.bias.grad > 0).all()  # nothing is pruned yet: all biases go down


def test_the_shares_of_the_last_training_batch_are_told_after_an_epoch():
    model = _pruning("fusion", unknown_rate=0.0)
    model.train()(make_batch(50))
    shares = model.eval().insights(make_batch(50))["sparsity"].mean(0)
    model(make_batch(7, seed=3))
    assert model.diagnostics() == pytest.approx(
        {"pruned_layer_1": shares[0].item(), "pruned_layer_2": shares[1].item()}
    )


def test_a_model_in_training_can_be_copied():
    model = _model(unknown_rate=0.0)
    model(make_batch(5))
    assert torch.equal(copy.deepcopy(model).eval()(make_batch(9)), model.eval()(make_batch(9)))


def test_evaluation_adds_nothing_to_the_loss():
    model = _model()
    model(make_batch(5))
    assert model.auxiliary_loss() > 0
    model.eval()(make_batch(5))
    assert model.auxiliary_loss() == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"form": "fusing"}, "form: 'fusing' is not known; did you mean 'fusion'"),
        ({"threshold": 1.0}, "threshold must be a number of at least 0 and below 1"),
        ({"scale": 0.5}, "scale must be a number of at least 1, got 0.5"),
        ({"sparsity": [0.3, 0.2]}, r"sparsity must be two numbers .* at most 1, got \[0.3, 0.2\]"),
        ({"sparsity": [0.3, 1.2]}, "sparsity must be two numbers"),
        ({"sharpness": 5.0}, "sharpness must be two numbers"),
        ({"regularization": "0.1"}, "regularization must be two numbers"),
        ({"ramp": 0}, "ramp must be a whole number of at least 1, got 0"),
        ({"neurons": 1}, "neurons must be true or false"),
    ],
)
def test_an_impossible_option_is_refused(config, message):
    with pytest.raises(ConfigurationError, match=message):
        _model(**config)
