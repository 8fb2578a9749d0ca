"""How long the drift report takes, and how much memory: ``python -m benchmarks.drift --rows 10000000``.

An encoded variant of drawn ids is written to a temporary folder: 20 categorical fields, 3 numbers, a bag, a history and
33 domains, unless other numbers are given. Only the reading and comparing is timed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from multidomain.evaluation import drift
from multidomain.inputs import InputSchema
from multidomain.schema import SPLITS

from .drawn import Draw
from .measure import peak_mib

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


def write(folder: Path, *, rows: int, fields: int, domains: int) -> None:
    """An encoded variant whose domains have shares that fall as 1/√k."""
    shares = np.diff(np.sqrt(np.linspace(0, 1, domains + 1))).tolist()
    draw = Draw(schema=inputs(fields=fields, domains=domains), shares=shares)
    draw.write(folder, rows={split: int(rows * share) for split, share in SHARES.items()})


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
        before = peak_mib()
        start = time.perf_counter()
        cpu = time.process_time()
        found = drift.measure(folder)
        seconds = time.perf_counter() - start
    print(
        f"{given.rows:,} rows, {found.psi.feature.nunique()} features, {given.domains:,} domains: {seconds:.1f} s "
        f"({time.process_time() - cpu:.1f} s of the processor), {given.rows / seconds:,.0f} rows/s; "
        f"peak {peak_mib():,} MiB, {before:,} MiB before"
    )


if __name__ == "__main__":
    main()
