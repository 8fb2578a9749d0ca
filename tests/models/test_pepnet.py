"""The gates of the PEPNet paper (section 2.2), evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, trained

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema


def expected_parameters(model: models.MultiDomainModel) -> int:
    """For ``SMALL``: d = 4, hidden 16-8, a prior of user and item."""
    M, c, d = model.schema.domains, model.inputs.width, 4

    def gate(i: int, o: int) -> int:
        return (i * o + o) + (o * o + o)

    network = (c * 16 + 16) + (16 * 8 + 8) + (8 + 1)
    known = 2 * d + c
    return 1 * d + (M + 1) * d + gate(d + c, c) + gate(known, 16) + gate(known, 8) + network


def _gate(s: dict[str, np.ndarray], name: str, prior: np.ndarray) -> np.ndarray:
    """Gate NU: γ sigmoid(ReLU(x W + b) W' + b'), γ = 2."""
    hidden = np.maximum(s[f"{name}.mlp.layers.0.weight"] @ prior + s[f"{name}.mlp.layers.0.bias"], 0)
    return 2 / (1 + np.exp(-(s[f"{name}.mlp.layers.1.weight"] @ hidden + s[f"{name}.mlp.layers.1.bias"])))


def test_the_logit_is_that_of_the_gated_network():
    model = trained("pepnet", steps=20).eval()
    batch = make_batch(12, seed=4)
    s = {key: value.detach().double().numpy() for key, value in model.state_dict().items()}
    fields = model.inputs(batch).fields.detach().double().numpy()
    expected = []
    for row, p in zip(fields, batch.domain.tolist(), strict=True):
        E = row.reshape(-1)
        O_ep = _gate(s, "epnet", np.concatenate([s["inputs.distribution.domain.weight"][p], E])) * E
        known = np.concatenate([row[0], row[1], O_ep])  # user, item
        h = O_ep
        for number in range(2):
            layer = f"ppnet.mlp.layers.{number}."
            h = np.maximum(s[layer + "weight"] @ h + s[layer + "bias"], 0) * _gate(s, f"ppnet.gates.{number}", known)
        expected.append((s["ppnet.mlp.layers.2.weight"] @ h + s["ppnet.mlp.layers.2.bias"]).item())
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-5)


def test_the_embeddings_learn_through_what_is_gated_and_not_through_the_gate():
    model = trained("pepnet", steps=5)
    seen = {}
    model.epnet.register_forward_hook(lambda module, given, made: seen.update(epnet=(given[0], made)))
    for number, gate in enumerate(model.ppnet.gates):
        gate.register_forward_hook(lambda module, given, made, number=number: seen.update({number: (given[0], made)}))
    fields = []
    original = model.inputs.embedding.forward

    def kept(batch):
        embedded = original(batch)
        embedded.fields.retain_grad()
        fields.append(embedded.fields)
        return embedded

    model.inputs.embedding.forward = kept
    logit = model(make_batch(30))
    model.zero_grad()
    delta = seen["epnet"][1]
    delta.sum().backward(retain_graph=True)  # of the gate alone: the domain learns, the embeddings do not
    assert fields[0].grad is None or not fields[0].grad.any()
    assert model.inputs.distribution.domain.weight.grad.any()
    model.zero_grad()
    for number in range(2):
        fields[0].grad = None
        seen[number][1].sum().backward(retain_graph=True)  # the prior learns, EPNet does not
        assert fields[0].grad[:, :2].any()
        assert not fields[0].grad[:, 2:].any()
        assert not any(p.grad is not None and p.grad.any() for p in model.epnet.parameters())
    fields[0].grad = None
    logit.sum().backward()
    assert fields[0].grad.any(0).any(1).all()  # every field learns through δ ⊗ E
    assert any(p.grad.any() for p in model.epnet.parameters())


def test_the_prior_is_the_largest_feature_of_the_user_and_of_the_item_or_what_is_named():
    assert models.build("pepnet", SCHEMA, **SMALL).personal == ("user", "item")
    assert models.build("pepnet", SCHEMA, **SMALL, personal=["genre"]).personal == ("genre",)
    bare = InputSchema(domains=3, vocabularies={"item": 20}, categorical=("item",))
    assert models.build("pepnet", bare, **SMALL).personal == ()


def test_a_prior_that_is_no_field_is_an_error():
    with pytest.raises(ConfigurationError, match="personal: 'itm' is not known; did you mean 'item'"):
        models.build("pepnet", SCHEMA, **SMALL, personal=["itm"])
    with pytest.raises(ConfigurationError, match="personal must be a list of categorical fields, got 'item'"):
        models.build("pepnet", SCHEMA, **SMALL, personal="item")


def test_every_gate_lies_between_nothing_and_double():
    model = trained("pepnet", steps=20, embedding_dim=4)
    gates = [model.epnet, *model.ppnet.gates]
    for gate in gates:
        delta = gate(100 * torch.randn(50, gate.mlp.layers[0].in_features))
        assert delta.min() < 0.1
        assert delta.max() > 1.9
        assert ((delta >= 0) & (delta <= 2)).all()


def test_the_domain_matters_and_an_unseen_one_is_an_unknown_one():
    model = trained("pepnet", steps=20, domains=2).eval()
    batch = make_batch(6, seed=4)
    scores = [
        model(
            type(batch)(batch.categorical, batch.numerical, batch.history, batch.bags, torch.full((6,), p), batch.label)
        )
        for p in (2, 3, 0)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
