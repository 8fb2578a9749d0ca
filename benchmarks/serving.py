"""How long a request takes: one user, 100 candidates, features included, beside Feast's own reading of those features.

    python -m benchmarks.serving --architecture star --requests 500

Needs what ``kedro run --pipeline=train_star`` and ``--pipeline=materialize`` leave; reads the stores that
``$MULTIDOMAIN_DATA`` and ``$MULTIDOMAIN_FEATURE_STORE`` name. Prints milliseconds, p50 and p99, in one thread. Every
part is timed for one request before the next request comes, so that whatever else the machine does meets all of them;
"CPU" is the median of what the thread itself worked, which others do not lengthen as much.

"Cold" reads everything from the store; "warm" has the rows of all candidates and domains in a ``RowCache`` and those of
the user in the store. A service is between the two. What the candidates share, the user's columns above all, is once
given for every candidate and once a single time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from multidomain import schema
from multidomain.features import repository
from multidomain.serving import Ranker, Request, RowCache

WARM = 20  # requests before the first that counts
Parts = dict[str, Callable[[], Any]]


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
    cold = Ranker.open(variant, given.architecture)
    warm = Ranker(variant=variant, store=cold._store, scorer=cold.scorer, cache=RowCache(seconds=3600, rows=1_000_000))
    requests = drawn(variant, given.requests + WARM, given.candidates)
    print(f"{variant.key}, {given.architecture}, {given.requests} requests of {given.candidates} candidates")
    count = sum(len(features(cold, names)) for names in cold._reader.columns)
    print(f"online store: {repository.feature_store_file()}; {count} features")
    load = "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())
    taken: dict[str, list[tuple[float, float]]] = {}
    for request in requests:
        warm.given(request)  # fills the cache
        for name, call in parts(cold, warm, request).items():
            start, worked = time.perf_counter(), time.thread_time()
            call()
            taken.setdefault(name, []).append((time.perf_counter() - start, time.thread_time() - worked))
    for name, seconds in taken.items():
        passed, worked = 1000 * np.array(seconds[WARM:]).T
        p50, p99 = np.percentile(passed, [50, 99])
        print(f"{name:<50}p50 {p50:6.1f}  p99 {p99:6.1f}  CPU {np.median(worked):6.1f}")
    print("load average before {}, after {:.1f} {:.1f} {:.1f}".format(load, *os.getloadavg()))


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


def parts(cold: Ranker, warm: Ranker, request: Request) -> Parts:
    """What is timed, by name."""
    given = cold.given(request)[0]
    table, scorer = given.table(), cold.scorer
    batch = scorer.encoder.batch(table)
    timed: Parts = {
        "get_online_features, one call": lambda: raw_at_once(cold, request),
        "get_online_features, a call for each kind of key": lambda: raw(cold, request),
        "our reads, cold": lambda: reads(cold, request),
        "our reads, warm": lambda: reads(warm, request),
        "our reads and their columns, cold": lambda: cold.given(request),
        "our reads and their columns, warm": lambda: warm.given(request),
        "encoder, every column of every candidate": lambda: scorer.encoder.batch(table),
        "model, every column of every candidate": lambda: forward(cold, batch),
        "encoder and model, the same": lambda: scorer.score(table),
    }
    if hasattr(scorer, "score_candidates"):  # a package from before it scores every column of every candidate
        once = scorer.encoder.batch(given.candidates, given.shared)
        timed |= {
            "encoder, what the candidates share once": lambda: scorer.encoder.batch(given.candidates, given.shared),
            "model, what the candidates share once": lambda: forward(cold, once),
            "encoder and model, what they share once": lambda: scorer.score_candidates(given.candidates, given.shared),
        }
    return timed | {
        "features and scores, cold": lambda: cold.rank(request),
        "features and scores, warm": lambda: warm.rank(request),
    }


@torch.inference_mode()
def forward(ranker: Ranker, batch: Any) -> Any:
    """The model alone."""
    return torch.sigmoid(ranker.scorer.model(batch).double()).numpy()


def reads(ranker: Ranker, request: Request) -> None:
    """The reading alone, and nothing of what is made of it."""
    ranker._reader.rows(distinct(ranker, request))


def raw(ranker: Ranker, request: Request) -> None:
    """Feast's call for the same features, once for each kind of key, every key once."""
    for names, keys in distinct(ranker, request).items():
        entities = [dict(zip(names, key, strict=True)) for key in keys]
        ranker._store.get_online_features(features(ranker, names), entities).to_dict()


def raw_at_once(ranker: Ranker, request: Request) -> None:
    """Feast's call for the same features, all of them for every candidate."""
    keys = ranker._keys(request)
    entities = [dict(zip(keys, row, strict=True)) for row in zip(*keys.values(), strict=True)]
    asked = [feature for names in ranker._reader.columns for feature in features(ranker, names)]
    ranker._store.get_online_features(asked, entities).to_dict()


def distinct(ranker: Ranker, request: Request) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """Of each kind of key those that the request needs."""
    keys = ranker._keys(request)
    return {
        names: list(dict.fromkeys(zip(*(keys[name] for name in names), strict=True)))
        for names in ranker._reader.columns
    }


def features(ranker: Ranker, names: tuple[str, ...]) -> list[str]:
    """Feast's names of what is read of one kind of key."""
    return [f"{view}:{column}" for view, columns in ranker._reader.columns[names].items() for column in columns]


if __name__ == "__main__":
    main()
