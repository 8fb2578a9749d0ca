from __future__ import annotations

import dataclasses
import importlib
import inspect

import numpy as np
import pytest
import torch
from model_cases import SCHEMA, SMALL, flops, make_batch, take, trained, with_domain
from torch.nn.functional import binary_cross_entropy_with_logits

from multidomain import models
from multidomain.errors import ConfigurationError
from multidomain.evaluation import insights
from multidomain.inputs import InputSchema
from multidomain.layers.embedding import DomainEmbedding
from multidomain.models.base import InputOptions, MultiDomainModel

EVERY = pytest.mark.parametrize("name", models.architectures())
MIXES_ALL_DOMAINS = {  # by its equations; what it costs then stands in its own tests
    "cross_stitch": "a unit mixes the activations of the networks of all domains (Eq. 1)",
    "ple": "below the last level the shared gate mixes the experts of all domains (section 4.2)",
}


def test_the_architectures_are_found_by_their_files():
    assert {"star", "dnn"} <= set(models.architectures())


@EVERY
def test_logits_have_one_number_per_row_whatever_the_batch(name):
    model = trained(name)
    for mode in (True, False):
        model.train(mode)
        for rows, domains in ((1, 1), (1, 3), (30, 1), (30, 4), (0, 1)):
            logits = model(make_batch(rows, domains=domains))
            assert logits.shape == (rows,)
            assert torch.isfinite(logits).all()


@EVERY
def test_one_row_can_be_trained_on(name):
    model = models.build(name, SCHEMA, **SMALL)
    model(make_batch(1)).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g.coalesce().values() if g.is_sparse else g).all() for g in gradients)


@EVERY
def test_products_in_bf16_give_nearly_the_logits_and_finite_gradients_of_float32_parameters(name):
    model, batch = models.build(name, SCHEMA, **SMALL).eval(), make_batch(40, domains=4)
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(batch)
        loss = rough.float().square().mean() + model.auxiliary_loss().float()
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert {g.dtype for g in gradients} == {torch.float32}
    assert all(torch.isfinite(g.coalesce().values() if g.is_sparse else g).all() for g in gradients)


@EVERY
def test_a_score_does_not_depend_on_the_rows_beside_it(name):
    model = trained(name).eval()
    batch = make_batch(40, domains=4, seed=9)
    scores = model(batch)
    order = torch.randperm(40)
    torch.testing.assert_close(model(take(batch, order)), scores[order], atol=1e-6, rtol=1e-5)
    alone = torch.cat([model(take(batch, torch.tensor([row]))) for row in range(40)])
    torch.testing.assert_close(alone, scores, atol=1e-6, rtol=1e-5)


@EVERY
def test_evaluation_changes_nothing(name):
    model = trained(name).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(make_batch(20, domains=4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@EVERY
def test_a_state_dict_round_trip_gives_the_same_bits(name):
    model = trained(name).eval()
    torch.manual_seed(99)
    other = models.build(name, SCHEMA, **{**SMALL, "sparse": False}).eval()
    other.load_state_dict(model.state_dict())
    batch = make_batch(30, domains=4)
    assert torch.equal(other(batch), model(batch))


@EVERY
def test_the_same_seed_builds_and_trains_the_same_model(name):
    first, second = trained(name), trained(name)
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@EVERY
def test_it_can_learn_sixty_four_rows_by_heart(name):
    torch.manual_seed(0)
    model = models.build(name, SCHEMA, embedding_dim=8, hidden=[64, 32], unknown_rate=0.0, sparse=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batch = make_batch(64)
    for _ in range(150):
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(model(batch), batch.label)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    model.eval()
    assert ((model(batch) > 0) == (batch.label > 0.5)).float().mean() > 0.95


@EVERY
def test_the_serving_form_scores_the_same_and_is_rebuilt_from_its_own_state(name):
    model = trained(name, domains=2).eval()  # training never met domain 2
    batch = make_batch(60, domains=4, seed=5)
    assert set(batch.domain.tolist()) == {0, 1, 2, 3}
    served = model.serving_form()
    torch.testing.assert_close(served(batch), model(batch), atol=1e-5, rtol=1e-5)
    empty = models.build_serving(name, SCHEMA, **SMALL)
    empty.load_state_dict(served.state_dict())
    assert torch.equal(empty(batch), served(batch))


@EVERY
def test_what_a_model_shows_of_itself_can_be_drawn_and_does_not_depend_on_the_rows_beside_it(name, tmp_path):
    model = trained(name, domains=2).eval()
    batch = make_batch(40, domains=4, seed=9)
    with torch.no_grad():
        shown = model.insights(batch)
        for insight, value in model.insights(take(batch, torch.arange(10))).items():
            torch.testing.assert_close(value, shown[insight][:10], atol=1e-6, rtol=1e-5)
    assert set(model.insight_labels()) <= set(shown)
    values = {insight: value.numpy() for insight, value in shown.items()}
    assert all(np.isfinite(value).all() for value in values.values())
    domains = ["a", "b", "c"]
    insights.write(
        tmp_path, insights.Collected(values, batch.domain.numpy()), domains=domains, labels=model.insight_labels()
    )
    assert {path.stem for path in tmp_path.glob("*.png")} == set(shown)


@EVERY
def test_an_unknown_option_is_an_error_that_names_the_nearest(name):
    with pytest.raises(
        ConfigurationError, match=r"'embeding_dim' is not known; did you mean 'embedding_dim'\? Allowed"
    ):
        models.build(name, SCHEMA, embeding_dim=4)


@EVERY
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden": [16, 0]}, r"hidden\[1\] must be a whole number of at least 1, got 0"),
        ({"hidden": "16,8"}, "hidden must be a list of layer widths"),
        ({"embedding_dim": 2.5}, "embedding_dim must be a whole number"),
        ({"normalization": "bacth"}, "normalization: 'bacth' is not known; did you mean 'batch'"),
        ({"dropout": 1.0}, "dropout must be a number of at least 0 and below 1"),
        ({"dropout": "0.1"}, "dropout must be a number"),
        ({"auxiliary": "false"}, "auxiliary must be true or false, got 'false'"),
    ],
)
def test_an_impossible_option_is_an_error(name, config, message):
    with pytest.raises(ConfigurationError, match=message):
        models.build(name, SCHEMA, **config)


def test_an_unknown_architecture_is_an_error_that_names_the_nearest():
    with pytest.raises(ConfigurationError, match="'sta' is not known; did you mean 'star'"):
        models.build("sta", SCHEMA)


def test_domain_weights_beyond_the_set_memory_are_refused_with_size_and_remedy():
    many = InputSchema(domains=9_439, vocabularies={"a": 10}, categorical=("a",) * 100)
    with pytest.raises(ConfigurationError, match=r"3\d\.\d GiB \(9,439 domains .* Keep only the \d+ largest domains"):
        models.build("star", many)
    with pytest.raises(ConfigurationError, match="max_domain_weight_gib = 1e-06"):
        models.build("star", SCHEMA, max_domain_weight_gib=1e-6, **SMALL)


def test_asking_for_the_size_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    through_build = models.build("dnn", SCHEMA, **SMALL)
    torch.manual_seed(3)
    direct = type(through_build)(SCHEMA, **SMALL)
    assert torch.equal(through_build.inputs.embedding.table.weight, direct.inputs.embedding.table.weight)


@EVERY
def test_every_key_of_the_shared_inputs_is_an_option_with_the_default_of_the_base_class(name):
    shared, own = (inspect.signature(one).parameters for one in (MultiDomainModel, type(models.build(name, SCHEMA))))
    for key in InputOptions.__annotations__:  # an architecture may name one itself, for a default of its own
        assert models.options(name)[key] == own.get(key, shared[key]).default


def test_a_distribution_representation_that_nothing_reads_is_refused():
    with pytest.raises(ConfigurationError, match=r"'features' is read by nothing .* 'dnn'.*auxiliary: true"):
        models.build("dnn", SCHEMA, **SMALL, auxiliary=False, distribution="features")


@EVERY
@pytest.mark.parametrize("p", [0, None])
def test_the_towers_of_other_domains_are_not_computed(name, p):
    costs = []
    for domains in (3, 12):
        torch.manual_seed(0)
        model = models.build(name, dataclasses.replace(SCHEMA, domains=domains), **SMALL)
        model(make_batch(64))  # domains 0 to 2 are known from now on
        costs.append(flops(model, with_domain(make_batch(16, seed=1), domains if p is None else p)))
    assert costs[0] > 0
    if name in MIXES_ALL_DOMAINS:
        assert costs[1] > costs[0]
    else:
        assert costs[1] == costs[0]


@EVERY
def test_there_are_as_many_parameters_as_the_formula_of_its_tests_says(name):
    model = models.build(name, SCHEMA, **SMALL)
    without_table = sum(p.numel() for p in model.parameters()) - model.inputs.embedding.table.weight.numel()
    assert without_table == importlib.import_module(f"test_{name}").expected_parameters(model)


@EVERY
def test_a_weight_that_grows_with_the_number_of_domains_is_called_so(name):
    few, many = (models.build(name, dataclasses.replace(SCHEMA, domains=domains), **SMALL) for domains in (3, 5))
    shapes = {key: parameter.shape for key, parameter in few.named_parameters()}
    for key, parameter in many.named_parameters():
        module, _, last = key.rpartition(".")
        vectors = isinstance(many.get_submodule(module), DomainEmbedding)  # one per domain: of no weight
        assert parameter.shape == shapes.get(key) or last.startswith("domain_") or vectors, key
