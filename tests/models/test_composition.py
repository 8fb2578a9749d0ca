"""History × normalization × distribution × architecture: whatever can be chosen together works together."""

from __future__ import annotations

import itertools

import pytest
import torch
from model_cases import SCHEMA, SMALL, make_batch, take

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema
from multidomain.layers.distribution import DISTRIBUTIONS
from multidomain.layers.history import HISTORIES
from multidomain.layers.normalization import NORMALIZATIONS

OWN_HISTORY = ["ads", "can", "din", "mha"]  # a history encoder is what they are
TOWERS = ["dnn", "star"]
OTHERS = [name for name in models.architectures() if name not in OWN_HISTORY]


def check(name: str, **config) -> None:
    """It builds, takes two steps, and then scores a row as it scores it alone."""
    torch.manual_seed(0)
    model = models.build(name, SCHEMA, **{**SMALL, "auxiliary": True, "sparse": False, **config})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(2):
        batch = make_batch(48, seed=step)
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch), batch.label)
        (loss + model.auxiliary_loss()).backward()
        optimizer.step()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    encoder = {key for key, _ in model.named_parameters() if key.startswith("inputs.history.")}
    assert encoder <= set(gradients)
    batch = make_batch(12, domains=4, seed=9)
    with torch.no_grad():
        scores = model.eval()(batch)
        order = torch.randperm(12)
        torch.testing.assert_close(model(take(batch, order)), scores[order], atol=1e-6, rtol=1e-5)
        for row in range(0, 12, 4):
            alone = model(take(batch, torch.tensor([row])))
            torch.testing.assert_close(alone, scores[row : row + 1], atol=1e-6, rtol=1e-5)
        served = model.serving_form()(batch)
    torch.testing.assert_close(served, scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "history"), list(itertools.product(TOWERS, HISTORIES)))
def test_every_history_works_with_every_normalization_and_distribution(name, history):
    for normalization, distribution in itertools.product(NORMALIZATIONS, DISTRIBUTIONS):
        check(name, history=history, normalization=normalization, distribution=distribution)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("name", [name for name in OTHERS if name not in TOWERS])
def test_every_history_works_with_every_other_architecture(name, history):
    check(name, history=history, distribution="features")


@pytest.mark.parametrize("name", OWN_HISTORY)
def test_an_architecture_with_a_history_of_its_own_works_with_every_normalization_and_distribution(name):
    for normalization, distribution in itertools.product(NORMALIZATIONS, DISTRIBUTIONS):
        check(name, normalization=normalization, distribution=distribution)


@pytest.mark.parametrize(("name", "history"), list(itertools.product(OWN_HISTORY, HISTORIES)))
def test_an_architecture_with_a_history_of_its_own_says_so(name, history):
    message = rf"history: '{history}' is not for this architecture.* such as dnn, with one of: {', '.join(HISTORIES)}"
    with pytest.raises(ConfigurationError, match=message):
        models.build(name, SCHEMA, **SMALL, history=history)


@pytest.mark.parametrize("name", models.architectures())
def test_what_needs_a_history_says_so_where_there_is_none(name):
    schema = InputSchema(domains=2, vocabularies={"item": 9}, categorical=("item",))
    message = r"these inputs have no history.*is possible \(history: mean\)"
    if name in OWN_HISTORY:
        with pytest.raises(ConfigurationError, match=message):
            models.build(name, schema, **SMALL)
        return
    models.build(name, schema, **SMALL, history="mean")
    for history in HISTORIES[1:]:
        with pytest.raises(ConfigurationError, match=message):
            models.build(name, schema, **SMALL, history=history)


@pytest.mark.parametrize("name", models.architectures())
@pytest.mark.parametrize(
    ("option", "exist"),
    [("history", HISTORIES), ("normalization", NORMALIZATIONS), ("distribution", DISTRIBUTIONS)],
)
def test_a_misspelt_choice_is_answered_with_those_that_exist(name, option, exist):
    if option == "history" and name in OWN_HISTORY:
        return
    with pytest.raises(
        ConfigurationError, match=f"{option}: 'nothing' is not known.*Allowed: {', '.join(sorted(exist))}"
    ):
        models.build(name, SCHEMA, **SMALL, **{option: "nothing"})


def test_the_ads_history_is_its_plain_attention_at_the_start_of_any_tower():
    for name, kind in itertools.product(TOWERS, ["din", "mha", "can"]):
        plain = models.build(name, SCHEMA, **SMALL, history=kind).eval()
        torch.nn.init.normal_(plain.inputs.embedding.table.weight)
        ads = models.build(name, SCHEMA, **SMALL, history=f"ads_{kind}").eval()
        assert not ads.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
        batch = make_batch(20, domains=4)
        torch.testing.assert_close(ads(batch), plain(batch), atol=1e-6, rtol=1e-6)
