from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from history_cases import baseline_parameters, logits_by_hand, parameters
from model_cases import SCHEMA, SMALL, make_batch, trained

from multidomain import models
from multidomain.errors import ConfigurationError


def expected_parameters(model: models.MultiDomainModel) -> int:
    """An activation unit of 36, the network, the auxiliary network."""
    return baseline_parameters(model, "din", attention_dim=36)


def test_the_number_of_parameters_is_that_of_the_equations():
    model = models.build("din", SCHEMA, **SMALL)
    assert parameters(model) == expected_parameters(model)


def test_the_logit_is_that_of_the_equations():
    model = trained("din", steps=20).eval()
    batch = make_batch(25, seed=4)
    np.testing.assert_allclose(model(batch).detach(), logits_by_hand(model, batch, "din"), atol=2e-5, rtol=1e-5)


def test_at_the_start_it_is_near_the_mean_of_the_history():
    """Small embeddings give every event nearly the same weight: it starts as the DNN it is compared with."""
    torch.manual_seed(0)
    din = models.build("din", SCHEMA, **SMALL, unknown_rate=0.0)
    mean = models.build("dnn", SCHEMA, **SMALL, unknown_rate=0.0)
    mean.inputs.load_state_dict({k: v for k, v in din.inputs.state_dict().items() if not k.startswith("history")})
    batch = make_batch(50)
    torch.testing.assert_close(din.inputs(batch).fields, mean.inputs(batch).fields, atol=1e-3, rtol=0.05)


def test_as_in_the_paper_the_weights_need_not_add_up_to_one():
    model = trained("din", steps=20, softmax=False).eval()
    batch = make_batch(30, seed=4)
    present = (batch.history["clicked"] > 0).any(dim=1)
    with torch.no_grad():
        intensity = model.insights(batch)["attention"].sum(dim=1)
    assert not intensity[~present].any()
    assert intensity[present].std() > 1e-3
    other = trained("din", steps=2).eval()
    with torch.no_grad():
        normalized = other.insights(batch)["attention"].sum(dim=1)
    torch.testing.assert_close(normalized, present.float())


def test_it_is_the_dnn_with_its_history_encoded_so():
    model = trained("din", steps=3, attention_dim=32).eval()
    other = models.build("dnn", SCHEMA, **SMALL, normalization="none", history="din").eval()
    other.load_state_dict(model.state_dict())
    batch = make_batch(20)
    assert torch.equal(other(batch), model(batch))


def test_the_candidate_decides_what_counts():
    model = trained("din", steps=50).eval()
    batch = make_batch(40, seed=8)
    other = batch.categorical.clone()
    other[:, 1] = (other[:, 1] + 7) % 20
    with torch.no_grad():
        one, two = (model.insights(b)["attention"] for b in (batch, dataclasses.replace(batch, categorical=other)))
    several = (batch.history["clicked"] > 0).sum(dim=1) > 1
    assert (~torch.isclose(one, two, atol=1e-5)).any(dim=1)[several].all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"history": "mha"}, "history: 'mha' is not for this architecture"),
        ({"attention_dim": 0}, "attention_dim must be a whole number"),
        ({"softmax": 1}, "softmax must be true or false"),
    ],
)
def test_impossible_options_are_errors(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("din", SCHEMA, **SMALL, **config)
