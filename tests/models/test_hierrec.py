"""The equations of the HierRec paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, take, trained
from torch.utils.flop_counter import FlopCounterMode
from towers_by_hand import State, softmax, state

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema

G, FIELDS, D = 4, 7, 4  # heads, I fields of SCHEMA, embedding size of SMALL


def expected_parameters(model: models.MultiDomainModel) -> int:
    c, d, M = model.inputs.width, model.inputs.embedding_dim, model.schema.domains

    def made(k: int) -> int:  # what maps k numbers to the weights and biases of 64-16-64
        return (k + 1) * (64 * 16 + 16 + 16 * 64 + 64)

    def network(*widths: int) -> int:  # linear layers, each with the scale and shift of a batch norm
        return sum((i + 1) * o + 2 * o for i, o in itertools.pairwise(widths))

    numerical, e_s = len(model.schema.numerical) * d, (M + 1) * d
    field_weights = (d + 1) * G * (c // d)
    return numerical + e_s + network(c, 64) + made(d) + field_weights + made(c) + network(G * 64, 16, 8) + 8 + 1


def _fc(s: State, name: str, h: np.ndarray) -> np.ndarray:
    """Eq. 5 in evaluation: linear, batch norm with running moments, no dropout, ReLU."""
    number = 0
    while f"{name}.layers.{number}.weight" in s:
        h = s[f"{name}.layers.{number}.weight"] @ h + s[f"{name}.layers.{number}.bias"]
        n = f"{name}.norms.{number}."
        h = (h - s[n + "running_mean"]) / np.sqrt(s[n + "running_var"] + 1e-5) * s[n + "weight"] + s[n + "bias"]
        h = np.maximum(h, 0)
        number += 1
    return h


def _scenario(s: State, name: str, h: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Eq. 1-2: SC = FC(source), split and reshaped into W_1, b_1, W_2, b_2, which are applied in turn."""
    for number, (i, o) in enumerate([(len(h), 16), (16, 64)]):
        g = f"{name}.layers.{number}.generator."
        sc = s[g + "weight"] @ source + s[g + "bias"]
        h = sc[: i * o].reshape(i, o).T @ h + sc[i * o :]
    return h


def _field_weights(s: State, e_s: np.ndarray, fields: int = FIELDS) -> np.ndarray:
    """Eq. 6 with one FC: (G, I)."""
    ori = (e_s @ s["field_scores.weight"][0] + s["field_scores.bias"]).reshape(-1, fields)
    return np.array([softmax(of_head) for of_head in ori])


def _by_hand(s: State, E_c: np.ndarray, e_s: np.ndarray, *, explicit: bool = True, implicit: bool = True) -> float:
    """Eq. 3-9 for one row: E_c (I, d), e_s (d,)."""
    o = _fc(s, "shared", E_c.ravel())  # O^global
    if explicit:
        o = _scenario(s, "explicit", o, e_s)  # Eq. 1, 2, 4
    if implicit:
        heads = [np.concatenate([w * e for w, e in zip(row, E_c, strict=True)]) for row in _field_weights(s, e_s)]
        o = np.concatenate([_scenario(s, "implicit", o, P_g) for P_g in heads])  # Eq. 7, 8
    return (s["head.weight"] @ _fc(s, "output", o) + s["head.bias"]).item()  # Eq. 9


def _fitted(**config) -> models.MultiDomainModel:
    """A model whose generated weights really depend on domain and fields, in double precision, in evaluation."""
    model = trained("hierrec", steps=20, **config).double().eval()
    model.zero_grad()
    with torch.no_grad():
        model.inputs.embedding.table.weight.normal_()
        model.inputs.embedding.numerical_weight.normal_()
        model.inputs.distribution.domain.weight.normal_()
    return model


def _loss_by_hand(model: models.MultiDomainModel, s: State, batch, **ablation: bool) -> np.ndarray:
    """The logits, from the state, except that the fields are looked up by the model's embedding."""
    x = model.inputs(batch)
    domains = s["inputs.distribution.domain.weight"][batch.domain.numpy()]
    rows = zip(x.fields.detach().numpy(), domains, strict=True)
    return np.array([_by_hand(s, E_c, e_s, **ablation) for E_c, e_s in rows])


@pytest.mark.parametrize(
    "ablation", [{}, {"explicit": False}, {"implicit": False}, {"heads": 1}], ids=["HierRec", "-E", "-I", "-MI"]
)
def test_the_logit_is_that_of_equations_1_to_9(ablation):
    model = _fitted(**ablation)
    batch = make_batch(12, seed=4)
    expected = _loss_by_hand(model, state(model), batch, **{k: v for k, v in ablation.items() if k != "heads"})
    assert expected.std() > 0.05
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-9)


def test_every_gradient_is_that_of_the_equations():
    model, batch = _fitted(), make_batch(12, seed=4)
    pull = np.random.default_rng(0).normal(size=12)
    (model(batch) * torch.from_numpy(pull)).sum().backward()
    checked = 0
    for name, parameter in model.named_parameters():
        if name.startswith("inputs.embedding"):
            continue
        s, step = {key: value.copy() for key, value in state(model).items()}, 1e-6
        for at in np.random.default_rng(1).integers(parameter.numel(), size=4):
            losses = []
            for shift in (step, -step):
                s[name].flat[at] += shift
                losses.append(pull @ _loss_by_hand(model, s, batch))
                s[name].flat[at] -= shift
            numeric = (losses[0] - losses[1]) / (2 * step)
            np.testing.assert_allclose(parameter.grad.flatten()[at].item(), numeric, atol=1e-6, rtol=1e-4, err_msg=name)
            checked += numeric != 0
    assert checked > 40


def test_the_gradient_of_the_embeddings_is_that_of_the_equations():
    model, batch = _fitted(), make_batch(3, seed=4)
    fields = []
    model.inputs.embedding.register_forward_hook(lambda *call: fields.append(call[2].fields) or fields[0].retain_grad())
    model(batch).sum().backward()
    s, E_c, learnt = state(model), fields[0].detach().numpy(), fields[0].grad.numpy()
    for row, p in enumerate(batch.domain.tolist()):
        e_s = s["inputs.distribution.domain.weight"][p]
        for i, j in ((0, 0), (2, 3), (6, 1)):
            moved = [E_c[row].copy(), E_c[row].copy()]
            moved[0][i, j], moved[1][i, j] = E_c[row, i, j] + 1e-6, E_c[row, i, j] - 1e-6
            numeric = (_by_hand(s, moved[0], e_s) - _by_hand(s, moved[1], e_s)) / 2e-6
            assert learnt[row, i, j] == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_explicit_weights_and_field_weights_are_generated_once_per_domain():
    model = trained("hierrec", unknown_rate=0.0).eval()

    def work(rows: int) -> dict[str, int]:
        batch = make_batch(rows, domains=1, seed=2)
        batch.domain[:3] = torch.arange(3)
        with FlopCounterMode(display=False) as counter:
            model(batch)
        flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
        explicit = sum(flops[f"HierRec.explicit.layers.{number}.generator"] for number in range(2))
        return {"explicit": explicit, "fields": flops["HierRec.field_scores"], "shared": flops["HierRec.shared"]}

    few, many = work(10), work(1000)
    assert many["shared"] == 100 * few["shared"]
    assert few["explicit"] == many["explicit"] == 2 * 3 * D * (64 * 16 + 16 + 16 * 64 + 64)
    assert few["fields"] == many["fields"] == 2 * 3 * D * G * FIELDS


def test_training_does_the_same_work_for_a_domain_however_many_rows_it_has():
    model = trained("hierrec", unknown_rate=0.0, implicit=False)

    def backward(rows: int) -> int:
        batch = make_batch(rows, domains=1)
        logits = model(batch)
        with FlopCounterMode(display=False) as counter:
            logits.sum().backward()
        return counter.get_total_flops()

    per_row = backward(101) - backward(100)
    assert backward(1000) == backward(100) + 900 * per_row


def test_field_weights_are_a_distribution_over_the_common_fields_that_the_domain_alone_decides():
    model = trained("hierrec", steps=20).eval()
    batch = make_batch(20, domains=4, seed=3)
    weights = model.insights(batch)["field_weights"]
    assert weights.shape == (20, G, FIELDS)
    torch.testing.assert_close(weights.sum(-1), torch.ones(20, G))
    for p in range(4):
        rows = weights[batch.domain == p]
        torch.testing.assert_close(rows, rows[:1].expand_as(rows))
    assert not torch.allclose(weights[batch.domain == 0][0], weights[batch.domain == 1][0])
    s = state(model)
    e_s = s["inputs.distribution.domain.weight"][0]
    np.testing.assert_allclose(weights[batch.domain == 0][0], _field_weights(s, e_s), atol=1e-6)
    assert model.common_fields == ("user", "item", "genre", "clicked", "clicked_genre", "genres", "year")
    assert model.insight_labels() == {"field_weights": model.common_fields}


def test_without_implicit_layers_there_is_nothing_to_draw():
    assert trained("hierrec", steps=1, implicit=False).insights(make_batch(3)) == {}


def test_the_domains_own_field_is_not_a_common_one():
    owners = {**SCHEMA.owners, "genre": "domain", "year": "domain"}
    model = models.build("hierrec", dataclasses.replace(SCHEMA, owners=owners), **SMALL, unknown_rate=0.0).eval()
    assert model.common_fields == ("user", "item", "clicked", "clicked_genre", "genres", "year")
    batch = make_batch(20)
    scores = model(batch)
    batch.categorical[:, 2] = (batch.categorical[:, 2] + 1) % 6
    assert torch.equal(model(batch), scores)
    batch.categorical[:, 1] = (batch.categorical[:, 1] + 1) % 20
    assert not torch.equal(model(batch), scores)


def test_a_data_set_of_the_domains_own_field_alone_is_refused():
    alone = InputSchema(domains=2, vocabularies={"place": 4}, categorical=("place",), owners={"place": "domain"})
    with pytest.raises(ConfigurationError, match="needs a field that is not the domain's own, not only place"):
        models.build("hierrec", alone, **SMALL)


def test_a_domain_never_met_scores_as_an_unknown_one():
    model = trained("hierrec", steps=20, domains=2).eval()
    batch = make_batch(6, seed=4)
    scores = [model(dataclasses.replace(batch, domain=torch.full((6,), p))) for p in (2, 3, 0)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_distribution_features_give_weights_to_each_of_their_combinations():
    model = trained("hierrec", steps=20, distribution="features").eval()
    batch = make_batch(60, seed=4)
    combinations = {tuple(row) for row in torch.stack([batch.domain, batch.categorical[:, 2]], dim=1).tolist()}
    with FlopCounterMode(display=False) as counter:
        scores = model(batch)
    flops = sum(counter.get_flop_counts()["HierRec.field_scores"].values())
    assert flops == 2 * len(combinations) * 2 * D * G * FIELDS
    alone = torch.cat([model(take(batch, torch.tensor([row]))) for row in range(60)])
    torch.testing.assert_close(scores, alone, atol=1e-6, rtol=1e-5)


def test_at_the_start_every_scenario_oriented_layer_keeps_the_scale_of_its_input():
    torch.manual_seed(0)
    model = models.build("hierrec", SCHEMA, embedding_dim=16, dropout=0.0)
    shared = model.shared(torch.randn(400, 7 * 16), torch.zeros(400))
    batch = make_batch(400)
    condition = model.inputs(batch).condition
    explicit = model.explicit.distinct(shared, models.hierrec.Distinct.of(condition))
    implicit = model.implicit(explicit, torch.randn(400, G, 7 * 16) * 0.01)
    assert (explicit.std() / shared.square().mean().sqrt()).item() == pytest.approx(1, abs=0.5)
    assert (implicit.std() / explicit.std()).item() == pytest.approx(1, abs=0.5)
    assert 0.1 < model(batch).std().item() < 3


def test_the_scenario_oriented_layer_is_linear_between_its_layers():
    model = trained("hierrec", steps=5).eval()
    x = model.inputs(make_batch(9))
    e_s, zero = models.hierrec.Distinct.of(x.condition), torch.zeros(9, 64)
    one, other = torch.randn(9, 64), torch.randn(9, 64)
    apply = model.explicit.distinct
    torch.testing.assert_close(
        apply(one + other, e_s) - apply(zero, e_s),
        apply(one, e_s) + apply(other, e_s) - 2 * apply(zero, e_s),
        atol=1e-4,
        rtol=1e-4,
    )


def test_one_row_uses_running_statistics_in_training_too():
    model = trained("hierrec", steps=3, dropout=0.0, unknown_rate=0.0)
    row = make_batch(1)
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    training = model.train()(row)
    assert torch.equal(training, model.eval()(row))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_the_order_of_a_layer_is_linear_batch_norm_dropout_relu():
    torch.manual_seed(0)
    fc = models.hierrec.FC(in_features=5, widths=[400], dropout=0.5)
    calls = []
    for part in (fc.layers[0], fc.norms[0], fc.dropout):
        part.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    output = fc(torch.randn(64, 5), torch.zeros(64))
    assert calls == ["Linear", "BatchNorm", "Dropout"]
    assert (output >= 0).all()
    assert (output == 0).float().mean() == pytest.approx(0.75, abs=0.05)  # half dropped, half of the others negative


def _attention_by_hand(s: State, P: np.ndarray) -> np.ndarray:
    """One-head self-attention between the rows of P (I, d)."""
    q, k, v = np.split(P @ s["attention.project.weight"].T + s["attention.project.bias"], 3, axis=1)
    scores = np.exp(q @ k.T / np.sqrt(P.shape[1]))
    mixed = scores / scores.sum(1, keepdims=True) @ v
    return mixed @ s["attention.out.weight"].T + s["attention.out.bias"]


def test_the_official_variant_attends_between_fields_and_gives_each_head_its_part_of_e_s():
    model, batch = _fitted(official_variant=True), make_batch(8, seed=4)
    s, x = state(model), model.inputs(batch)
    expected = []
    for E_c, p in zip(x.fields.detach().numpy(), batch.domain.tolist(), strict=True):
        e_s = s["inputs.distribution.domain.weight"][p]
        o = _scenario(s, "explicit", _fc(s, "shared", E_c.ravel()), e_s)
        heads = []
        for g in range(G):
            ori = (
                e_s[g : g + 1] @ s["field_scores.weight"][g] + s["field_scores.bias"].reshape(G, FIELDS)[g]
            )  # d / G = 1
            P_g = softmax(ori)[:, None] * E_c
            heads.append(_scenario(s, "implicit", o, _attention_by_hand(s, P_g).ravel()))
        expected.append((s["head.weight"] @ _fc(s, "output", np.concatenate(heads)) + s["head.bias"]).item())
    np.testing.assert_allclose(model(batch).detach(), expected, atol=1e-9)


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_the_official_variant_takes_any_number_of_rows(rows):
    model = trained("hierrec", steps=2, official_variant=True)
    for mode in (True, False):
        assert model.train(mode)(make_batch(rows)).shape == (rows,)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"heads": 3, "official_variant": True}, "3 heads must divide the width of e_s, which is 4"),
        ({"scenario": []}, "scenario must name at least one layer width"),
        ({"shared": [64, 0]}, r"shared\[1\] must be a whole number"),
        ({"explicit": False, "implicit": False}, "cannot both be false"),
        ({"explicit": "no"}, "explicit must be true or false, got 'no'"),
    ],
)
def test_an_impossible_option_is_refused(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("hierrec", SCHEMA, **SMALL, **config)
