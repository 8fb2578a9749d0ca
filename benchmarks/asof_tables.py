"""The tables that :mod:`benchmarks.asof` joins, the joining of them, and plain SQL to check it with."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    from feast import FeatureStore
    from feast.data_source import DataSource

    from multidomain.features.views import View
    from multidomain.schema import Variant

SCHEMA = """
source: table
files: {log: log.parquet}
roles: {user: person, item: film, timestamp: at}
labels: {click: clicked}
domains: {place: {column: place, minimum: 1}}
splits: {time: {}}
features:
  person: {owner: user, type: string}
  city: {owner: user}
  film: {owner: item, type: int}
  kind: {owner: item}
  device: context
history: {positives: {length: 20, fields: {film: film, kind: kind}}}
counts: [user, item, domain]
"""
ITEMS, DOMAINS, DAYS = 20_000, 20, 30
USER_ROWS = 100  # of the average user; the square of a random number makes some very busy
PARTS = 4  # of the check, by key
DAY = 86_400_000_000


# --- training frames ---------------------------------------------------------------------------------------------


def write(folder: Path, *, rows: int) -> dict[str, Any]:
    """The canonical tables of a drawn log, its views, registered; seconds are of the views alone."""
    from multidomain.features import repository, views
    from multidomain.io import connection

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.yml").write_text(SCHEMA, encoding="utf-8")
    users = rows // USER_ROWS
    with _sql() as con:
        con.execute("SELECT setseed(0.5)")
        _copy(
            con,
            folder / "partitioned.parquet",
            f"""WITH drawn AS (SELECT i AS impression_id, floor({users} * random() ** 2)::BIGINT AS u,
                floor({ITEMS} * random() ** 2)::BIGINT AS f, floor({DOMAINS} * random())::INTEGER AS d,
                floor({DAYS * 86_400} * random())::BIGINT AS second, random() AS r FROM range({rows}) t(i))
            SELECT impression_id, 'u' || u AS user, f::VARCHAR AS item, 'u' || u AS "group",
                make_timestamp(1000000000000000 + second * 1000000) AS timestamp, 'place ' || d AS domain,
                d AS domain_id, (r < 0.3)::TINYINT AS label,
                CASE WHEN second < {DAYS * 86_400} * 0.8 THEN 'train' WHEN second < {DAYS * 86_400} * 0.9
                THEN 'validation' ELSE 'test' END AS split FROM drawn""",
        )
        devices = f"SELECT i AS impression_id, 'device ' || (i % 5) AS device FROM range({rows}) t(i)"
        _copy(con, folder / "impressions.parquet", devices)
        people = f"SELECT 'u' || i AS person, 'city ' || (i % 50) AS city FROM range({users}) t(i) WHERE i % 100 > 0"
        _copy(con, folder / "users.parquet", people)
        shuffled = f"""SELECT impression_id, "user", item, domain, timestamp AS {views.TIME}
            FROM read_parquet('{folder}/partitioned.parquet') ORDER BY hash(impression_id)"""
        _copy(con, folder / "shuffled.parquet", shuffled)
        films = f"SELECT i::VARCHAR AS film, 'kind ' || (i % 18) AS kind FROM range({ITEMS}) t(i) WHERE i % 100 > 0"
        _copy(con, folder / "items.parquet", films)
    names = ("partitioned", "users", "items")
    partitioned, people, films = (connection().read_parquet(str(folder / f"{name}.parquet")) for name in names)
    variant, start = _variant(folder), time.perf_counter()
    views.write(variant, partitioned, people, films, folder / "views")
    taken = time.perf_counter() - start
    repository.apply(variant, folder / "views")
    return {"seconds": taken}


def join(folder: Path) -> dict[str, Any]:
    """The training frame of what :func:`write` left."""
    from multidomain.features import repository
    from multidomain.features.frame import TrainingFrame
    from multidomain.io import connection

    names = ("partitioned", "impressions")
    partitioned, impressions = (connection().read_parquet(str(folder / f"{name}.parquet")) for name in names)
    variant = _variant(folder)
    repository.service(variant)  # the import of Feast, which takes as long as a slice
    start, cpu = time.perf_counter(), time.process_time()
    report = TrainingFrame(variant, partitioned, impressions)(folder / "frame.parquet")
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "report": report}


def call(folder: Path) -> dict[str, Any]:
    """All impressions in one question, shuffled, for all features that are no lists."""
    import pyarrow.parquet as pq

    from multidomain.features import repository, views

    variant = _variant(folder)
    store, _ = repository.service(variant)
    refs = [f"{view.name}:{c.name}" for view in views.views(variant) for c in view.columns if not c.list]
    asked = pq.read_table(folder / "shuffled.parquet")
    start, cpu = time.perf_counter(), time.process_time()
    found = store.get_historical_features(features=refs, entity_df=asked).to_arrow()
    taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    if not found.select(asked.column_names).equals(asked):
        raise SystemExit("What was asked did not come back in its order.")
    return taken | {"result_mib": found.nbytes >> 20}


def check(folder: Path) -> dict[str, Any]:
    """Every cell of the frame against the row that a window over keys picks; how many differ."""
    from multidomain.features.views import views

    start, planned = time.perf_counter(), views(_variant(folder))
    differing = 0
    with _sql() as con:
        con.execute(f"CREATE VIEW frame AS FROM read_parquet('{folder}/frame.parquet')")
        rows, longest = con.execute(
            'SELECT sum(n), max(n) FROM (SELECT count(*) AS n FROM frame GROUP BY "user")'
        ).fetchall()[0]
        for view in planned:
            seen = 0
            for part in range(PARTS):
                count, unequal = con.execute(_compared(folder, view, part)).fetchall()[0]
                seen, differing = seen + count, differing + unequal
            if seen != rows:
                raise SystemExit(f"{view.name}: {seen} rows of {rows} were compared")
    return {
        "seconds": time.perf_counter() - start,
        "rows": int(rows),
        "longest": longest,
        "views": len(planned),
        "differing": int(differing),
    }


def _compared(folder: Path, view: View, part: int) -> str:
    """Feature rows and impressions in one order, each impression beside the last feature row before it."""
    keys = ", ".join(f'"{key}"' for key in view.keys)
    mine = f"hash({keys}) % {PARTS} = {part}"
    wanted = {c.name: f"known.{c.name}" for c in view.columns}
    wanted |= {name: f"coalesce({value}, 0)" for name, value in wanted.items() if name.endswith("_state")}
    unequal = [f"(frame.{name} IS DISTINCT FROM {value})::INT" for name, value in wanted.items()]
    return f"""
        WITH known AS (SELECT *, file_row_number AS n
            FROM read_parquet('{folder}/views/{view.file}', file_row_number = true) WHERE {mine}),
        marks AS (SELECT {keys}, event_timestamp::TIMESTAMP AS moment, 0 AS side, n, NULL AS id FROM known
            UNION ALL SELECT {keys}, timestamp, 1, NULL, impression_id FROM frame WHERE {mine}),
        picked AS (SELECT id, last_value(n IGNORE NULLS) OVER (PARTITION BY {keys} ORDER BY moment, side, n
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS n FROM marks)
        SELECT count(*), coalesce(sum({" + ".join(unequal)}), 0) FROM picked
            JOIN (FROM frame WHERE {mine}) frame ON frame.impression_id = picked.id
            LEFT JOIN known ON known.n = picked.n WHERE picked.id IS NOT NULL"""


def _variant(folder: Path) -> Variant:
    from multidomain import schema

    return schema.parse(folder / "bench.yml").variant()


# --- keys of one length ------------------------------------------------------------------------------------------


def keyed(folder: Path, rows: int, length: int) -> None:
    """``rows`` feature rows in keys of ``length``, and as many entity rows, each half a step after a feature row."""
    from multidomain.features.frame import ROW_GROUP as ASKED
    from multidomain.features.views import ROW_GROUP

    folder.mkdir(parents=True, exist_ok=True)
    key = f"'k' || lpad((i // {length})::VARCHAR, 7, '0') AS key"
    at = f"make_timestamptz(1000000000000000 + (i % {length}) * 1000000"
    items = "[i, i + 1, i + 2, i + 3, i + 4, i + 5, i + 6, i + 7, i + 8, i + 9]"
    with _sql() as con:
        known = f"SELECT {key}, {at}) AS at, i / 8 AS value, {items} AS items FROM range({rows}) t(i)"
        _copy(con, folder / "known.parquet", known, ROW_GROUP)
        asked = f"SELECT i AS impression_id, {key}, {at} + 500000) AS event_timestamp FROM range({rows}) t(i)"
        _copy(con, folder / "asked.parquet", asked, ASKED)


def opened(folder: Path, store: str) -> FeatureStore:
    """A store over what :func:`keyed` left, registered in that folder."""
    from feast import FileSource

    path = str((folder / "known.parquet").resolve())
    return registered(folder, store, FileSource(name="known", path=path, timestamp_field="at"))


def registered(folder: Path, store: str, source: DataSource) -> FeatureStore:
    """A store of one kind over the rows of :func:`keyed` behind a source, registered in a folder."""
    from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig
    from feast.types import Array, Float64, Int64, String
    from feast.value_type import ValueType

    config = RepoConfig(
        project="keys",
        provider="local",
        registry={"path": str(folder / "registry.db")},
        offline_store={"type": store},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    made, key = FeatureStore(config=config), Entity(name="key", join_keys=["key"], value_type=ValueType.STRING)
    types = {"key": String, "value": Float64, "items": Array(Int64)}
    fields = [Field(name=name, dtype=kind) for name, kind in types.items()]
    made.apply([key, FeatureView(name="state", entities=[key], schema=fields, source=source, ttl=timedelta(0))])
    return made


def _sql() -> duckdb.DuckDBPyConnection:
    import duckdb

    con = duckdb.connect(config={"memory_limit": "3GB"})
    con.execute("SET TimeZone = 'UTC'")
    return con


def _copy(con: duckdb.DuckDBPyConnection, path: Path, query: str, row_group: int = 122_880) -> None:
    con.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group})")
