"""The candidates of one user: what is the same in every row is looked up once, and every score stays what it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from model_cases import SCHEMA, make_batch, trained
from torch.utils._python_dispatch import TorchDispatchMode

from multidomain import models
from multidomain.batch import Batch
from multidomain.layers import embedding
from multidomain.layers.history import HISTORIES

EVERY = pytest.mark.parametrize("name", models.architectures())
USER = ("user", "clicked", "clicked_genre")
CANDIDATES = 20
FEATURES = ("user", "item", "genre", "clicked", "clicked_genre", "genres", "year", "domain")


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Few ids are repeated here: fewer than are worth a lookup of their own."""
    monkeypatch.setattr(embedding, "WORTH", 0)


def repeating(batch: Batch, *names: str) -> Batch:
    """The batch with the first row's values of these fields in every row, and that it says so."""

    def first(tensor: torch.Tensor, name: str) -> torch.Tensor:
        return tensor[:1].expand(tensor.shape) if name in names else tensor

    categorical = [first(batch.categorical[:, i], name) for i, name in enumerate(SCHEMA.categorical)]
    return Batch(
        categorical=torch.stack(categorical, dim=1),
        numerical=first(batch.numerical, "year"),
        history={name: first(ids, name) for name, ids in batch.history.items()},
        bags={name: first(ids, name) for name, ids in batch.bags.items()},
        domain=first(batch.domain, "domain"),
        label=batch.label,
        repeated=frozenset(names),
    )


def untold(batch: Batch) -> Batch:
    """The same rows, all of them there, and not a word of what they repeat."""
    return dataclasses.replace(
        batch,
        history={name: ids.contiguous() for name, ids in batch.history.items()},
        bags={name: ids.contiguous() for name, ids in batch.bags.items()},
        repeated=frozenset(),
    )


def with_history(batch: Batch, events: int) -> Batch:
    """The same rows with histories of so many events."""
    length = SCHEMA.history_length
    present = torch.arange(length) >= length - events
    return dataclasses.replace(batch, history={name: ids.clamp(min=1) * present for name, ids in batch.history.items()})


def of_an_unknown_user(batch: Batch) -> Batch:
    categorical = batch.categorical.clone()
    categorical[:, 0] = 1
    return dataclasses.replace(batch, categorical=categorical)


class LookedUp(TorchDispatchMode):
    """Counts the rows read of tables of embeddings."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.startswith(("aten::embedding", "aten::_embedding_bag")):
            self.rows += args[1].numel()
        return func(*args, **(kwargs or {}))


@EVERY
def test_a_score_is_the_same_whether_or_not_the_batch_says_what_it_repeats(name):
    model = trained(name, domains=2).eval()  # training never met domain 2
    rows = make_batch(CANDIDATES, domains=4, seed=3)
    batches = [
        repeating(some, *names)
        for some in (rows, with_history(rows, 0), of_an_unknown_user(rows))
        for names in (USER, (*USER, "domain", "genre"), FEATURES)
    ]
    for network in (model, model.serving_form()):
        for batch in batches:
            with torch.inference_mode():
                torch.testing.assert_close(network(batch), network(untold(batch)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("distribution", ["domain", "features", "hmdn"])
@pytest.mark.parametrize("names", [USER, (*USER, "domain", "genre"), ("user", "clicked")], ids=len)
def test_every_history_and_distribution_scores_the_same(history, distribution, names):
    model = trained("dnn", history=history, distribution=distribution).eval()
    batch = repeating(make_batch(CANDIDATES, domains=4, seed=4), *names)
    with torch.inference_mode():
        torch.testing.assert_close(model(batch), model(untold(batch)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("history", ["mean", "din"])
def test_what_all_rows_share_is_looked_up_for_one_row(history):
    model = trained("dnn", history=history).eval()
    batch = repeating(make_batch(CANDIDATES, seed=5), *USER)
    own = CANDIDATES * (2 + 3)  # item and genre, and the bag
    once = 1 + 2 * SCHEMA.history_length  # the user, and both history fields
    domain = CANDIDATES  # of the auxiliary network
    found = []
    for rows in (batch, untold(batch)):
        with torch.inference_mode(), LookedUp() as counter:
            model(rows)
        found.append(counter.rows)
    assert found == [own + once + domain, own + CANDIDATES * once + domain]


def test_a_few_repeated_ids_are_looked_up_with_the_others(monkeypatch):
    model, batch = trained("dnn").eval(), repeating(make_batch(CANDIDATES, seed=5), *USER)
    repeated = CANDIDATES * (1 + 2 * SCHEMA.history_length)
    parts = []
    for worth in (repeated, repeated + 1):
        monkeypatch.setattr(embedding, "WORTH", worth)
        parts.append(len(model.inputs(batch).lookup.parts))
    assert parts == [2, 1]


def test_what_a_batch_repeats_is_no_concern_of_training():
    model = trained("dnn")
    batch = repeating(make_batch(CANDIDATES, seed=6), *USER)
    torch.manual_seed(0)
    first = model(batch)
    torch.manual_seed(0)
    assert torch.equal(first, model(untold(batch)))  # "unknown" is drawn row by row


def test_an_id_outside_its_vocabulary_is_named_in_a_repeated_field_too():
    model = trained("dnn").eval()
    batch = repeating(make_batch(CANDIDATES, seed=7), *USER)
    wrong = {**batch.history, "clicked": torch.full_like(batch.history["clicked"], 20)}
    with pytest.raises(IndexError, match="field 'clicked' holds the id 20 in row 0"):
        model(dataclasses.replace(batch, history=wrong))
