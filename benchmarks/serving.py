"""How long a request takes: one user, 100 candidates, features included, beside the reading of the features alone.

    python -m benchmarks.serving --architecture star --requests 500

Needs what ``kedro run --pipeline=train_star`` and ``--pipeline=materialize`` leave; reads the stores that
``$MULTIDOMAIN_DATA`` and ``$MULTIDOMAIN_FEATURE_STORE`` name. Prints milliseconds: p50, p99.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from multidomain import schema
from multidomain.features import repository
from multidomain.serving import Ranker, Request

WARM = 20  # requests before the first that counts


def main() -> None:
    """Open, ask, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--dataset", default="movielens")
    parser.add_argument("--architecture", default="star")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    variant = schema.load(given.dataset).variant()
    ranker = Ranker.open(variant, given.architecture)
    requests = drawn(variant, given.requests + WARM, given.candidates)
    print(f"{variant.key}, {given.architecture}, {given.requests} requests of {given.candidates} candidates")
    print(f"online store: {repository.feature_store_file()}")
    parts = {
        "features and scores": ranker.rank,
        "features": ranker.features,
        "online reads alone": lambda request: reads(ranker, request),
    }
    for name, call in parts.items():
        print(f"{name:<22}{timed(call, requests)}")
    tables = {id(request): ranker.features(request)[0] for request in requests}
    print(f"{'encoder and model':<22}{timed(lambda request: ranker.scorer.score(tables[id(request)]), requests)}")


def drawn(variant: schema.Variant, count: int, candidates: int) -> list[Request]:
    """Users and items of the training frame."""
    frame = repository.views_folder(variant).parent / "training_frame.parquet"
    rows = pq.read_table(frame, columns=["user", "item", "domain"])
    users, items, domains = (rows[name].unique().to_pylist() for name in ("user", "item", "domain"))
    draw = np.random.default_rng(0)
    return [
        Request(user=draw.choice(users), domain=draw.choice(domains), items=draw.choice(items, candidates).tolist())
        for _ in range(count)
    ]


def reads(ranker: Ranker, request: Request) -> Any:
    """The calls of the online store, and nothing of what is made of them."""
    keys = ranker._keys(request)
    for names, planned in ranker._reads.items():
        ranker._read(names, planned, list(dict.fromkeys(zip(*(keys[name] for name in names), strict=True))))


def timed(call: Callable[[Request], Any], requests: list[Request]) -> str:
    """p50 and p99 in milliseconds."""
    taken = []
    for request in requests:
        start = time.perf_counter()
        call(request)
        taken.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.percentile(taken[WARM:], [50, 99])
    return f"p50 {p50:6.1f}  p99 {p99:6.1f}"


if __name__ == "__main__":
    main()
