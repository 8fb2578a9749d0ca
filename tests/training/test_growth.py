from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from multidomain import models
from multidomain.batch import Batch
from multidomain.encoder import Encoder, Field
from multidomain.errors import ConfigurationError
from multidomain.hashing import Hashed
from multidomain.training.checkpoint import load_optimizer_tensors, optimizer_tensors
from multidomain.training.config import TrainingConfig
from multidomain.training.growth import Growth, grow, grow_moments, grow_optimizers
from multidomain.training.optimizers import Optimizers

EVERY = pytest.mark.parametrize("name", models.architectures())
SMALL = {"embedding_dim": 4, "hidden": [16, 8]}


def encoder(users: list[str], items: list[str], domains: list[str], **changed) -> Encoder:
    fields = (
        Field(name="user", kind="categorical", value_type="string", owner="user"),
        Field(name="item", kind="categorical", value_type="string", owner="item"),
        Field(name="genre", kind="categorical", value_type="string", owner="item", distribution=True),
        Field(name="age", kind="bucket", value_type="float", owner="user", boundaries=(20.0, 40.0)),
        Field(name="price", kind="value", value_type="float"),
        Field(name="tags", kind="bag", value_type="string", owner="item", length=3),
    )
    values = {"user": users, "item": items, "genre": ["x", "y", "z"], "tags": ["p", "q"]}
    given = {
        "fields": fields,
        "vocabularies": {name: pa.array(known) for name, known in values.items()},
        "domains": tuple(domains),
        "history": {"clicked": "item", "clicked_genre": "genre"},
        "history_length": 4,
    }
    return Encoder(**(given | changed))


USERS, ITEMS = [f"u{i}" for i in range(9)], [f"i{i}" for i in range(12)]
OLD = encoder(USERS, ITEMS, ["home", "search", "page"])
NEW = encoder(["new user", *USERS[::-1]], [*ITEMS[5:], "new item", *ITEMS[:4]], ["page", "market", "home", "search"])


def rows(count: int, domains: list[str], users: list[str], items: list[str], seed: int = 0) -> pa.Table:
    draw = np.random.default_rng(seed)
    past = [draw.choice(items, draw.integers(0, 5)).tolist() for _ in range(count)]
    return pa.table(
        {
            "domain": draw.choice(domains, count).tolist(),
            "user": draw.choice(users, count).tolist(),
            "item": draw.choice(items, count).tolist(),
            "genre": draw.choice(["x", "y", "z"], count).tolist(),
            "age": draw.uniform(10, 60, count),
            "price": draw.normal(size=count),
            "tags": [draw.choice(["p", "q"], draw.integers(0, 3)).tolist() for _ in range(count)],
            "clicked": pa.array(past, pa.list_(pa.string())),
            "clicked_genre": pa.array([["xyz"[int(len(i) % 3)] for i in p] for p in past], pa.list_(pa.string())),
        }
    )


def labelled(batch: Batch, seed: int = 0) -> Batch:
    label = torch.randint(0, 2, (len(batch),), generator=torch.Generator().manual_seed(seed)).float()
    return dataclasses.replace(batch, label=label)


def train(model: models.MultiDomainModel, batches: list[Batch]) -> None:
    optimizers = Optimizers(model, TrainingConfig(learning_rate=0.02), steps_per_epoch=len(batches))
    model.train()
    for number, batch in enumerate(batches):
        loss = binary_cross_entropy_with_logits(model(batch), batch.label) + model.auxiliary_loss()
        optimizers.zero_grad()
        loss.backward()
        optimizers.step(number)
    model.eval()


def trained(name: str) -> models.MultiDomainModel:
    torch.manual_seed(0)
    model = models.build(name, OLD.inputs, **SMALL)
    train(model, [labelled(OLD.batch(rows(64, list(OLD.domains), USERS, ITEMS, seed)), seed) for seed in range(12)])
    return model


def grown(name: str, model: models.MultiDomainModel, new: Encoder = NEW) -> models.MultiDomainModel:
    torch.manual_seed(1)
    larger = models.build(name, new.inputs, **SMALL)
    larger.load_state_dict(grow(model.state_dict(), larger, Growth.between(OLD, new), name, SMALL))
    return larger.eval()


@EVERY
def test_no_score_changes_when_a_model_grows_and_what_is_new_scores_as_unknown(name):
    model = trained(name)
    larger = grown(name, model)
    table = rows(80, [*NEW.domains, "nowhere"], [*USERS, "new user", "nobody"], [*ITEMS[5:], *ITEMS[:4], "new item"], 9)
    with torch.no_grad():
        before, after = model(OLD.batch(table)), larger(NEW.batch(table))
        translated = model(Growth.between(OLD, NEW).translated(NEW.batch(table)))
    assert before.std() > 0.01
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)
    assert torch.equal(translated, before)


@EVERY
def test_a_grown_model_trains_on_and_learns_what_is_new(name):
    larger = grown(name, trained(name))
    table = larger.inputs.embedding.table.weight
    new = [int(larger.inputs.embedding.offsets[0]) + 2, int(larger.inputs.embedding.offsets[1]) + 2 + 7]  # user, item
    before = table[new].detach().clone()
    batch = labelled(NEW.batch(rows(64, list(NEW.domains), ["new user", *USERS], ["new item", *ITEMS[5:]])))
    train(larger, [batch, batch])
    assert not (table[new] == before).all(dim=1).any()
    assert torch.isfinite(larger(batch)).all()


@EVERY
def test_a_model_that_does_not_grow_stays_as_it_is(name):
    model = trained(name)
    same = grown(name, model, OLD)
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in same.state_dict().items())


def test_known_values_keep_their_rows_and_new_ones_start_from_unknown():
    model = trained("dnn")
    table, larger = (m.inputs.embedding.table.weight.detach() for m in (model, grown("dnn", model)))
    assert torch.equal(larger[:2], table[:2])  # padding and unknown
    assert torch.equal(larger[2], table[1])  # "new user"
    assert torch.equal(larger[3], table[10])  # "u8", the last of the old users
    items_before, items_now = 2 + 9, 2 + 10
    assert torch.equal(larger[items_now + 2], table[items_before + 2 + 5])  # "i5"
    assert torch.equal(larger[items_now + 2 + 7], table[items_before + 1])  # "new item"


def test_known_domains_keep_their_weights_and_new_ones_start_from_the_shared_centre_of_star():
    model = trained("star")
    old, new = (m.state_dict() for m in (model, grown("star", model)))
    weight = new["fcn.layers.0.domain_weight"]
    assert torch.equal(weight[[0, 2, 3]], old["fcn.layers.0.domain_weight"][[2, 0, 1]])
    assert torch.equal(weight[1], torch.ones_like(weight[1]))
    assert new["normalization.rows_seen"].tolist()[1] == 0
    assert torch.equal(new["normalization.running_mean"][0], old["normalization.running_mean"][2])


def test_a_new_domain_counts_as_not_seen_until_it_is_trained():
    larger = grown("shared_bottom", trained("shared_bottom"))
    assert larger.known.seen.tolist()[:4] == [True, False, True, True]
    tower = larger.towers.layers[0].domain_weight
    assert torch.equal(tower[1], tower[4])  # a copy of the unknown domain's


def test_moments_of_known_rows_are_kept_and_those_of_new_ones_are_zero():
    growth = Growth.between(OLD, NEW)
    moments = torch.arange(1.0, 1 + sum(OLD.inputs.vocabularies.values())).unsqueeze(1)
    kept = grow_moments(moments, growth)
    assert kept.shape == (sum(NEW.inputs.vocabularies.values()), 1)
    assert kept[:5, 0].tolist() == [1, 2, 0, 11, 10]


def test_values_and_domains_that_are_gone_leave_the_others_alone():
    fewer = encoder(USERS[3:], ITEMS[:6], ["search", "home"])
    table = rows(40, ["home", "search"], USERS[3:], ITEMS[:6])
    for name in ("star", "shared_bottom", "hmdn"):
        model = trained(name)
        with torch.no_grad():
            smaller = grown(name, model, fewer)(fewer.batch(table))
            torch.testing.assert_close(smaller, model(OLD.batch(table)), atol=1e-6, rtol=1e-5)


def test_what_is_kept_new_and_left_out_is_told():
    told = Growth.between(OLD, NEW).describe().splitlines()
    assert told[:2] == ["user: 9 values kept, 1 new, 0 left out", "item: 11 values kept, 1 new, 1 left out"]
    assert told[-1] == "domains: 3 kept, 1 new, 0 left out"


def test_a_bucket_whose_edges_moved_starts_from_the_old_bucket_of_its_middle():
    moved = tuple(dataclasses.replace(f, boundaries=(18.0, 24.0, 44.0)) if f.name == "age" else f for f in NEW.fields)
    growth = Growth.between(OLD, dataclasses.replace(NEW, fields=moved))
    assert growth.ids["age"].tolist() == [0, 1, 2, 3, 3, 4]  # below 18, to 24 (middle 21), to 44 (middle 34), above


def test_other_inputs_are_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"other inputs\. history_length: 4 then, 5 now\. Only values"):
        Growth.between(OLD, dataclasses.replace(NEW, history_length=5))
    fewer = tuple(f for f in NEW.fields if f.name != "price")
    with pytest.raises(ConfigurationError, match=r"numerical: \('price',\) then, \(\) now"):
        Growth.between(OLD, dataclasses.replace(NEW, fields=fewer))
    numbers = dict(NEW.vocabularies) | {"user": pa.array([1, 2])}
    with pytest.raises(ConfigurationError, match="'user' of the model to start from holds string, now it holds int64"):
        Growth.between(OLD, dataclasses.replace(NEW, vocabularies=numbers))


def test_a_hashed_vocabulary_must_have_been_hashed_to_as_many_buckets():
    def hashed(one: Encoder, buckets: int) -> Encoder:
        others = {name: values for name, values in one.vocabularies.items() if name != "user"}
        user = Hashed(buckets=buckets, value_type="string")
        return dataclasses.replace(one, vocabularies=others, hashed={"user": user})

    growth = Growth.between(hashed(OLD, 20), hashed(NEW, 20))
    assert growth.ids["user"].tolist() == list(range(22))
    with pytest.raises(
        ConfigurationError, match="hashed to 30 buckets; in the model to start from it was hashed to 20"
    ):
        Growth.between(hashed(OLD, 20), hashed(NEW, 30))
    with pytest.raises(ConfigurationError, match="in the model to start from it was a list of values"):
        Growth.between(OLD, hashed(NEW, 30))
    with pytest.raises(ConfigurationError, match="is a list of values; in the model to start from it was hashed"):
        Growth.between(hashed(OLD, 20), NEW)


@pytest.mark.parametrize("kind", ["adam", "rowwise_adagrad"])
@pytest.mark.parametrize("sparse", [True, False])
def test_what_optimizers_keep_of_known_rows_is_kept_and_of_new_ones_zero(kind, sparse):
    later = dataclasses.replace(NEW, domains=OLD.domains)
    config = {**SMALL, "sparse": sparse}
    settings = TrainingConfig(embedding_optimizer=kind)
    torch.manual_seed(0)
    model, larger = models.build("deepfm", OLD.inputs, **config), models.build("deepfm", later.inputs, **config)
    before, after = (Optimizers(one, settings, steps_per_epoch=1) for one in (model, larger))
    table = rows(64, list(OLD.domains), USERS, ITEMS)
    model(OLD.batch(table)).sum().backward()
    before.step(0)
    kept, growth = optimizer_tensors(before), Growth.between(OLD, later)
    grown = grow_optimizers(kept, larger, after, growth, "deepfm", config)
    load_optimizer_tensors(after, grown)
    assert grown.keys() == kept.keys()
    of_rows = [key for key in kept if kept[key].shape[:1] == (sum(OLD.inputs.vocabularies.values()),)]
    assert len(of_rows) >= 2  # the table, and the weights of first order
    for key in kept:
        assert torch.equal(grown[key], grow_moments(kept[key], growth) if key in of_rows else kept[key])
    assert all((grown[key][2] == 0).all() for key in of_rows)  # "new user"
    larger(later.batch(table)).sum().backward()
    after.step(1)
