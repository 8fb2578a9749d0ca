"""The equations of the MaskNet paper, evaluated row by row in NumPy, against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interactions_by_hand import common_parameters, layer_norm
from model_cases import SCHEMA, SMALL, make_batch, trained
from towers_by_hand import State, auxiliary, dense, network, state

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.models.baselines.masknet import FieldNorm, MaskBlock


def expected_parameters(model: models.MultiDomainModel) -> int:
    """LN_EMB; three blocks: a mask (r = 2), a matrix, a layer normalization (width 64); the network behind them."""
    c, q = model.inputs.width, 64
    block = dense(c, 2 * c, c) + c * q + 2 * q
    return common_parameters(model) + 2 * c + 3 * block + dense(3 * q, *SMALL["hidden"], 1)


def _block(s: State, number: int, v_emb: np.ndarray, v: np.ndarray) -> np.ndarray:
    b = f"blocks.{number}."
    hidden = np.maximum(s[b + "mask.layers.0.weight"] @ v_emb + s[b + "mask.layers.0.bias"], 0)
    v_mask = s[b + "mask.layers.1.weight"] @ hidden + s[b + "mask.layers.1.bias"]  # Eq. 4
    normed = layer_norm(s[b + "linear.weight"] @ (v_mask * v)) * s[b + "norm.weight"] + s[b + "norm.bias"]  # Eq. 5-7
    return np.maximum(normed, 0)  # Eq. 9


def _by_hand(s: State, structure: str, fields: np.ndarray, p: int) -> float:
    v_emb = fields.reshape(-1)
    ln_emb = np.concatenate([layer_norm(e) for e in fields]) * s["ln_emb.weight"] + s["ln_emb.bias"]  # Eq. 8
    if structure == "parallel":
        v = np.concatenate([_block(s, number, v_emb, ln_emb) for number in range(3)])  # Eq. 12
    else:
        v = _block(s, 1, v_emb, _block(s, 0, v_emb, ln_emb))  # Eq. 10, Eq. 11
    return network(s, "network.layers.", v, linear_output=True).item() + auxiliary(s, v_emb, p)


@pytest.mark.parametrize("structure", ["parallel", "serial"])
def test_the_logit_is_that_of_equations_4_to_14(structure):
    model = trained("masknet", steps=20, structure=structure, block_width=6).eval()
    batch, s = make_batch(12, seed=4), state(model)
    fields = model.inputs(batch).fields.detach().double().numpy()
    expected = [_by_hand(s, structure, e, p) for e, p in zip(fields, batch.domain.tolist(), strict=True)]
    np.testing.assert_allclose(model(batch).detach(), expected, atol=2e-5)


def test_each_field_is_a_layer_of_its_own_to_the_normalization_of_embeddings():
    torch.manual_seed(0)
    norm = FieldNorm(width=12, features=4)
    z = torch.randn(5, 12)
    fields = norm(z).view(5, 3, 4)
    torch.testing.assert_close(fields.mean(2), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(fields.var(2, unbiased=False), torch.ones(5, 3), atol=1e-3, rtol=0)
    other = z.clone()
    other[:, :4] *= 7
    torch.testing.assert_close(norm(other)[:, 4:], norm(z)[:, 4:])


def test_a_mask_of_ones_makes_a_block_a_plain_normalized_layer():
    torch.manual_seed(0)
    block = MaskBlock(guide=6, in_features=5, out_features=3, ratio=2, dropout=0.0)
    torch.nn.init.zeros_(block.mask.layers[1].weight)
    torch.nn.init.ones_(block.mask.layers[1].bias)
    v = torch.randn(4, 5)
    expected = torch.relu(torch.layer_norm(v @ block.linear.weight.T, [3]))
    torch.testing.assert_close(block(torch.randn(4, 6), v), expected)


def test_the_mask_is_guided_by_the_instance():
    torch.manual_seed(0)
    block = MaskBlock(guide=6, in_features=5, out_features=3, ratio=2, dropout=0.0)
    v = torch.randn(1, 5).expand(2, 5)
    first, second = block(torch.randn(2, 6), v)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("ratio", [1, 3])
def test_the_aggregation_of_a_mask_is_the_ratio_wider_than_the_mask(ratio):
    model = models.build("masknet", SCHEMA, **SMALL, structure="serial", reduction_ratio=ratio)
    c = model.inputs.width
    shapes = [[tuple(layer.weight.shape) for layer in block.mask.layers] for block in model.blocks]
    assert shapes == [[(ratio * c, c), (c, ratio * c)], [(ratio * 16, c), (16, ratio * 16)]]


def test_the_serial_model_has_a_block_per_width_and_the_parallel_one_as_many_as_asked_for():
    serial = models.build("masknet", SCHEMA, embedding_dim=4, hidden=[8, 6, 4], structure="serial")
    assert [block.linear.out_features for block in serial.blocks] == [8, 6, 4]
    assert [layer.out_features for layer in serial.network.layers] == [1]
    parallel = models.build("masknet", SCHEMA, **SMALL, blocks=5, block_width=7)
    assert [block.linear.in_features for block in parallel.blocks] == [parallel.inputs.width] * 5
    assert parallel.network.layers[0].in_features == 35


@pytest.mark.parametrize("structure", ["parallel", "serial"])
def test_at_the_start_masks_are_almost_one_and_logits_neither_vanish_nor_explode(structure):
    torch.manual_seed(0)
    model = models.build("masknet", SCHEMA, structure=structure, auxiliary=False)
    batch = make_batch(500)
    z = model.inputs(batch).z
    assert all((block.mask(z) - 1).abs().max() < 0.2 for block in model.blocks)
    assert 0.1 < model(batch).std().item() < 3


def test_an_impossible_option_is_an_error():
    with pytest.raises(ConfigurationError, match="the serial MaskNet has a block for each width"):
        models.build("masknet", SCHEMA, hidden=[], structure="serial")
    with pytest.raises(ConfigurationError, match="reduction_ratio must be a whole number"):
        models.build("masknet", SCHEMA, reduction_ratio=0)
