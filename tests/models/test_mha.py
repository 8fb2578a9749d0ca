from __future__ import annotations

import numpy as np
import pytest
import torch
from history_cases import baseline_parameters, logits_by_hand, parameters
from model_cases import SCHEMA, SMALL, make_batch, trained

from multidomain import models
from multidomain.errors import ConfigurationError


def expected_parameters(model: models.MultiDomainModel) -> int:
    """W_Q, W_K, W_V and W_O of four heads of 32, the network, the auxiliary network."""
    return baseline_parameters(model, "mha")


def test_the_number_of_parameters_is_that_of_the_equations():
    model = models.build("mha", SCHEMA, **SMALL)
    assert parameters(model) == expected_parameters(model)


@pytest.mark.parametrize("heads", [1, 4])
def test_the_logit_is_that_of_the_equations(heads):
    model = trained("mha", steps=20, heads=heads, attention_dim=8).eval()
    batch = make_batch(25, seed=4)
    np.testing.assert_allclose(model(batch).detach(), logits_by_hand(model, batch, "mha"), atol=2e-5, rtol=1e-5)


def test_the_heads_are_those_of_pytorch():
    """The same attention by ``nn.functional.scaled_dot_product_attention``: one query, keys and values side by side."""
    model = trained("mha", steps=10).eval()
    batch = make_batch(30, seed=4)
    layer, embedded = model.inputs.history.attention, model.inputs.embedding(batch)
    e_s, e_q, mask, _ = model.inputs._past(embedded, lambda: None)
    rows = mask.any(dim=1)
    e_s, e_q, mask = e_s[rows], e_q[rows].unsqueeze(1), mask[rows]
    q, k, v = (
        torch.einsum("bti,hia->bhta", x, w) for x, w in ((e_q, layer.query), (e_s, layer.key), (e_s, layer.value))
    )
    heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
    expected = layer.output(heads[:, :, 0].flatten(1))
    torch.testing.assert_close(layer(e_q, e_s, mask), expected, atol=1e-6, rtol=1e-4)


def test_attention_is_the_mean_of_the_heads_and_adds_up_to_one():
    model = trained("mha", steps=3).eval()
    batch = make_batch(30)
    with torch.no_grad():
        attention = model.insights(batch)["attention"]
    present = (batch.history["clicked"] > 0).any(dim=1)
    torch.testing.assert_close(attention.sum(dim=1), present.float())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"history": "mean"}, "history: 'mean' is not for this architecture"),
        ({"heads": 0}, "heads must be a whole number"),
        ({"attention_dim": "8"}, "attention_dim must be a whole number"),
    ],
)
def test_impossible_options_are_errors(config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build("mha", SCHEMA, **SMALL, **config)
