"""The small data set that the tests of all models share."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from multidomain import models
from multidomain.batch import Batch
from multidomain.inputs import InputSchema

SCHEMA = InputSchema(
    domains=3,
    vocabularies={"user": 12, "item": 20, "genre": 6},
    categorical=("user", "item", "genre"),
    numerical=("year",),
    history={"clicked": "item", "clicked_genre": "genre"},
    history_length=4,
    bags={"genres": "genre"},
    distribution=("genre",),
    owners={
        "user": "user",
        "item": "item",
        "genre": "item",
        "year": "item",
        "clicked": "user",
        "clicked_genre": "user",
    },
)
SMALL = {"embedding_dim": 4, "hidden": [16, 8]}


def make_batch(rows: int, *, domains: int = 3, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)

    def ids(size: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, size, shape, generator=draw, dtype=torch.int32)

    past = torch.arange(4) >= ids(5, rows, 1)  # left-padded; some histories are empty
    return Batch(
        categorical=torch.stack([ids(12, rows), ids(20, rows), ids(6, rows)], dim=1),
        numerical=torch.randn(rows, 1, generator=draw),
        history={"clicked": (1 + ids(19, rows, 4)) * past, "clicked_genre": (1 + ids(5, rows, 4)) * past},
        bags={"genres": ids(6, rows, 3)},
        domain=ids(domains, rows),
        label=ids(2, rows).float(),
    )


def take(batch: Batch, rows: torch.Tensor) -> Batch:
    return Batch(
        batch.categorical[rows],
        batch.numerical[rows],
        {name: ids[rows] for name, ids in batch.history.items()},
        {name: ids[rows] for name, ids in batch.bags.items()},
        batch.domain[rows],
        batch.label[rows],
    )


def trained(name: str, steps: int = 5, domains: int = 3, **config) -> models.MultiDomainModel:
    torch.manual_seed(0)
    model = models.build(name, SCHEMA, **{**SMALL, "sparse": False, **config})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):
        batch = make_batch(64, domains=domains, seed=step)
        optimizer.zero_grad()
        (binary_cross_entropy_with_logits(model(batch), batch.label) + model.auxiliary_loss()).backward()
        optimizer.step()
    return model


def with_domain(batch: Batch, p: int) -> Batch:
    """The same rows, all of them in domain p."""
    domain = torch.full_like(batch.domain, p)
    return Batch(batch.categorical, batch.numerical, batch.history, batch.bags, domain, batch.label)


def flops(model: models.MultiDomainModel, batch: Batch) -> int:
    """Floating-point operations of the matrix products of one evaluation: two per weight and row."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    return counter.get_total_flops()
