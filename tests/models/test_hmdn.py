"""The equations of the HMDN paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained
from torch.nn.functional import binary_cross_entropy_with_logits

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema

KINDS = pytest.mark.parametrize(
    ("representation", "backbone", "shared"),
    list(itertools.product(["implicit", "explicit"], ["mmoe", "pepnet"], [False, True])),
)


def expected_parameters(model: models.MultiDomainModel) -> int:
    """For ``SMALL``: d = 4, hidden 16-8, two types of distribution (domain and genre), D = 6, 16 codes, 3 experts."""
    M, c, d, D, C, n = model.schema.domains, model.inputs.width, 4, 6, 16, 3
    z = 2 * d
    numerical, domain, codebooks = 1 * d, (M + 1) * d, D * C * z
    expert = ((c + d) * 16 + 16) + (16 * 8 + 8)
    return numerical + domain + codebooks + n * expert + z * n + (8 + 1)


def _numbers(model: models.MultiDomainModel) -> dict[str, np.ndarray]:
    return {key: value.detach().double().numpy() for key, value in model.state_dict().items()}


def _quantized(s: dict[str, np.ndarray], vectors: np.ndarray, depth: int) -> tuple[np.ndarray, list[int], float]:
    """s_D, the codes and L_rq (β = 0.25) of one row; its vectors (types, d)."""
    books = s["hierarchy.quantizer.codebooks"]
    projection = s.get("hierarchy.projection")
    total, codes, loss = 0.0, [], 0.0
    r = vectors.reshape(-1)  # x_b
    for level in range(depth if projection is None else len(vectors)):
        book = books[level % len(books)]
        x_d = r if projection is None else vectors[level] @ projection[level]
        code = int(np.argmin(np.sum((book - x_d) ** 2, axis=1)))  # Eq. 1
        loss += np.sum((book[code] - x_d) ** 2) + 0.25 * np.sum((book[code] - x_d) ** 2)  # Eq. 5
        r = r - book[code] if projection is None else r  # Eq. 3
        total = total + book[code]  # Eq. 4
        codes.append(code)
    return total, codes, loss


def _layers(s: dict[str, np.ndarray], name: str, h: np.ndarray) -> np.ndarray:
    count = sum(key.startswith(f"{name}.layers.") and key.endswith("weight") for key in s)
    for number in range(count):
        h = s[f"{name}.layers.{number}.weight"] @ h + s[f"{name}.layers.{number}.bias"]
        h = np.maximum(h, 0) if number < count - 1 else h
    return h


def _by_hand(s: dict[str, np.ndarray], x: np.ndarray, s_D: np.ndarray, backbone: str) -> float:
    """The logit of one row with all features x (c,)."""
    if backbone == "pepnet":
        delta = 2 / (1 + np.exp(-_layers(s, "backbone.gate.mlp", s_D)))  # Eq. 10 of s_D
        return _layers(s, "backbone.mlp", delta * x).item()  # Eq. 9
    score = s["backbone.gate.weight"] @ s_D
    gate = np.exp(score) / np.exp(score).sum()  # Eq. 7 of s_D
    mixed = 0.0
    for i in range(3):
        h = x
        for number in range(2):
            f = f"backbone.experts.%s.{number}"
            h = np.maximum(s[f % "weights"][i].T @ h + s[f % "biases"][i, 0], 0)
        mixed = mixed + gate[i] * h  # Eq. 8
    return _layers(s, "backbone.head", mixed).item()


@KINDS
def test_the_logit_the_codes_and_the_loss_are_those_of_equations_1_to_11(representation, backbone, shared):
    config = {"representation": representation, "backbone": backbone, "shared_codebook": shared, "depth": 3}
    model = trained("hmdn", steps=20, alpha=0.7, **config).eval()
    batch = make_batch(12, seed=4)
    s, embedded = _numbers(model), model.inputs(batch).fields.detach().double().numpy()
    domain = s["hierarchy.described.domain.weight"][batch.domain.numpy()]
    logits, codes, losses = [], [], []
    for row, of_domain in zip(embedded, domain, strict=True):
        vectors = np.stack([of_domain, row[SCHEMA.categorical.index("genre")]])
        s_D, chosen, loss = _quantized(s, vectors, depth=3)
        logits.append(_by_hand(s, np.concatenate([row.reshape(-1), of_domain]), s_D, backbone))
        codes.append(chosen)
        losses.append(loss)
    np.testing.assert_allclose(model(batch).detach(), logits, atol=1e-5)
    np.testing.assert_array_equal(model.insights(batch)["codes"], codes)
    assert model.auxiliary_loss().item() == pytest.approx(0.7 * np.mean(losses), rel=1e-4)  # Eq. 11


@KINDS
def test_the_codebooks_learn_from_the_quantization_loss_alone(representation, backbone, shared):
    config = {"representation": representation, "backbone": backbone, "shared_codebook": shared}
    model = trained("hmdn", steps=3, **config)
    batch = make_batch(64, seed=4)
    codebooks, of_domain = model.hierarchy.quantizer.codebooks, model.hierarchy.described.domain.weight
    model.zero_grad()
    binary_cross_entropy_with_logits(model(batch), batch.label).backward()  # L_ce
    assert codebooks.grad is None or not codebooks.grad.any()
    model.zero_grad()
    model.hierarchy(batch.domain, model.inputs(batch).fields).sum().backward()  # of s_D alone
    assert codebooks.grad is None or not codebooks.grad.any()
    assert of_domain.grad.any()  # straight through
    model.zero_grad()
    model(batch)
    model.auxiliary_loss().backward()  # α L_rq
    assert codebooks.grad.any()
    assert of_domain.grad.any()  # its commitment part
    others = {name: p.grad for name, p in model.named_parameters() if name.startswith("backbone")}
    assert not any(grad is not None and grad.any() for grad in others.values())


def test_alpha_weighs_both_parts_of_the_quantization_loss_and_beta_the_part_that_moves_the_inputs():
    def gradients(**weights: float) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = models.build(
            "hmdn", SCHEMA, **SMALL, unknown_rate=0.0, sparse=False, depth=2, codebook_size=3, **weights
        )
        torch.manual_seed(1)
        model(make_batch(64))
        model.auxiliary_loss().backward()
        return model.hierarchy.quantizer.codebooks.grad, model.hierarchy.described.domain.weight.grad

    (books, inputs), (books_2, inputs_2) = gradients(alpha=1.0, beta=0.25), gradients(alpha=2.0, beta=0.25)
    torch.testing.assert_close(books_2, 2 * books)
    torch.testing.assert_close(inputs_2, 2 * inputs)
    books_4, inputs_4 = gradients(alpha=1.0, beta=1.0)
    torch.testing.assert_close(books_4, books)
    torch.testing.assert_close(inputs_4, 4 * inputs)
    books_0, inputs_0 = gradients(alpha=1.0, beta=0.0)
    torch.testing.assert_close(books_0, books)
    assert not inputs_0.any()
    assert not any(gradient.any() for gradient in gradients(alpha=0.0))


@pytest.mark.parametrize("depth", [1, 2, 9])
def test_any_depth_gives_as_many_codes(depth):
    model = trained("hmdn", steps=2, depth=depth).eval()
    assert model.insights(make_batch(5))["codes"].shape == (5, depth)
    assert list(model.diagnostics()) == [f"perplexity_level_{level}" for level in range(1, depth + 1)]


def test_the_explicit_representation_has_a_level_for_the_domain_and_each_distribution_feature():
    model = trained("hmdn", steps=2, representation="explicit", depth=6).eval()
    batch = make_batch(30, domains=1)
    codes = model.insights(batch)["codes"]
    assert codes.shape == (30, 2)
    assert len(set(codes[:, 0].tolist())) == 1  # one domain, one code
    for genre in range(6):
        assert len(set(codes[batch.categorical[:, 2] == genre, 1].tolist())) <= 1


def test_a_data_set_without_distribution_features_is_described_by_its_domains():
    schema = InputSchema(domains=3, vocabularies={"item": 20}, categorical=("item",))
    for representation, levels in (("implicit", 6), ("explicit", 1)):
        model = models.build("hmdn", schema, **SMALL, representation=representation)
        assert model.hierarchy.features == 4
        assert len(model.diagnostics()) == levels


def test_by_default_it_is_the_papers():
    model = models.build("hmdn", SCHEMA)
    assert model.hierarchy.quantizer.codebooks.shape == (6, 16, 32)
    assert model.hierarchy.quantizer.beta == 0.25
    assert model.alpha == 1.0
    assert [tuple(weight.shape) for weight in model.backbone.experts.weights] == [
        (3, model.inputs.width + 16, 128), (3, 128, 64), (3, 64, 32),
    ]  # fmt: skip
    assert model.auxiliary is None


def test_the_gates_start_near_equal_shares_and_near_one():
    torch.manual_seed(0)
    batch = make_batch(200)
    mixture = models.build("hmdn", SCHEMA, **SMALL)
    gate = torch.softmax(mixture.backbone.gate(mixture.hierarchy(batch.domain, mixture.inputs(batch).fields)), 1)
    assert (gate - 1 / 3).abs().max() < 0.1
    scaled = models.build("hmdn", SCHEMA, **SMALL, backbone="pepnet")
    delta = scaled.backbone.gate(scaled.hierarchy(batch.domain, scaled.inputs(batch).fields))
    assert (delta - 1).abs().max() < 0.2


def test_a_model_fresh_from_training_can_be_copied():
    model = trained("hmdn", steps=2)
    assert model.auxiliary_loss().item() > 0
    copied = copy.deepcopy(model).eval()
    batch = make_batch(9)
    assert torch.equal(copied(batch), model.eval()(batch))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"representation": "implict"}, "representation: 'implict' is not known; did you mean 'implicit'"),
        ({"backbone": "ple"}, "backbone: 'ple' is not known"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"codebook_size": 2.5}, "codebook_size must be a whole number"),
        ({"experts": 0}, "experts must be a whole number"),
        ({"shared_codebook": 1}, "shared_codebook must be true or false, got 1"),
        ({"alpha": -1}, "alpha must be a number of at least 0, got -1"),
        ({"beta": "0.25"}, "beta must be a number of at least 0, got '0.25'"),
    ],
)
def test_an_impossible_option_is_an_error(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("hmdn", SCHEMA, **SMALL, **config)
