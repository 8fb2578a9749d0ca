"""How long the metrics of a scored split take, and how much memory: ``python -m benchmarks.metrics --rows 40000000``.

Overall and of 60 domains, every metric: AUC, GAUC over users of 40 rows on average, PCOC, log loss, calibration error.
Beside it, on the first domain alone, how far the figures are from those of one function after the other.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from multidomain.evaluation import metrics, report

from .measure import peak_mib


def drawn(rows: int, domains: int, users: int) -> dict[str, np.ndarray]:
    """Labels, scores, users and domain names."""
    random = np.random.default_rng(0)
    score = random.random(rows)
    return {
        "label": (random.random(rows) < 0.1 * score).astype(np.int8),
        "score": score,
        "group": random.integers(0, users, rows),
        "domain": np.array([f"domain {p}" for p in range(domains)], dtype=object)[random.integers(0, domains, rows)],
    }


def main() -> None:
    """Draw, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=60)
    given = parser.parse_args()
    split = drawn(given.rows, given.domains, max(1, given.rows // 40))
    before, start, worked = peak_mib(), time.perf_counter(), time.process_time()
    found = report.evaluate(*split.values(), [f"domain {p}" for p in range(given.domains)])
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    print(f"{given.rows:,} rows, {given.domains} domains: {seconds:.1f} s ({worked:.1f} s of the processor)")
    print(f"memory {peak_mib():,.0f} MiB at the most, {before:,.0f} MiB before")
    at = split["domain"] == "domain 0"
    label, score, group = (split[name][at] for name in ("label", "score", "group"))
    alone = {"auc": metrics.auc(label, score), "gauc": metrics.gauc(label, score, group)[0]}
    alone |= {name: getattr(metrics, name)(label, score) for name in ("pcoc", "logloss", "ece")}
    gap = max(abs(found["domains"]["domain 0"][name] - value) for name, value in alone.items())
    print(f"largest difference to one domain by itself: {gap:.1e}")


if __name__ == "__main__":
    main()
