"""One log through the embedded engine and through a cluster: are tables, features and metrics the same, and how long?

    python -m benchmarks.clusters --folder /somewhere/large --redis localhost:6379

runs ``train_star`` in ``base`` and in ``cluster``, each in a process and a data folder of its own, then compares every
table row for row, every cell of the training frame, and the metrics. ``--workers 2`` starts a standalone Spark for it,
a master and so many workers on this machine (:mod:`benchmarks.standalone`); without, it is that of ``spark.yml``.
``--share 0.03`` takes that share of the users. ``--compare`` compares what an earlier call left in the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from . import standalone
from .measure import RESULTS, Figures

PROJECT = Path(__file__).parents[1]
ENVIRONMENTS = ("base", "cluster")
# Each table, and what numbers its rows; None: rows are compared as they are, in any order.
TABLES = {
    **{f"02_intermediate/{{dataset}}/valid/{name}": None for name in ("impressions", "users", "items")},
    "02_intermediate/{dataset}/quarantine": None,
    "03_primary/{variant}/partitioned": None,
    "03_primary/{variant}/domains": None,
    "04_feature/{variant}/training_frame": None,
}
VIEWS = "04_feature/{variant}/views/*.parquet"


def main() -> None:
    """Run both, compare, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--redis", help="host:port")
    parser.add_argument("--raw", type=Path, default=PROJECT / "data/01_raw", help="the raw files")
    parser.add_argument("--share", type=float, help="of the users; all, where not given")
    parser.add_argument("--params", default="", help="more parameters of the runs")
    parser.add_argument("--workers", type=int, default=0, help="of a standalone Spark on this machine")
    parser.add_argument("--compare", action="store_true", help="run nothing")
    parser.add_argument("--save", action="store_true", help="keep the table in benchmarks/results")
    given = parser.parse_args()
    content: Figures = {"date": date.today().isoformat(), "cores": os.cpu_count(), "workers": given.workers}
    if not given.compare:
        content["seconds"] = runs(given)
    content["tables"] = compared(given.folder)
    content["metrics"] = metrics(given.folder)
    text = markdown(content)
    print(text)
    if given.save:
        (RESULTS / "clusters.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "clusters.md").write_text(text, encoding="utf-8")
    sys.exit(0 if same(content) else 1)


def runs(given: argparse.Namespace) -> dict[str, float]:
    """Seconds of each environment's run, with the start of its programs."""
    parameters = ",".join([f"raw_folder={given.raw.resolve()}", *filter(None, [given.params])])
    parameters += f",sample_share={given.share}" if given.share else ""
    taken = {}
    with contextlib.ExitStack() as until_done:
        for name in ENVIRONMENTS:
            more = {"MULTIDOMAIN_DATA": str((given.folder / name).resolve())}
            if name == "cluster" and given.redis:
                more["MULTIDOMAIN_REDIS"] = given.redis
            if name == "cluster" and given.workers:
                place = given.folder / "spark"
                more["MULTIDOMAIN_SPARK_MASTER"] = until_done.enter_context(standalone.running(place, given.workers))
            start = time.perf_counter()
            flags = [f"--env={name}", "--pipelines=train_star", f"--params={parameters}"]
            subprocess.run(
                [sys.executable, "-m", "kedro", "run", *flags], cwd=PROJECT, env=os.environ | more, check=True
            )
            taken[name] = time.perf_counter() - start
    return taken


def compared(folder: Path) -> list[Figures]:
    """Of every table the rows in each environment, and how many are in one alone."""
    base = folder / "base"
    key = next((base / "03_primary").glob("*/*/partitioned.parquet")).parent.relative_to(base / "03_primary")
    names = [name.format(dataset=key.parts[0], variant=key) for name in TABLES]
    views = sorted(base.glob(VIEWS.format(variant=key)))
    names += [str(view.relative_to(base).with_suffix("")) for view in views]
    return [
        difference(name, *(folder / environment / f"{name}.parquet" for environment in ENVIRONMENTS)) for name in names
    ]


def difference(name: str, ours: Path, theirs: Path) -> Figures:
    """Rows of both, rows in one alone counted with their repetitions, and whether the rows stand in the same order."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for table, path in (("ours", ours), ("theirs", theirs)):
            place = path / "part-*.parquet" if path.is_dir() else path
            con.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{place}')")
        columns = [row[0] for row in con.execute("DESCRIBE ours").fetchall()]
        types = [con.execute(f"DESCRIBE {table}").fetchall() for table in ("ours", "theirs")]
        found: Figures = {"table": name, "columns": len(columns), "types": _shown(types[0]) == _shown(types[1])}
        chosen = ", ".join(f'"{column}"' for column in columns)
        for table, other in (("ours", "theirs"), ("theirs", "ours")):
            query = f"SELECT count(*) FROM (SELECT {chosen} FROM {table} EXCEPT ALL SELECT {chosen} FROM {other})"
            found[f"only_{table}"] = con.execute(query).fetchall()[0][0]
            found[f"rows_{table}"] = con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
        return found


def _shown(described: Sequence[Sequence[Any]]) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in described]


def metrics(folder: Path) -> Figures:
    """The largest difference of any number in ``metrics.json``, and that of any score."""
    found = [
        json.loads(next((folder / name).glob("08_reporting/*/*/star/metrics.json")).read_text())
        for name in ENVIRONMENTS
    ]
    flat = [_numbers(one) for one in found]
    assert flat[0].keys() == flat[1].keys()
    files = [next((folder / name).glob("08_reporting/*/*/star/predictions.parquet")) for name in ENVIRONMENTS]
    query = (
        f"SELECT max(abs(a.score - b.score)), count(*) FROM read_parquet('{files[0]}') a "
        f"JOIN read_parquet('{files[1]}') b USING (impression_id)"
    )
    score, rows = duckdb.sql(query).fetchall()[0]
    largest = max(abs(flat[0][name] - flat[1][name]) for name in flat[0])
    return {"numbers": len(flat[0]), "difference": largest, "rows": rows, "score_difference": score} | {
        "auc": [one["overall"]["auc"] for one in found]
    }


def _numbers(found: Any, at: str = "") -> dict[str, float]:
    if isinstance(found, dict):
        return {name: value for key, one in found.items() for name, value in _numbers(one, f"{at}/{key}").items()}
    if isinstance(found, list):
        return {name: value for i, one in enumerate(found) for name, value in _numbers(one, f"{at}/{i}").items()}
    return {at: float(found)} if isinstance(found, int | float) else {}


def same(content: Figures) -> bool:
    """Whether nothing differs beyond rounding."""
    rows = all(line["only_ours"] == line["only_theirs"] == 0 and line["types"] for line in content["tables"])
    return rows and content["metrics"]["difference"] <= 1e-6


def markdown(content: Figures) -> str:
    """All of it as a page."""
    workers = f"standalone Spark with {content['workers']} workers" if content["workers"] else "local Spark"
    lines = [f"`base` beside `cluster` ({content['date']}, {workers}, {content['cores']} shared cores)", ""]
    lines += [f"{name}: {seconds:,.0f} s" for name, seconds in content.get("seconds", {}).items()]
    lines += [
        "",
        "| table | rows | columns | rows in `base` alone | in `cluster` alone | same types |",
        "|---|---|---|---|---|---|",
    ]
    for line in content["tables"]:
        counts = f"{line['rows_ours']:,} | {line['columns']} | {line['only_ours']:,} | {line['only_theirs']:,}"
        lines.append(f"| `{line['table']}` | {counts} | {'yes' if line['types'] else 'no'} |")
    found = content["metrics"]
    lines += [
        "",
        f"Of {found['numbers']} numbers in `metrics.json` none differs by more than {found['difference']:.2g}, ",
    ]
    lines[-1] += (
        f"of {found['rows']:,} scores none by more than {found['score_difference']:.2g} (AUC {found['auc'][0]:.6f})."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
