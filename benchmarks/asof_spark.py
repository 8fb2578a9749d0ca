"""The point-in-time join on Spark: what a row costs in short keys and in long ones, Feast's own beside ours.

    python -m benchmarks.asof_spark --folder /somewhere

Each table has as many entity rows as feature rows, a float and a list of ten; ``local[2]``, the median of
``--turns`` calls of ``get_historical_features`` in one process after a first one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from . import asof_tables
from .measure import RESULTS, Figures

if TYPE_CHECKING:
    from feast import FeatureStore

OURS = "multidomain.features.asof_spark.SparkAsofOfflineStore"
STORES = {"as-of": OURS, "Feast's own": "spark"}


def main() -> None:
    """Write, join, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asof_spark", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=16_000)
    parser.add_argument("--lengths", type=int, nargs="*", default=[10, 1_000, 4_000], help="rows per key")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    from multidomain.io.connection import spark_session, use_spark
    from multidomain.io.spark_options import SparkOptions

    use_spark(SparkOptions())
    spark_session("")
    found = []
    for length in given.lengths:
        place = given.folder / f"keys-{length}"
        asof_tables.keyed(place, given.rows, length)
        asked = pd.read_parquet(place / "asked.parquet")
        for name, kind in STORES.items():
            seconds = measured(place, name, kind, asked, given.turns)
            found.append({"store": name, "length": length, "rows": given.rows, "seconds": seconds})
            print(found[-1], flush=True)
    content = {"date": date.today().isoformat(), "cores": os.cpu_count(), "runs": found}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "asof_spark.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = markdown(content)
    (RESULTS / "asof_spark.md").write_text(text, encoding="utf-8")
    print(text)


def measured(place: Path, name: str, kind: str, asked: pd.DataFrame, turns: int) -> list[float]:
    """Seconds of each call, all of which must give every row."""
    store, taken = opened(place, name, kind), []
    for _ in range(turns + 1):
        start = time.perf_counter()
        job = store.get_historical_features(features=["state:value", "state:items"], entity_df=asked)
        rows = job.to_arrow().num_rows
        taken.append(time.perf_counter() - start)
        if rows != len(asked):
            raise SystemExit(f"{len(asked)} rows went in, {rows} came out.")
    return taken[1:]


def opened(folder: Path, name: str, kind: str) -> FeatureStore:
    """A store over what :func:`benchmarks.asof_tables.keyed` left, registered in a folder of its own beside it."""
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    place = folder / name.replace(" ", "_").replace("'", "")
    place.mkdir(exist_ok=True)
    path = str((folder / "known.parquet").resolve())
    source = SparkSource(name="known", path=path, file_format="parquet", timestamp_field="at")
    return asof_tables.registered(place, kind, source)


def markdown(content: Figures) -> str:
    """Seconds, and the cost of a row beside that in the shortest keys."""
    lines = [
        f"The point-in-time join on Spark ({content['date']}, `local[2]`, {content['cores']} shared cores)",
        "",
        "| store | rows | rows per key | seconds, median (least to most) | beside the shortest keys |",
        "|---|---|---|---|---|",
    ]
    for store in STORES:
        runs = [run for run in content["runs"] if run["store"] == store]
        first = statistics.median(runs[0]["seconds"])
        for run in runs:
            middle, low, high = statistics.median(run["seconds"]), min(run["seconds"]), max(run["seconds"])
            times = f"{middle:.1f} ({low:.1f} to {high:.1f}) | {middle / first:.1f}"
            lines.append(f"| {store} | {run['rows']:,} | {run['length']:,} | {times} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
