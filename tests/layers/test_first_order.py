from __future__ import annotations

import pytest
import torch

from multidomain.batch import Batch
from multidomain.inputs import InputSchema
from multidomain.layers.embedding import InputEmbedding
from multidomain.layers.first_order import FirstOrder

SCHEMA = InputSchema(
    domains=2,
    vocabularies={"user": 4, "item": 6},
    categorical=("item", "user"),
    numerical=("year", "price"),
    history={"clicked": "item"},
    history_length=3,
    bags={"others": "user"},
)
USER, ITEM = 0, 4  # where each vocabulary starts in the table


def _batch() -> Batch:
    return Batch(
        categorical=torch.tensor([[2, 3], [0, 1]]),
        numerical=torch.tensor([[0.5, 2.0], [-2.0, 0.0]]),
        history={"clicked": torch.tensor([[0, 5, 2], [0, 0, 0]])},
        bags={"others": torch.tensor([[3, 0, 2], [2, 0, 0]])},
        domain=torch.tensor([0, 1]),
        label=torch.zeros(2),
    )


def _layers(**options) -> tuple[InputEmbedding, FirstOrder]:
    torch.manual_seed(0)
    embedding = InputEmbedding(schema=SCHEMA, features=3, **{"unknown_rate": 0.0, **options})
    return embedding, FirstOrder(schema=SCHEMA, sparse=options.get("sparse", True))


def test_it_is_zero_at_the_start():
    embedding, layer = _layers()
    assert not layer(embedding(_batch()).lookup, _batch().numerical).any()


def test_it_adds_a_weight_per_id_means_of_several_and_numbers_times_their_weights():
    embedding, layer = _layers()
    with torch.no_grad():
        layer.table.weight[:, 0] = torch.tensor([0.0, 1, 2, 4, 0, 10, 20, 30, 40, 50])
        layer.numerical_weight.copy_(torch.tensor([100.0, 1000.0]))
    first = 20 + 4 + (50 + 20) / 2 + (4 + 2) / 2 + 0.5 * 100 + 2 * 1000
    second = 0 + 1 + 0 + 2 - 2 * 100
    assert layer(embedding(_batch()).lookup, _batch().numerical).tolist() == [first, second]


@pytest.mark.parametrize("sparse", [True, False])
def test_its_gradient_is_what_each_id_counts_and_padding_gets_none(sparse):
    embedding, layer = _layers(sparse=sparse)
    layer(embedding(_batch()).lookup, _batch().numerical).sum().backward()
    gradient = layer.table.weight.grad
    assert gradient.is_sparse is sparse
    gradient = gradient.to_dense() if sparse else gradient
    assert gradient[:, 0].tolist() == [0, 1, 0.5 + 1, 1 + 0.5, 0, 0, 1 + 0.5, 0, 0, 0.5]
    assert layer.numerical_weight.grad.tolist() == [-1.5, 2.0]


def test_an_id_drawn_as_unknown_is_unknown_to_vectors_and_weights_alike():
    schema = InputSchema(domains=1, vocabularies={"a": 3}, categorical=("a",))
    torch.manual_seed(0)
    embedding = InputEmbedding(schema=schema, features=1, unknown_rate=0.3)
    layer = FirstOrder(schema=schema)
    with torch.no_grad():
        embedding.table.weight[:, 0] = layer.table.weight[:, 0] = torch.tensor([0.0, 1.0, 5.0])
    rows = 1000
    batch = Batch(torch.full((rows, 1), 2), torch.zeros(rows, 0), {}, {}, torch.zeros(rows).long(), torch.zeros(rows))
    embedded = embedding(batch)
    weights = layer(embedded.lookup, batch.numerical)
    assert torch.equal(weights, embedded.z[:, 0])
    assert 200 < (weights == 1).sum().item() < 400


def test_inputs_of_numbers_alone_are_enough():
    schema = InputSchema(domains=1, vocabularies={}, numerical=("a",))
    embedding, layer = InputEmbedding(schema=schema, features=2), FirstOrder(schema=schema)
    torch.nn.init.constant_(layer.numerical_weight, 3.0)
    batch = Batch(torch.zeros(2, 0).long(), torch.tensor([[1.0], [2.0]]), {}, {}, torch.zeros(2).long(), torch.zeros(2))
    assert layer(embedding(batch).lookup, batch.numerical).tolist() == [3.0, 6.0]
