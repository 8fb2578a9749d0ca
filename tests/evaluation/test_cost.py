from __future__ import annotations

import pytest
import torch

from multidomain.batch import Batch
from multidomain.evaluation import cost
from multidomain.inputs import InputSchema
from multidomain.models import build

SCHEMA = InputSchema(
    domains=3, vocabularies={"user": 12, "item": 20}, categorical=("user", "item"), numerical=("year",)
)
SMALL = {"embedding_dim": 4, "hidden": [16, 8]}
WIDTH = 3 * 4  # user, item, year; d = 4


def make_batch(rows: int) -> Batch:
    ids = torch.stack([torch.randint(0, size, (rows,)) for size in (12, 20)], dim=1)
    domain, label = torch.randint(0, 3, (rows,)), torch.randint(0, 2, (rows,)).float()
    return Batch(categorical=ids, numerical=torch.randn(rows, 1), history={}, bags={}, domain=domain, label=label)


def test_parameters_of_the_dnn_by_hand():
    counts = cost.parameters(build("dnn", SCHEMA, **SMALL, normalization="none", auxiliary=False))
    assert counts.embedding == (12 + 20) * 4 + 1 * 4  # two vocabularies, one numerical field
    assert counts.rest == (WIDTH * 16 + 16) + (16 * 8 + 8) + (8 + 1)
    assert counts.total == counts.embedding + counts.rest


def test_the_networks_of_domains_are_counted_and_the_tables_are_not():
    star = cost.parameters(build("star", SCHEMA, **SMALL, normalization="none", auxiliary=False))
    dnn = cost.parameters(build("dnn", SCHEMA, **SMALL, normalization="none", auxiliary=False))
    assert star.embedding == dnn.embedding
    assert star.rest == dnn.rest * (1 + 3)  # STAR's row of Table 3 of AdaptDHM: P_mlp × (M + 1)


def test_a_model_without_memory_is_counted_alike():
    with torch.device("meta"):
        sketch = build("star", SCHEMA, **SMALL)
    assert cost.parameters(sketch) == cost.parameters(build("star", SCHEMA, **SMALL))


def test_a_table_of_ones_own_counts_as_embedding_and_a_shared_one_once():
    class WithTable(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = torch.nn.Embedding(10, 1)
            self.same = self.wide
            self.out = torch.nn.Linear(1, 1)

    assert cost.parameters(WithTable()) == cost.Parameters(embedding=10, rest=2)


def test_operations_are_two_per_weight_and_row_and_thrice_in_training():
    model = build("dnn", SCHEMA, **{**SMALL, "normalization": "none", "auxiliary": False})
    weights = WIDTH * 16 + 16 * 8 + 8
    batch = make_batch(50)
    assert cost.flops(model, batch, training=False) == 2 * weights
    assert cost.flops(model, batch, training=True) == 3 * 2 * weights  # forward, to the inputs, to the weights


def test_a_short_split_is_gone_through_again_to_fill_a_batch():
    seen = []

    class Split:
        rows = 7

        def batch(self, rows):
            seen.append(rows)
            return make_batch(len(rows))

    model = build("star", SCHEMA, **SMALL)
    assert cost.inference_ms(model, Split(), torch.device("cpu"), rows=20) > 0
    assert all(len(rows) == 20 and 0 <= rows.min() <= rows.max() < 7 for rows in seen)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
