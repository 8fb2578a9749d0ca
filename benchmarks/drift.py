"""How long the drift report takes, and how much memory: ``python -m benchmarks.drift --rows 10000000``.

An encoded variant of drawn ids is written to a temporary folder: 20 categorical fields, 3 numbers, a bag, a history and
33 domains, unless other numbers are given. Only the reading and comparing is timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from multidomain.evaluation import drift
from multidomain.inputs import InputSchema
from multidomain.schema import SPLITS
from multidomain.tensors import TensorWriter

CHUNK = 200_000
LARGEST = 1_000_000  # ids of the largest field
SHARES = dict(zip(SPLITS, (0.8, 0.1, 0.1), strict=True))


def inputs(*, fields: int, domains: int) -> InputSchema:
    """Vocabularies from 10 to a million ids, evenly on a scale of logarithms."""
    sizes = {f"field_{i}": int(size) for i, size in enumerate(np.geomspace(10, LARGEST, fields))}
    return InputSchema(
        domains=domains,
        vocabularies=sizes | {"tags": 1_000},
        categorical=tuple(sizes),
        numerical=("price", "age", "score"),
        history={"past": f"field_{fields - 1}"},
        history_length=20,
        bags={"tags": "tags"},
    )


def write(folder: Path, *, rows: int, fields: int, domains: int, seed: int = 2021) -> None:
    """An encoded variant with Zipf-like ids; a user state for every ten rows."""
    made, rng = inputs(fields=fields, domains=domains), np.random.default_rng(seed)
    (folder / "inputs.json").write_text(json.dumps(made.to_dict()))
    (folder / "domains.json").write_text(json.dumps([f"domain {i}" for i in range(domains)]))
    split_rows = {split: int(rows * share) for split, share in SHARES.items()}
    states = rows // 10 + 1
    top = np.array([made.vocabularies[name] for name in made.categorical])
    with TensorWriter(folder, made, rows=split_rows, states=states) as out:
        for split, total in split_rows.items():
            for start in range(0, total, CHUNK):
                n = min(CHUNK, total - start)
                arrays = {
                    "categorical": (1 + top ** rng.random((n, fields), np.float32)).clip(1, top - 1).astype(np.int32),
                    "numerical": rng.standard_normal((n, 3), np.float32),
                    "domain": (domains * rng.random(n) ** 2).astype(np.int32),
                    "bag_tags": np.sort(rng.integers(0, 1_000, (n, 5), np.int32))[:, ::-1],
                }
                label, state = (rng.random(n) < 0.04), rng.integers(0, states, n, np.int32)
                out.write(split, arrays, label=label.astype(np.float32), state=state)
        for start in range(0, states, CHUNK):
            number = np.arange(start, min(start + CHUNK, states))
            filled = np.arange(20) >= 20 - rng.integers(0, 21, (len(number), 1))
            out.write_states("past", number, np.where(filled, 2, 0).astype(np.int32))


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--fields", type=int, default=20)
    parser.add_argument("--domains", type=int, default=33)
    parser.add_argument("--folder", type=Path, help="where the variant is kept; one that is there is read again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "inputs.json").exists():
            write(folder, rows=given.rows, fields=given.fields, domains=given.domains)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        cpu = time.process_time()
        found = drift.measure(folder)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{given.rows:,} rows, {found.psi.feature.nunique()} features, {given.domains:,} domains: {seconds:.1f} s "
        f"({time.process_time() - cpu:.1f} s of the processor), {given.rows / seconds:,.0f} rows/s; "
        f"peak {peak:,.0f} MiB, {before:,.0f} MiB before"
    )


if __name__ == "__main__":
    main()
