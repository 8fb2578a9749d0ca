"""ADS: Eq. 1-13 as a whole, the start as its plain backbone, the ablations of Table 3, the chunks of Figure 4."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from history_cases import (
    backbone_parameters,
    generator_parameters,
    logits_by_hand,
    network_parameters,
    parameters,
)
from model_cases import SCHEMA, SMALL, make_batch, trained
from torch.utils.flop_counter import FlopCounterMode

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema

BACKBONES = pytest.mark.parametrize("backbone", ["din", "mha", "can"])


def expected_parameters(model: models.MultiDomainModel) -> int:
    """PSRG, PCRG, four heads of 32, E_D's domains, the network, the vector of the numerical field; no auxiliary one."""
    c, d, domains = model.inputs.width, model.inputs.embedding_dim, model.schema.domains
    d_s, d_d = 2 * d, 2 * d  # item and genre; the domain and genre
    encoder = backbone_parameters(d_s, "mha") + generator_parameters(d_s, d_d, model.schema.history_length)
    return encoder + (domains + 1) * d + network_parameters([c + d_d, *SMALL["hidden"], 1]) + d


def test_the_number_of_parameters_is_that_of_the_equations():
    model = models.build("ads", SCHEMA, **SMALL)
    assert parameters(model) == expected_parameters(model)


@BACKBONES
@pytest.mark.parametrize("items", [1, 2, 3])
def test_the_logit_is_that_of_equations_1_to_13(backbone, items):
    model = trained("ads", steps=20, backbone=backbone, items_per_chunk=items).eval()
    batch = make_batch(25, seed=4)
    np.testing.assert_allclose(model(batch).detach(), logits_by_hand(model, batch, backbone), atol=2e-5, rtol=1e-5)


@BACKBONES
@pytest.mark.parametrize("history", [{"psrg": True, "pcrg": False}, {"psrg": False, "pcrg": False}])
def test_without_pcrg_and_without_both_it_is_the_equations_less_these(backbone, history):
    model = trained("ads", steps=10, backbone=backbone, **history).eval()
    names = [name for name, _ in model.named_parameters()]
    assert any("history.sequence" in name for name in names) is history["psrg"]
    assert not any("history.query" in name for name in names)
    batch = make_batch(10, seed=4)
    np.testing.assert_allclose(model(batch).detach(), logits_by_hand(model, batch, backbone), atol=2e-5, rtol=1e-5)


@BACKBONES
@pytest.mark.parametrize("items", [1, 2])
def test_at_the_start_the_model_is_its_plain_backbone(backbone, items):
    plain = models.build("ads", SCHEMA, **SMALL, backbone=backbone, psrg=False, pcrg=False).eval()
    torch.nn.init.normal_(plain.inputs.embedding.table.weight)
    ads = models.build("ads", SCHEMA, **SMALL, backbone=backbone, items_per_chunk=items).eval()
    missing = ads.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    batch = make_batch(50, domains=4)
    torch.testing.assert_close(ads(batch), plain(batch), atol=1e-6, rtol=1e-6)


@BACKBONES
def test_what_training_adds_to_the_backbone_depends_on_the_domain(backbone):
    model = trained("ads", steps=30, backbone=backbone).eval()
    batch = make_batch(40, seed=3)
    moved = dataclasses.replace(batch, domain=(batch.domain + 1) % 3)
    here, there = (model.inputs(b).fields[:, 3:5].flatten(1) for b in (batch, moved))
    changed = (~torch.isclose(here, there, atol=1e-6)).any(dim=1)
    assert torch.equal(changed, batch.history["clicked"].any(dim=1))
    assert not torch.allclose(model(batch), model(moved))


def test_every_part_of_the_generators_is_trained():
    model = trained("ads", steps=3)
    torch.manual_seed(0)
    start = models.build("ads", SCHEMA, **SMALL, sparse=False)
    before = dict(start.named_parameters())
    for name, parameter in model.named_parameters():
        if "history" in name:
            assert not torch.equal(parameter, before[name]), name


def test_attention_and_generated_weights_can_be_looked_at():
    model = trained("ads", steps=10).eval()
    batch = make_batch(30, domains=4)
    with torch.no_grad():
        found = model.insights(batch)
    assert set(found) == {"attention", "generated_weight"}
    present = batch.history["clicked"] > 0
    assert found["attention"].shape == (30, 4)
    assert not found["attention"][~present].any()
    torch.testing.assert_close(found["attention"].sum(dim=1), present.any(dim=1).float())
    assert found["generated_weight"].shape == (30, 64)
    assert ((found["generated_weight"] > 0) & (found["generated_weight"] < 1)).all()
    same = (batch.domain == batch.domain[0]) & (batch.categorical[:, 2] == batch.categorical[0, 2])  # one E_D
    torch.testing.assert_close(found["generated_weight"][same], found["generated_weight"][:1].expand(same.sum(), -1))


def test_the_domain_is_explicit_and_implicit_unless_it_is_asked_otherwise():
    assert models.options("ads")["distribution"] == "features"
    assert models.build("ads", SCHEMA, **SMALL).inputs.describe_distribution() == 8
    assert models.build("ads", SCHEMA, **SMALL, distribution="domain").inputs.describe_distribution() == 4


@BACKBONES
def test_the_plain_backbone_knows_the_domain_from_the_other_features(backbone):
    model = trained("ads", steps=30, backbone=backbone, psrg=False, pcrg=False).eval()
    batch = make_batch(40, seed=3)
    moved = dataclasses.replace(batch, domain=(batch.domain + 1) % 3)
    assert torch.equal(model.inputs(moved).fields, model.inputs(batch).fields)
    assert not torch.allclose(model(moved), model(batch), atol=1e-4)


def test_its_history_is_its_own():
    with pytest.raises(
        ConfigurationError, match=r"history: 'din' is not for this architecture.*dnn, with one of: mean"
    ):
        models.build("ads", SCHEMA, **SMALL, history="din")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backbone": "dien"}, "backbone: 'dien' is not known; did you mean 'din'"),
        ({"items_per_chunk": 0}, "items_per_chunk must be a whole number of at least 1"),
        ({"eta": -1}, "eta must be a number above 0"),
        ({"pcrg": "no"}, "pcrg must be true or false"),
    ],
)
def test_impossible_options_are_errors(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("ads", SCHEMA, **SMALL, **config)


WIDE = InputSchema(
    domains=3,
    vocabularies={"item": 50, "genre": 8},
    categorical=("item", "genre"),
    history={"clicked": "item", "clicked_genre": "genre"},
    history_length=20,
    distribution=("genre",),
)


def costs(items: int, backbone: str = "mha", rows: int = 7) -> tuple[int, int]:
    """Parameters, and the floating point operations of the matrix products that score ``rows`` impressions."""
    model = models.build("ads", WIDE, hidden=[8], backbone=backbone, items_per_chunk=items)
    batch = make_batch(rows)
    wide = dataclasses.replace(
        batch,
        categorical=batch.categorical[:, 1:] % 8,
        numerical=torch.zeros(rows, 0),
        history={name: torch.randint(1, 8, (rows, 20)) for name in WIDE.history},
        bags={},
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(wide)
    return parameters(model), counter.get_total_flops()


@BACKBONES
def test_parameters_and_operations_fall_with_the_items_in_a_chunk(backbone):
    """Figure 4: in the generator with the number of queries alone, by (d_h + 1)·d_Q each, and 2·d_h·d_Q per row."""
    found = {items: costs(items, backbone) for items in (1, 2, 5, 10)}
    d_q, d_h, rows = 32, 32, 7
    queries = {items: 20 // items for items in found}
    per_query = {"din": d_q * 32, "mha": d_q * 4 * d_q, "can": d_q * (d_q * 8 + 8 * 4)}[backbone]  # what attention does
    for items in (2, 5, 10):
        fewer = queries[1] - queries[items]
        assert found[1][0] - found[items][0] == fewer * (d_h + 1) * d_q
        assert found[1][1] - found[items][1] == 2 * rows * fewer * (d_h * d_q + per_query)
