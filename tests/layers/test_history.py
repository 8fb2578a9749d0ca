"""The history encoder inside the input layer: what it is given, where its output goes, what it is refused."""

from __future__ import annotations

import dataclasses

import attention_oracle as oracle
import numpy as np
import pytest
import torch

from multidomain import models
from multidomain.batch import Batch
from multidomain.errors import ConfigurationError
from multidomain.inputs import InputSchema
from multidomain.layers.history import HISTORIES, NAMED, HistoryOptions, candidates
from multidomain.layers.inputs import InputLayer
from multidomain.models.baselines.dffm import DFFM
from multidomain.models.baselines.dnn import DNN

SCHEMA = InputSchema(
    domains=2,
    vocabularies={"user": 4, "item": 6, "genre": 5},
    categorical=("genre", "user", "item"),
    numerical=("year",),
    history={"clicked": "item", "clicked_genre": "genre"},
    history_length=3,
    bags={"genres": "genre"},
    distribution=("user",),
)
USER, ITEM, GENRE = 0, 4, 10  # where each vocabulary starts in the table
D = 3
ENCODED = pytest.mark.parametrize("name", list(NAMED))


def make_batch(schema: InputSchema = SCHEMA) -> Batch:
    ids = {"genre": [4, 1, 2], "user": [3, 1, 2], "item": [2, 3, 5]}
    return Batch(
        categorical=torch.tensor([ids[name] for name in schema.categorical]).T,
        numerical=torch.tensor([[0.5], [-2.0], [1.0]]),
        history={
            "clicked": torch.tensor([[0, 5, 2], [0, 0, 0], [1, 2, 3]]),
            "clicked_genre": torch.tensor([[0, 4, 0], [0, 0, 0], [3, 2, 1]]),  # the genre of one event is missing
        },
        bags={"genres": torch.tensor([[3, 0, 4, 2], [2, 0, 0, 0], [1, 1, 0, 0]])},
        domain=torch.tensor([0, 1, 1]),
        label=torch.zeros(3),
    )


def make_layer(history: str | HistoryOptions, schema: InputSchema = SCHEMA, **options) -> InputLayer:
    torch.manual_seed(0)
    layer = InputLayer(schema=schema, embedding_dim=D, history=history, **{"unknown_rate": 0.0, **options}).double()
    torch.nn.init.normal_(layer.embedding.table.weight)
    with torch.no_grad():
        layer.embedding.table.weight[[USER, ITEM, GENRE]] = 0
        if layer.history is not None:
            for parameter in layer.history.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def exact_batch(schema: InputSchema = SCHEMA) -> Batch:
    batch = make_batch(schema)
    return dataclasses.replace(batch, numerical=batch.numerical.double())


def by_hand(layer: InputLayer, kind: str) -> np.ndarray:
    """s (B, 2·D) of :func:`make_batch`, from the table and the oracle."""
    t = layer.embedding.table.weight.detach().numpy()
    batch, found = make_batch(), []
    for row in range(3):
        clicked, genres = batch.history["clicked"][row].numpy(), batch.history["clicked_genre"][row].numpy()
        e_s = np.concatenate([t[ITEM + clicked], t[GENRE + genres]], axis=1)  # (T, 2·D)
        genre, user, item = batch.categorical[row].tolist()
        e_q = np.concatenate([t[ITEM + item], t[GENRE + genre]])
        e_d = np.zeros(0)
        if layer.distribution is not None:
            of_domain = layer.distribution.domain.weight[batch.domain[row]].detach().numpy()
            e_d = np.concatenate([of_domain, t[USER + user]])
        found.append(oracle.encode(oracle.state(layer.history), kind, e_d, e_s, e_q, clicked > 0))
    return np.stack(found)


@ENCODED
def test_the_encoder_is_given_the_events_the_candidate_and_the_domain_and_takes_the_place_of_the_means(name):
    layer = make_layer(name, distribution="features")
    fields = layer(exact_batch()).fields.detach().numpy()
    assert fields.shape == (3, 7, D)
    s = fields[:, 3:5].reshape(3, 2 * D)
    np.testing.assert_allclose(s, by_hand(layer, NAMED[name].kind), atol=1e-12)
    assert not s[1].any()  # an empty history
    mean = make_layer("mean")
    with torch.no_grad():
        mean.embedding.table.weight.copy_(layer.embedding.table.weight)
        mean.embedding.numerical_weight.copy_(layer.embedding.numerical_weight)
    others = [0, 1, 2, 5, 6]
    assert np.array_equal(fields[:, others], mean(exact_batch()).fields.detach().numpy()[:, others])


@ENCODED
def test_every_encoder_keeps_the_width_of_the_means(name):
    assert make_layer(name).width == make_layer("mean").width == 7 * D


def test_history_that_an_encoder_reads_is_not_pooled_by_mean_as_well():
    assert make_layer("din").embedding(exact_batch()).fields.shape == (3, 5, D)
    assert make_layer("mean").embedding(exact_batch()).fields.shape == (3, 7, D)


@pytest.mark.parametrize("kind", ["din", "can"])
def test_the_means_may_stand_beside_the_encoder(kind):
    layer = make_layer(HistoryOptions(kind=kind, mean=True))
    assert layer.fields[3:7] == ("clicked", "clicked_genre", "clicked (mean)", "clicked_genre (mean)")
    assert layer.width == 9 * D
    fields = layer(exact_batch()).fields.detach().numpy()
    np.testing.assert_allclose(fields[:, 3:5].reshape(3, 2 * D), by_hand(layer, kind), atol=1e-12)
    mean = make_layer("mean")
    with torch.no_grad():
        mean.embedding.table.weight.copy_(layer.embedding.table.weight)
        mean.embedding.numerical_weight.copy_(layer.embedding.numerical_weight)
    assert np.array_equal(fields[:, [0, 1, 2, 5, 6, 7, 8]], mean(exact_batch()).fields.detach().numpy())


def test_a_model_of_pairs_of_fields_sees_the_means_beside_the_encoder():
    model = DFFM(SCHEMA, hidden=[4], history=HistoryOptions(kind="din", mean=True))
    assert len(model.first) == 9 * 8 // 2
    assert model.eval()(make_batch()).shape == (3,)


@ENCODED
@pytest.mark.parametrize("sparse", [True, False])
def test_padding_stays_untrained_and_the_events_are_trained(name, sparse):
    layer = make_layer(name, sparse=sparse)
    layer(exact_batch()).z.square().sum().backward()
    gradient = layer.embedding.table.weight.grad
    assert gradient.is_sparse is sparse
    gradient = gradient.to_dense() if sparse else gradient
    assert not gradient[[USER, ITEM, GENRE]].any()
    assert gradient[[ITEM + 5, ITEM + 2, ITEM + 1, GENRE + 4, GENRE + 3]].any(1).all()
    assert not gradient[ITEM + 4].any()  # an id the batch does not hold


def test_unknown_ids_reach_the_events_in_training():
    layer = make_layer("din", unknown_rate=0.999999)
    table = layer.embedding.table.weight.detach()
    events = layer.embedding(exact_batch()).events()
    torch.testing.assert_close(events[2, 0].detach(), torch.cat([table[ITEM + 1], table[GENRE + 1]]))
    assert not events[1].any()


@pytest.mark.parametrize("mean", [False, True])
def test_the_candidate_may_be_a_bag(mean):
    schema = dataclasses.replace(SCHEMA, categorical=("user", "item"))
    assert candidates(schema) == {"clicked": "item", "clicked_genre": "genres"}
    layer = make_layer(HistoryOptions(kind="din", mean=mean), schema)
    batch = exact_batch(schema)
    embedded = layer.embedding(batch)
    _, e_q, _, _ = layer._past(embedded, lambda: None)
    t = layer.embedding.table.weight.detach()
    torch.testing.assert_close(e_q[0, D:].detach(), t[GENRE + 2 : GENRE + 5].mean(0))
    torch.testing.assert_close(e_q[0, :D].detach(), t[ITEM + 2])


def test_a_history_field_whose_candidate_forms_the_domain_is_compared_with_zeros():
    schema = dataclasses.replace(SCHEMA, categorical=("user", "item"), bags={})
    assert candidates(schema) == {"clicked": "item", "clicked_genre": None}
    for name in NAMED:
        layer = make_layer(name, schema)
        _, e_q, _, _ = layer._past(layer.embedding(exact_batch(schema)), lambda: None)
        assert e_q[:, :D].any(1).all()
        assert not e_q[:, D:].any()
        layer(exact_batch(schema)).z.sum().backward()


def test_the_distribution_is_described_once_for_encoder_and_network():
    torch.manual_seed(0)
    model = models.build("dnn", SCHEMA, hidden=[4], embedding_dim=D, history="ads_din", distribution="features")
    calls = []
    model.inputs.distribution.register_forward_hook(lambda *_: calls.append(1))
    x = model.inputs(make_batch())
    assert torch.equal(x.condition, x.condition)
    assert len(calls) == 1
    model(make_batch())
    assert len(calls) == 2


@ENCODED
def test_the_domain_is_read_by_the_ads_encoders_and_by_no_other(name):
    layer = make_layer(name).eval()
    if NAMED[name].adaptive:
        layer.distribution.domain.known.seen.fill_(True)
    batch = exact_batch()
    other = dataclasses.replace(batch, domain=1 - batch.domain)
    changed = ~torch.isclose(layer(batch).z, layer(other).z).all(dim=1)
    assert changed.tolist() == ([True, False, True] if NAMED[name].adaptive else [False] * 3)


def test_queries_are_made_for_one_length_of_history():
    layer = make_layer("ads_din")
    batch = exact_batch()
    shorter = dataclasses.replace(batch, history={name: ids[:, 1:] for name, ids in batch.history.items()})
    with pytest.raises(ValueError, match="the history has 2 events; the queries are made for 3"):
        layer(shorter)
    assert make_layer("din")(shorter).z.shape == (3, 7 * D)


def test_insights_are_what_events_count_for_and_the_private_weights():
    layer = make_layer("ads_mha")
    found = layer.insights(exact_batch())
    assert found["attention"].shape == (3, 3)
    assert found["generated_weight"].shape == (3, (2 * D) ** 2)
    assert set(make_layer("can").insights(exact_batch())) == {"attention"}
    assert make_layer("mean").insights(exact_batch()) == {}


def test_the_names_are_those_of_the_options():
    assert HISTORIES == ("mean", "din", "mha", "can", "ads_din", "ads_mha", "ads_can")
    for name, options in NAMED.items():
        assert options == HistoryOptions(kind=name[-3:], psrg="ads" in name, pcrg="ads" in name)


def test_a_constructor_takes_options_in_place_of_a_name():
    torch.manual_seed(0)
    by_name = DNN(SCHEMA, hidden=[4], history="ads_din")
    torch.manual_seed(0)
    by_options = DNN(SCHEMA, hidden=[4], history=HistoryOptions(kind="din", psrg=True, pcrg=True))
    assert torch.equal(by_name.eval()(make_batch()), by_options.eval()(make_batch()))
    chunked = DNN(SCHEMA, hidden=[4], history=HistoryOptions(kind="din", pcrg=True, items_per_chunk=3))
    assert chunked.inputs.history.query.chunks == 1
    assert chunked.inputs.history.sequence is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "dni"}, "history: 'dni' is not known; did you mean 'din'"),
        ({"kind": "din", "items_per_chunk": 0}, "items_per_chunk must be a whole number of at least 1, got 0"),
        ({"kind": "mha", "heads": 2.0}, "heads must be a whole number"),
        ({"kind": "mha", "psrg": 1}, "psrg must be true or false"),
        ({"kind": "can", "eta": 0}, "eta must be a number above 0"),
        ({"kind": "can", "micro": ()}, "micro must have at least one layer"),
        ({"kind": "can", "micro": (4, 0)}, r"micro\[1\] must be a whole number"),
    ],
)
def test_impossible_options_are_an_error(options, message):
    with pytest.raises(ConfigurationError, match=message):
        DNN(SCHEMA, history=HistoryOptions(**options))


@ENCODED
def test_inputs_without_history_are_refused_with_what_is_possible(name):
    schema = InputSchema(domains=2, vocabularies={"item": 5}, categorical=("item",))
    message = rf"history: '{name}' .* these inputs have no history.* mean is possible \(history: mean\)"
    with pytest.raises(ConfigurationError, match=message):
        models.build("dnn", schema, history=name)
    models.build("dnn", schema, history="mean")


@ENCODED
def test_a_history_without_any_candidate_field_is_refused_by_name(name):
    schema = dataclasses.replace(SCHEMA, categorical=("user",), bags={})
    message = (
        rf"history: '{name}' .* none of the history fields has a candidate field to be compared with: "
        r"'clicked' \(with 'item'\), 'clicked_genre' \(with 'genre'\); the categorical fields are user\..*history: mean"
    )
    with pytest.raises(ConfigurationError, match=message):
        models.build("dnn", schema, history=name)


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    with pytest.raises(ConfigurationError, match=r"history: 'ads_dim' is not known; did you mean 'ads_din'.*mha"):
        models.build("dnn", SCHEMA, history="ads_dim")


@ENCODED
def test_half_precision_changes_little(name):
    torch.manual_seed(0)
    model = DNN(SCHEMA, hidden=[8], history=name, sparse=False, unknown_rate=0.0, normalization="none")
    torch.nn.init.normal_(model.inputs.embedding.table.weight)
    exact = model(make_batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(make_batch())
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)
    half.sum().backward()
    gradients = [p.grad for p in model.inputs.history.parameters()]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
