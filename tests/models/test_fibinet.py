"""The equations of the FiBiNET paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from interactions_by_hand import common_parameters, first_order
from model_cases import SCHEMA, SMALL, make_batch, trained
from towers_by_hand import State, auxiliary, dense, network, state

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema
from multidomain.models.base import MultiDomainModel

KINDS = pytest.mark.parametrize("bilinear", ["all", "each", "interaction"])
FIELDS, PAIRS = 7, 21  # of SCHEMA


def expected_parameters(model: MultiDomainModel) -> int:
    """First-order weights; excitation by FIELDS / 3 units; a W per interaction, twice; the deep network."""
    d = model.inputs.embedding_dim
    first = sum(model.schema.vocabularies.values()) + len(model.schema.numerical)
    excitation = FIELDS * 2 + 2 * FIELDS + FIELDS
    deep = dense(2 * PAIRS * d, *SMALL["hidden"], 1)
    return common_parameters(model) + first + excitation + 2 * PAIRS * d * d + deep


def _fitted(**config) -> MultiDomainModel:
    """A model whose embeddings are far from small, so that importance differs and interactions count."""
    model = trained("fibinet", steps=20, dropout=0.0, **config).eval()
    model.zero_grad()
    with torch.no_grad():
        model.inputs.embedding.table.weight.normal_()
        for bilinear in (model.of_E, model.of_V):
            bilinear.weight.normal_()
    return model


def _importance(s: State, e: np.ndarray) -> np.ndarray:
    """Eq. 2-3: squeeze by the mean, then two layers with ReLU."""
    z = np.array([sum(vector) / len(vector) for vector in e])
    inner = np.maximum(s["senet.inner.weight"] @ z, 0)
    return np.maximum(s["senet.outer.weight"] @ inner + s["senet.outer.bias"], 0)


def _interactions(W: np.ndarray, v: np.ndarray, kind: str) -> np.ndarray:
    """Eq. 5, 6 or 7: ``(v_i W) ⊙ v_j`` for i < j."""
    vectors = []
    for number, (i, j) in enumerate(itertools.combinations(range(len(v)), 2)):
        which = {"all": 0, "each": i, "interaction": number}[kind]
        vectors.append((v[i] @ W[which]) * v[j])
    return np.concatenate(vectors)


@KINDS
def test_the_logit_is_that_of_equations_1_to_12(bilinear):
    model, batch = _fitted(bilinear=bilinear), make_batch(12, seed=4)
    s, expected = state(model), []
    fields = model.inputs(batch).fields.detach().double().numpy()
    for row, (e, p) in enumerate(zip(fields, batch.domain.tolist(), strict=True)):
        v = _importance(s, e)[:, None] * e  # Eq. 4
        c = np.concatenate([_interactions(s[f"of_{n}.weight"], x, bilinear) for n, x in (("E", e), ("V", v))])  # Eq. 8
        linear = first_order(model, s, "first_order", batch, row)
        expected.append(
            linear + network(s, "deep.layers.", c, linear_output=True).item() + auxiliary(s, e.reshape(-1), p)
        )  # Eq. 12
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-4)


def test_importance_is_per_row_and_field_and_never_negative():
    model, batch = _fitted(), make_batch(12, seed=4)
    importance = model.insights(batch)["importance"]
    assert importance.shape == (12, FIELDS)
    assert len(model.insight_labels()["importance"]) == FIELDS
    assert importance.min() >= 0
    fields, s = model.inputs(batch).fields.detach().double().numpy(), state(model)
    np.testing.assert_allclose(importance, [_importance(s, e) for e in fields], atol=1e-5)
    assert importance.std(0).max() > 0.01


@KINDS
def test_the_matrices_are_as_many_as_the_paper_counts(bilinear):
    model = models.build("fibinet", SCHEMA, **SMALL, bilinear=bilinear)
    number = {"all": 1, "each": FIELDS - 1, "interaction": PAIRS}[bilinear]
    assert model.of_E.weight.shape == model.of_V.weight.shape == (number, 4, 4)


@KINDS
def test_at_the_start_interactions_are_element_wise_products_and_importance_is_one(bilinear):
    torch.manual_seed(0)
    model = models.build("fibinet", SCHEMA, **SMALL, bilinear=bilinear).eval()
    e = model.inputs(make_batch(9)).fields
    products = torch.stack([e[:, i] * e[:, j] for i, j in itertools.combinations(range(FIELDS), 2)], dim=1)
    torch.testing.assert_close(model.of_E(e), products)
    importance = model.insights(make_batch(9))["importance"]
    assert importance.mean().item() == pytest.approx(1, abs=0.3)


@KINDS
def test_hand_computed_interactions(bilinear):
    torch.manual_seed(0)
    layer = models.baselines.fibinet.Bilinear(fields=3, features=2, kind=bilinear)
    with torch.no_grad():
        for number, weight in enumerate(layer.weight):
            weight.copy_(torch.tensor([[1.0, 0.0], [number + 1.0, 1.0]]))  # v W = [v_0 + (number + 1) v_1, v_1]
    v = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    expected = {
        "all": [[9.0, 8.0], [15.0, 12.0], [35.0, 24.0]],  # always 1 + 2 = 3, 1 + 2 = 3, 3 + 4 = 7
        "each": [[9.0, 8.0], [15.0, 12.0], [55.0, 24.0]],  # 3, 3, and of field 1: 3 + 2·4 = 11
        "interaction": [[9.0, 8.0], [25.0, 12.0], [75.0, 24.0]],  # 3, 1 + 2·2 = 5, 3 + 3·4 = 15
    }[bilinear]
    assert layer(v)[0].tolist() == expected


def test_importance_learns_from_the_reweighted_fields_alone():
    model = _fitted()
    with torch.no_grad():
        model.of_V.weight.zero_()
    model(make_batch(20)).sum().backward()
    assert not model.senet.outer.weight.grad.any()
    assert model.of_E.weight.grad.any()


def test_a_single_field_has_no_interactions():
    alone = InputSchema(domains=2, vocabularies={"item": 5}, categorical=("item",))
    for kind in ("all", "each", "interaction"):
        model = models.build("fibinet", alone, **SMALL, bilinear=kind)
        assert model.deep.layers[0].in_features == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bilinear": "none"}, "bilinear: 'none' is not known"),
        ({"reduction": 0}, "reduction must be a whole number of at least 1, got 0"),
    ],
)
def test_an_impossible_option_is_refused(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("fibinet", SCHEMA, **SMALL, **config)
