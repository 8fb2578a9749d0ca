"""What tells a network which distribution a row comes from: of the domain, of features, and quantized as in HMDN."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from multidomain import models
from multidomain.batch import Batch
from multidomain.inputs import InputSchema
from multidomain.layers.distribution import DISTRIBUTIONS, DistributionFeatures, distribution

SCHEMA = InputSchema(
    domains=3,
    vocabularies={"item": 12, "source": 5, "age": 4},
    categorical=("item", "source", "age"),
    distribution=("age", "source"),
)
SMALL = {"embedding_dim": 4, "hidden": [8, 4]}
QUANTIZED = pytest.mark.parametrize("name", ["hmdn", "hmdn_explicit"])


def make_batch(rows: int, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    ids = [torch.randint(1, SCHEMA.vocabularies[name], (rows,), generator=draw) for name in SCHEMA.categorical]
    domain = torch.randint(0, 3, (rows,), generator=draw)
    label = torch.randint(0, 2, (rows,), generator=draw).float()
    return Batch(torch.stack(ids, dim=1), torch.zeros(rows, 0), {}, {}, domain, label)


def trained(architecture: str, steps: int = 6, **config) -> models.MultiDomainModel:
    torch.manual_seed(0)
    model = models.build(architecture, SCHEMA, **{**SMALL, "sparse": False, **config})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):
        batch = make_batch(64, seed=step)
        optimizer.zero_grad()
        (binary_cross_entropy_with_logits(model(batch), batch.label) + model.auxiliary_loss()).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_representation_has_the_width_it_says(name):
    made = distribution(name, schema=SCHEMA, embedding_dim=4)
    fields = torch.randn(7, 3, 4)
    assert made(make_batch(7).domain, fields).shape == (7, made.features)
    assert made.features == (4 if name == "domain" else 12)


def test_an_unknown_representation_is_an_error_that_names_those_there_are():
    with pytest.raises(ValueError, match="'raw'; there are domain, features, hmdn, hmdn_explicit"):
        distribution("raw", schema=SCHEMA, embedding_dim=4)


def test_the_distribution_features_are_the_domain_and_the_declared_fields():
    made = DistributionFeatures(schema=SCHEMA, embedding_dim=4).eval()
    made.domain.known.seen.fill_(True)
    batch, fields = make_batch(7), torch.randn(7, 3, 4)
    expected = torch.stack([made.domain.weight[batch.domain], fields[:, 2], fields[:, 1]], dim=1)
    assert torch.equal(made.vectors(batch.domain, fields), expected)
    assert torch.equal(made(batch.domain, fields), expected.flatten(1))


def test_the_implicit_representation_quantizes_the_vectors_side_by_side():
    torch.manual_seed(0)
    made = distribution("hmdn", schema=SCHEMA, embedding_dim=4, unknown_rate=0.0)
    batch, fields = make_batch(40), torch.randn(40, 3, 4)
    made(batch.domain, fields)
    made.eval()
    s_D, codes, L_rq = made.quantized(made.described.vectors(batch.domain, fields))
    expected = made.quantizer(made.described(batch.domain, fields))
    assert codes.shape == (40, 6)
    assert all(torch.equal(a, b) for a, b in zip((s_D, codes, L_rq), expected, strict=True))


def test_the_explicit_representation_has_a_level_for_each_type_which_sees_nothing_of_the_others():
    torch.manual_seed(0)
    made = distribution("hmdn_explicit", schema=SCHEMA, embedding_dim=4, unknown_rate=0.0)
    batch, fields = make_batch(40), torch.randn(40, 3, 4)
    made(batch.domain, fields)
    made.eval()
    s_D, codes, L_rq = made.quantized(made.described.vectors(batch.domain, fields))
    vectors = made.described.vectors(batch.domain, fields)  # domain, age, source
    levels = torch.stack([vectors[:, t] @ made.projection[t] for t in range(3)], dim=1)  # each of the width of x_b
    assert codes.shape == (40, 3)
    expected = made.quantizer(levels)
    for found, wanted in zip((s_D, codes, L_rq), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    fields[:, 1] = torch.randn(40, 4)  # the source
    other = made.quantized(made.described.vectors(batch.domain, fields))[1]
    assert torch.equal(other[:, :2], codes[:, :2])
    assert not torch.equal(other[:, 2], codes[:, 2])


@QUANTIZED
def test_star_reads_it_as_its_condition_and_learns_from_its_loss(name):
    model = trained("star", distribution=name)
    before = model.inputs.distribution.quantizer.codebooks.detach().clone()
    model.zero_grad()
    model(make_batch(64)).sum().backward()
    quantizer = model.inputs.distribution.quantizer
    assert quantizer.codebooks.grad is None or not quantizer.codebooks.grad.any()
    assert model.inputs.distribution.described.domain.weight.grad.any()  # straight through
    loss = model.auxiliary_loss()
    assert loss.item() > 0
    model(make_batch(64))
    model.auxiliary_loss().backward()
    assert quantizer.codebooks.grad.any()
    assert quantizer.codebooks.shape == before.shape
    assert all(1 <= value <= 16 for value in model.diagnostics().values())
    levels = 6 if name == "hmdn" else 3
    assert list(model.diagnostics()) == [f"perplexity_level_{level}" for level in range(1, levels + 1)]


@QUANTIZED
def test_a_star_that_reads_it_is_served_and_copied(name):
    model = trained("star", distribution=name)
    assert copy.deepcopy(model).auxiliary_loss().item() == 0  # straight out of training: a graph is not copied
    assert model.auxiliary_loss().item() > 0
    model.eval()
    batch = make_batch(50, seed=9)
    served = model.serving_form()
    torch.testing.assert_close(served(batch), model(batch), atol=1e-5, rtol=1e-5)
    empty = models.build_serving("star", SCHEMA, **SMALL, distribution=name)
    empty.load_state_dict(served.state_dict())
    assert torch.equal(empty(batch), served(batch))


def test_the_loss_of_one_batch_is_not_taken_for_that_of_the_next():
    model = trained("dnn", distribution="hmdn")
    assert model.auxiliary_loss().item() > 0
    x = model.inputs(make_batch(5))
    assert model.auxiliary_loss().item() == 0
    _ = x.condition
    assert model.auxiliary_loss().item() > 0


def test_without_quantization_nothing_is_added_to_the_loss_and_nothing_told():
    model = trained("star")
    assert model.auxiliary_loss().item() == 0
    assert model.diagnostics() == {}


@QUANTIZED
def test_settling_the_normalization_does_not_touch_the_codebooks(name, tmp_path: Path):
    from multidomain.training.moments import settle_moments

    class Loader:
        steps = 2

        def epoch(self, epoch: int):
            yield from (make_batch(40, seed=seed) for seed in range(2))

    model = trained("star", distribution=name)
    before = {key: value.clone() for key, value in model.inputs.distribution.state_dict().items()}
    assert settle_moments(model, Loader(), epoch=1) == 126
    assert all(torch.equal(value, before[key]) for key, value in model.inputs.distribution.state_dict().items())
