"""Domain facilitated interactions and behaviour, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained
from torch.utils.flop_counter import FlopCounterMode
from towers_by_hand import State, dense, network, state

from multidomain import models
from multidomain.batch import Batch
from multidomain.errors import ConfigurationError
from multidomain.models.base import MultiDomainModel

D, FIELDS, PAIRS, HEADS, A = 4, 7, 21, 4, 16  # embedding size of SMALL, fields of SCHEMA, heads and their width
DEEP = FIELDS * D + PAIRS + 2 * D  # width of what the deep network is given: two history fields


def expected_parameters(model: MultiDomainModel) -> int:
    d, M = model.inputs.embedding_dim, model.schema.domains
    domain_network = 2 * (d + 1) * (d * d + d)
    behaviour = 4 * (2 * d) * (HEADS * A) + (3 * d + 1) * (HEADS * A)  # Q, K, V, O, and the factors of [E^t; E^d]
    deep = dense(DEEP, *SMALL["hidden"], 1)
    return len(model.schema.numerical) * d + (M + 1) * d + domain_network + behaviour + deep


def _fitted(**config) -> MultiDomainModel:
    """A model whose domain networks and attention are far from their start."""
    model = trained("dffm", steps=20, **config).eval()
    model.zero_grad()
    with torch.no_grad():
        model.inputs.embedding.table.weight.normal_()
        model.inputs.distribution.domain.weight.normal_()
        model.behaviour.query.weight.normal_()
        model.behaviour.facilitator.weight.normal_(std=0.3)
    return model


def _domain_network(s: State, e: np.ndarray, e_d: np.ndarray) -> np.ndarray:
    """Eq. 3-6: D(e)."""
    h, number = e, 0
    while (g := f"domain_network.{number}.generator.") + "weight" in s:
        made = s[g + "weight"] @ e_d + s[g + "bias"]
        h = np.tanh(made[: D * D].reshape(D, D).T @ h + made[D * D :])
        number += 1
    return h


def _behaviour(s: State, e_h: np.ndarray, e_t: np.ndarray, e_d: np.ndarray) -> np.ndarray:
    """DFUB over the events there are, query by query and head by head: (H·d,)."""
    if not len(e_h):
        return np.zeros(2 * D)
    factors = s["behaviour.facilitator.weight"] @ np.concatenate([e_t, e_d]) + s["behaviour.facilitator.bias"]
    q, k, v = ((e_h @ s[f"behaviour.{name}.weight"].T) * factors for name in ("query", "key", "value"))
    outputs = []
    for t in range(len(e_h)):
        heads = []
        for of_head in np.split(np.arange(HEADS * A), HEADS):
            scores = np.exp(k[:, of_head] @ q[t, of_head] / np.sqrt(A))
            heads.append(scores / scores.sum() @ v[:, of_head])
        outputs.append(s["behaviour.output.weight"] @ np.concatenate(heads))
    return np.mean(outputs, axis=0)


def _embedded(s: State, batch: Batch, row: int) -> tuple[np.ndarray, np.ndarray]:
    """E^h (events, H·d) and E^t (H·d,) of a row of SCHEMA: items beside genres."""
    item, genre = 12, 32  # where the vocabularies start
    table = s["inputs.embedding.table.weight"]
    events = [
        np.concatenate([table[item + i], table[genre + g]])
        for i, g in zip(
            batch.history["clicked"][row].tolist(), batch.history["clicked_genre"][row].tolist(), strict=True
        )
        if i
    ]
    _, i, g = batch.categorical[row].tolist()
    return np.array(events).reshape(-1, 2 * D), np.concatenate([_one(table, item, i), _one(table, genre, g)])


def _one(table: np.ndarray, start: int, number: int) -> np.ndarray:
    return table[start + number] if number else np.zeros(D)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_logit_is_that_of_the_equations(depth):
    model, batch = _fitted(depth=depth), make_batch(16, seed=4)
    s, expected = state(model), []
    for row, p in enumerate(batch.domain.tolist()):
        e = model.inputs(batch).fields[row].detach().double().numpy()
        e_d = s["inputs.distribution.domain.weight"][p]
        facilitated = [_domain_network(s, one, e_d) for one in e]
        products = [facilitated[i] @ facilitated[j] for i, j in itertools.combinations(range(FIELDS), 2)]  # Eq. 2
        past = _behaviour(s, *_embedded(s, batch, row), e_d)
        expected.append(
            network(s, "deep.layers.", np.concatenate([e.reshape(-1), products, past]), linear_output=True).item()
        )
    assert {0, 4} <= set((batch.history["clicked"] > 0).sum(1).tolist())  # empty and full histories
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-4)


def test_domain_networks_are_generated_once_per_domain():
    model = trained("dffm", unknown_rate=0.0).eval()

    def work(rows: int) -> int:
        batch = dataclasses.replace(make_batch(rows), domain=torch.arange(rows) % 3)
        with FlopCounterMode(display=False) as counter:
            model(batch)
        return sum(counter.get_flop_counts()["DFFM.domain_network.0.generator"].values())

    assert work(6) == work(600) == 2 * 3 * D * (D * D + D)


def test_at_the_start_interactions_are_the_inner_products_of_pnn():
    torch.manual_seed(0)
    model = models.build("dffm", SCHEMA, **SMALL).eval()
    e = model.inputs(make_batch(9)).fields
    unfacilitated = models.baselines.dffm.Distinct.of(torch.zeros(9, D))
    inner = torch.stack([(e[:, i] * e[:, j]).sum(1) for i, j in itertools.combinations(range(FIELDS), 2)], dim=1)
    torch.testing.assert_close(model._products(e, unfacilitated), inner, atol=1e-4, rtol=0.02)  # tanh(e) is nearly e


def test_an_empty_history_gives_zeros_and_padding_does_not_matter():
    model, batch = _fitted(), make_batch(30, seed=4)
    empty = (batch.history["clicked"] == 0).all(1)
    assert 0 < empty.sum() < 30
    x = model.inputs(batch)
    past = model.behaviour(*model._past(x), x.condition)
    assert not past[empty].any()
    assert past[~empty].any(1).all()
    longer = {name: torch.cat([torch.zeros(30, 3, dtype=ids.dtype), ids], dim=1) for name, ids in batch.history.items()}
    torch.testing.assert_close(model(dataclasses.replace(batch, history=longer)), model(batch), atol=1e-5, rtol=1e-5)


def test_what_events_count_for_adds_to_one_and_depends_on_domain_and_candidate():
    model, batch = _fitted(), make_batch(30, seed=4)
    attention = model.insights(batch)["attention"]
    present = batch.history["clicked"] > 0
    assert attention.shape == (30, 4)
    assert not attention[~present].any()
    torch.testing.assert_close(attention.sum(1), present.any(1).float())
    elsewhere = model.insights(dataclasses.replace(batch, domain=(batch.domain + 1) % 3))["attention"]
    assert not torch.allclose(attention, elsewhere)
    another = batch.categorical.clone()
    another[:, 1] = 1 + (another[:, 1] + 5) % 19
    assert not torch.allclose(attention, model.insights(dataclasses.replace(batch, categorical=another))["attention"])


def test_events_learn_through_the_attention():
    model, batch = _fitted(), make_batch(30, seed=4)
    x = model.inputs(batch)
    model.behaviour(*model._past(x), x.condition).sum().backward()
    learnt = model.inputs.embedding.table.weight.grad.any(1)
    met = {12 + i for i in batch.history["clicked"].unique().tolist() if i}
    assert met <= set(learnt.nonzero()[:, 0].tolist())
    assert not learnt[12]  # padding


def test_without_history_there_is_no_behaviour():
    plain = dataclasses.replace(SCHEMA, history={}, history_length=0)
    model = models.build("dffm", plain, **SMALL)
    batch = dataclasses.replace(make_batch(9), history={})
    assert model.behaviour is None
    assert model(batch).shape == (9,)
    assert model.insights(batch) == {}
    assert model.deep.layers[0].in_features == 5 * D + 10


def test_a_history_without_its_candidate_is_compared_with_the_bag_of_its_vocabulary_or_with_nothing():
    for bags, filled in (({"genres": "genre"}, True), ({}, False)):
        schema = dataclasses.replace(SCHEMA, categorical=("user", "item"), distribution=(), bags=bags)
        model = models.build("dffm", schema, **SMALL, unknown_rate=0.0)
        batch = make_batch(9)
        shown = {"genres": batch.bags["genres"].clamp(min=1)} if bags else {}
        x = model.inputs(dataclasses.replace(batch, categorical=batch.categorical[:, :2].clamp(min=1), bags=shown))
        _, e_t, _ = model._past(x)
        assert e_t.shape == (9, 2 * D)
        assert e_t[:, :D].any()
        assert bool(e_t[:, D:].any()) == filled


@pytest.mark.parametrize("option", ["depth", "heads", "attention_dim"])
def test_an_impossible_option_is_refused(option):
    with pytest.raises(ConfigurationError, match=f"{option} must be a whole number of at least 1, got 0"):
        models.build("dffm", SCHEMA, **SMALL, **{option: 0})
