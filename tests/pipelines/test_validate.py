"""Bad rows are set apart with their reasons, too many of them stop the run, and GX and Ibis agree on every rule."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest
import yaml

from multidomain import schema, sources
from multidomain.errors import DataError, SchemaError
from multidomain.io import Folder
from multidomain.pipelines.validate import create_pipeline
from multidomain.pipelines.validate.nodes import validate
from multidomain.validation.rules import flagged, of, rules
from multidomain.validation.suites import Checker, chunks

LOG: dict[str, Any] = {
    "source": "table",
    "files": {"log": "log.csv"},
    "roles": {"user": "who", "item": "what", "timestamp": "at"},
    "labels": {"click": "clicked", "conversion": {"column": "bought", "where": "clicked"}},
    "domains": {"page": {"column": "page"}},
    "splits": {"user_time": {}, "official": {"column": "part"}},
    "features": {
        "who": {"nullable": False},
        "what": {},
        "sex": {"owner": "user", "allowed": ["F", "M"], "nullable": False},
        "years": {"owner": "user", "type": "int", "range": [0, 120]},
        "price": {"owner": "item", "kind": "numerical"},
        "tags": {"owner": "item", "kind": "sequence", "separator": "|", "allowed": ["red", "blue"]},
        "sizes": {"owner": "item", "kind": "sequence", "type": "int", "range": [1, 9]},
        "slot": {"allowed": [1, 2, 3], "type": "int"},
        "share": {"kind": "numerical", "range": [0.0, 1.0]},
    },
}
START = dt.datetime(2024, 1, 1)
IMPRESSIONS = pa.schema(
    {
        "impression_id": pa.int64(),
        "who": pa.string(),
        "what": pa.string(),
        "at": pa.timestamp("us"),
        "clicked": pa.int8(),
        "bought": pa.int8(),
        "slot": pa.int64(),
        "share": pa.float64(),
        "page": pa.string(),
        "part": pa.string(),
    }
)
USERS = pa.schema({"who": pa.string(), "sex": pa.string(), "years": pa.int64()})
ITEMS = pa.schema(
    {"what": pa.string(), "price": pa.float64(), "tags": pa.list_(pa.string()), "sizes": pa.list_(pa.int64())}
)
Tables = dict[str, list[dict[str, Any]]]
NO_LINES = (sources.nothing("rejected"), {"files": []})


def the_schema(folder: Path, **changed: object) -> schema.Schema:
    path = folder / "shop.yml"
    path.write_text(yaml.safe_dump({**LOG, **changed}, sort_keys=False))
    return schema.parse(path)


def clean(rows: int = 40) -> Tables:
    """Ten users, five items, ``rows`` impressions that keep every rule."""
    return {
        "impressions": [
            {
                "impression_id": i,
                "who": f"u{i % 10}",
                "what": f"i{i % 5}",
                "at": START + dt.timedelta(minutes=i),
                "clicked": i % 2,
                "bought": 1 if i % 2 else None,
                "slot": 1 + i % 3,
                "share": 0.5,
                "page": "home",
                "part": "train",
            }
            for i in range(rows)
        ],
        "users": [{"who": f"u{i}", "sex": "FM"[i % 2], "years": 20 + i} for i in range(10)],
        "items": [{"what": f"i{i}", "price": float(i), "tags": ["red"], "sizes": [1, 2]} for i in range(5)],
    }


def as_ibis(tables: Tables) -> list[ibis.Table]:
    kinds = {"impressions": IMPRESSIONS, "users": USERS, "items": ITEMS}
    return [ibis.memtable(pa.Table.from_pylist(tables[name], schema=kind)) for name, kind in kinds.items()]


def run(read: schema.Schema, tables: Tables) -> tuple[Any, ...]:
    return validate(read, *as_ibis(tables), *NO_LINES)


def lenient(folder: Path) -> schema.Schema:
    return the_schema(folder, validation={"max_quarantined": 1.0})


def reasons(quarantine: ibis.Table) -> dict[tuple[str, str | None], str]:
    return {(row["table"], row["row_key"]): row["reason"] for row in quarantine.to_pyarrow().to_pylist()}


def test_a_clean_log_passes_whole(tmp_path: Path) -> None:
    impressions, users, items, quarantine, report, _ = run(the_schema(tmp_path), clean())
    assert [t.count().execute() for t in (impressions, users, items, quarantine)] == [40, 10, 5, 0]
    assert impressions.columns == tuple(IMPRESSIONS.names)
    assert quarantine.columns == ("table", "row_key", "reason", "values")
    assert all(rule["success"] for table in report["tables"].values() for rule in table["rules"])
    json.dumps(report)


def test_bad_rows_go_to_the_quarantine_with_every_reason_that_applies(tmp_path: Path) -> None:
    tables = clean()
    tables["impressions"][3].update(clicked=2, share=7.0)
    tables["impressions"][4].update(who=None)
    impressions, _, _, quarantine, report, _ = run(lenient(tmp_path), tables)
    assert reasons(quarantine) == {
        ("impressions", "3"): "clicked is neither 0 nor 1; share is outside 0 to 1",
        ("impressions", "4"): "who is missing",
    }
    assert impressions.count().execute() == 38
    kept = set(impressions.impression_id.execute())
    assert kept == set(range(40)) - {3, 4}
    values = {row["row_key"]: json.loads(row["values"]) for row in quarantine.to_pyarrow().to_pylist()}
    assert values["3"]["clicked"] == 2
    assert values["4"]["what"] == "i4"
    counts = report["tables"]["impressions"]
    assert (counts["rows"], counts["kept"], counts["quarantined"]) == (40, 38, 2)
    label = next(r for r in counts["rules"] if (r["column"], r["rule"]) == ("clicked", "label_binary"))
    assert (label["rows"], label["success"], label["examples"]) == (1, False, ["impression_id=3: clicked=2"])


def test_an_impression_of_a_quarantined_user_is_set_apart_with_it(tmp_path: Path) -> None:
    tables = clean()
    tables["users"][7]["years"] = 999
    impressions, users, _, quarantine, _, _ = run(lenient(tmp_path), tables)
    assert users.count().execute() == 9
    found = reasons(quarantine)
    assert found["users", "u7"] == "years is outside 0 to 120"
    assert found["impressions", "17"] == "who is not among the valid users"
    assert impressions.count().execute() == 36


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"clicked": 2}, ["column 'clicked'", "label_binary", "2 rows (5.00%)", "impression_id=0: clicked=2"]),
        ({"who": None}, ["column 'who'", "not_null", "2 rows (5.00%)", "impression_id=0: who=None"]),
    ],
)
def test_five_per_cent_of_bad_rows_stop_the_run_with_one_message(
    tmp_path: Path, planted: dict[str, Any], said: list[str]
) -> None:
    tables = clean()
    for row in tables["impressions"][:2]:
        row.update(planted)
    with pytest.raises(DataError) as error:
        run(the_schema(tmp_path), tables)
    for part in [*said, "impressions: 2 of 40 rows", "0.10%", "max_quarantined", "shop.yml"]:
        assert part in error.value.message


def test_three_rows_without_user_among_thousands_are_set_apart_and_the_run_goes_on(tmp_path: Path) -> None:
    tables = clean(4000)
    for i in (5, 50, 500):
        tables["impressions"][i]["who"] = None
    impressions, _, _, quarantine, _, _ = run(the_schema(tmp_path), tables)
    assert impressions.count().execute() == 3997
    assert reasons(quarantine) == {("impressions", str(i)): "who is missing" for i in (5, 50, 500)}


def test_a_second_label_may_be_missing_only_where_its_condition_does_not_hold(tmp_path: Path) -> None:
    tables = clean()
    assert tables["impressions"][0]["bought"] is None  # not clicked
    tables["impressions"][1]["bought"] = None  # clicked
    *_, quarantine, _, _ = run(lenient(tmp_path), tables)
    assert reasons(quarantine) == {("impressions", "1"): "bought is missing where clicked is 1"}


def test_a_conversion_without_a_click_is_kept_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = clean()
    for i in (0, 2, 4):  # none of them clicked
        tables["impressions"][i]["bought"] = 1
    tables["impressions"][4]["clicked"] = None  # set apart, for a reason of its own
    tables["impressions"][6]["bought"] = 0
    impressions, *_, quarantine, report, docs = run(lenient(tmp_path), tables)
    assert reasons(quarantine) == {("impressions", "4"): "clicked is missing"}
    assert {0, 2, 6} <= set(impressions.impression_id.execute())
    found = [rule for rule in report["tables"]["impressions"]["rules"] if rule["level"] == "warning"]
    assert [(rule["column"], rule["rule"], rule["success"], rule["rows"]) for rule in found] == [
        ("bought", "zero_elsewhere", False, 3)
    ]
    assert found[0]["examples"][0] == "impression_id=0: bought=1"
    assert (
        "impressions: bought is 1 where clicked is not in 3 of 40 rows (7.50%); no row is set apart for it, "
        "e.g. impression_id=0: bought=1; " in caplog.text
    )
    folder = Folder(filepath=str(tmp_path / "docs"))
    folder.save(docs)
    (page,) = (tmp_path / "docs").rglob("validations/impressions/**/*.html")
    assert "bought : zero_elsewhere where clicked (warning)" in page.read_text()
    rule = (tmp_path / "docs/expectations/impressions.html").read_text()
    assert "bought is 1 where clicked is not (a warning: these rows are kept)" in rule


def test_any_number_of_conversions_without_a_click_never_stops_a_run(tmp_path: Path) -> None:
    tables = clean()
    for row in tables["impressions"]:
        row["bought"] = 1
    tables["impressions"][3]["who"] = None
    with pytest.raises(DataError) as error:
        run(the_schema(tmp_path), tables)
    assert "column 'who', rule 'not_null'" in error.value.message
    assert "bought" not in error.value.message
    tables["impressions"][3]["who"] = "u3"
    impressions, *_, quarantine, _, _ = run(the_schema(tmp_path), tables)
    assert (impressions.count().execute(), quarantine.count().execute()) == (40, 0)


def test_every_expectation_says_how_grave_it_is(tmp_path: Path) -> None:
    grave = {rule.name: rule.expectation().severity for rule in rules(the_schema(tmp_path))}
    assert [name for name, severity in grave.items() if severity == "warning"] == [
        "impressions.bought.zero_elsewhere where clicked"
    ]
    assert set(grave.values()) == {"critical", "warning"}


def test_two_labels_in_one_column_have_their_rules_each(tmp_path: Path) -> None:
    labels = {"click": "clicked", "bought": "bought", "conversion": {"column": "bought", "where": "clicked"}}
    tables = clean()
    for row in tables["impressions"]:
        row["bought"] = row["bought"] or 0
    tables["impressions"][0]["bought"] = None  # not clicked: missing for the label of all rows alone
    read = the_schema(tmp_path, labels=labels, validation={"max_quarantined": 1.0})
    *_, quarantine, _, _ = run(read, tables)
    assert reasons(quarantine) == {("impressions", "0"): "bought is missing"}


def test_both_rows_of_a_repeated_impression_are_set_apart(tmp_path: Path) -> None:
    tables = clean()
    tables["impressions"][9]["impression_id"] = 8
    impressions, *_, quarantine, _, _ = run(lenient(tmp_path), tables)
    assert quarantine.count().execute() == 2
    assert reasons(quarantine) == {("impressions", "8"): "impression_id occurs more than once"}
    assert impressions.count().execute() == 38


def test_a_time_is_in_the_future_only_beyond_a_day(tmp_path: Path) -> None:
    tables = clean()
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    tables["impressions"][0]["at"] = now + dt.timedelta(hours=23)
    tables["impressions"][1]["at"] = now + dt.timedelta(hours=25)
    *_, quarantine, _, _ = run(lenient(tmp_path), tables)
    assert reasons(quarantine) == {("impressions", "1"): "at is more than 1 day in the future"}


def planted_everywhere() -> Tables:
    """At least one error per row rule, and several errors in some rows."""
    tables = clean()
    rows = tables["impressions"]
    rows[0].update(impression_id=None)
    rows[2].update(impression_id=1)
    rows[3].update(who=None, what=None, at=None, clicked=None, bought=None)
    rows[4].update(who="nobody", what="nothing")
    rows[5].update(at=dt.datetime(2999, 1, 1), clicked=2, bought=-1)
    rows[6].update(bought=1)
    rows[7].update(bought=None, slot=9, share=-0.1)
    rows[8].update(share=math.inf, part="elsewhere", slot=None)
    rows[9].update(part=None, share=None)
    tables["users"][1].update(who=None, sex=None)
    tables["users"][2].update(who="u0", sex="X", years=-1)
    tables["users"].append({"who": "u11", "sex": "M", "years": None})
    tables["items"][1].update(what=None, price=-math.inf, tags=["red", "green"])
    tables["items"][2].update(what="i3", price=None, tags=None, sizes=[10])
    tables["items"][3].update(tags=[], sizes=[1, 0, None])
    return tables


@pytest.mark.parametrize("rows_at_a_time", [1 << 20, 7])
def test_great_expectations_counts_exactly_the_rows_the_predicates_select(tmp_path: Path, rows_at_a_time: int) -> None:
    read = the_schema(tmp_path)
    tables = dict(zip(("impressions", "users", "items"), as_ibis(planted_everywhere()), strict=True))
    every, checker = rules(read), Checker()
    now = dt.datetime(2026, 1, 1)
    for name, table in tables.items():
        rows_rules = of(every, name, "row", "warning")  # type: ignore[arg-type]
        marked = flagged(table, rows_rules, tables, now)
        assert marked.count().execute() == table.count().execute()
        outcome = checker.check(name, rows_rules, chunks(marked, rows_at_a_time))
        for rule in rows_rules:
            selected = int(marked.filter(rule.broken(marked)).count().execute())
            assert outcome.unexpected[rule.name] == selected, rule.name
            assert selected > 0, f"{rule.name} has no planted error"
            assert not outcome.success[rule.name]


def test_no_predicate_is_ever_null(tmp_path: Path) -> None:
    read = the_schema(tmp_path)
    tables = dict(zip(("impressions", "users", "items"), as_ibis(planted_everywhere()), strict=True))
    for name, table in tables.items():
        rows_rules = of(rules(read), name, "row", "warning")  # type: ignore[arg-type]
        marked = flagged(table, rows_rules, tables, dt.datetime(2026, 1, 1))
        for rule in rows_rules:
            assert marked.aggregate(n=rule.broken(marked).count()).n.execute()[0] == table.count().execute(), rule.name


def test_kept_and_quarantined_rows_are_all_rows_whatever_is_wrong(tmp_path: Path) -> None:
    tables = planted_everywhere()
    *valid, quarantine, report, _ = run(lenient(tmp_path), tables)
    per_table = quarantine.to_pandas().groupby("table").size()
    for name, kept in zip(("impressions", "users", "items"), valid, strict=True):
        assert kept.count().execute() + per_table[name] == len(tables[name])
        assert report["tables"][name]["quarantined"] == per_table[name]


def test_rows_are_counted_over_all_chunks() -> None:
    table = ibis.memtable(pa.table({"a": list(range(20))}))
    assert [len(chunk) for chunk in chunks(table, 7)] == [7, 7, 6]
    assert [len(chunk) for chunk in chunks(table, 20)] == [20]
    assert [len(chunk) for chunk in chunks(table.filter(table.a < 0), 7)] == [0]


def test_a_missing_column_stops_the_run_naming_table_column_rule_and_rows(tmp_path: Path) -> None:
    impressions, users, items = as_ibis(clean())
    with pytest.raises(DataError) as error:
        validate(the_schema(tmp_path), impressions, users.rename(sexe="sex"), items.drop("price"), *NO_LINES)
    message = error.value.message
    assert "table 'users', column 'sex', rule 'exists': all 10 rows lack it" in message
    assert "did you mean 'sexe'?" in message
    assert "table 'items', column 'price', rule 'exists'" in message


def test_a_column_of_the_wrong_type_stops_the_run_with_examples(tmp_path: Path) -> None:
    impressions, users, items = as_ibis(clean())
    with pytest.raises(DataError) as error:
        validate(the_schema(tmp_path), impressions, users.mutate(years=users.years.cast("string")), items, *NO_LINES)
    assert "table 'users', column 'years', rule 'type'" in error.value.message
    assert "all 10 rows are string, expected int, e.g. '20', '21'" in error.value.message


def test_an_empty_table_stops_the_run(tmp_path: Path) -> None:
    tables = clean()
    tables["impressions"] = []
    with pytest.raises(DataError, match="table 'impressions', column '\\*', rule 'not_empty': the table has 0 rows"):
        run(the_schema(tmp_path), tables)


def test_a_log_without_users_and_items_has_rules_for_impressions_alone(tmp_path: Path) -> None:
    read = the_schema(
        tmp_path,
        roles={},
        labels={"click": "clicked"},
        splits={"random": {}},
        features={"slot": {"type": "int"}},
    )
    impressions = as_ibis(clean())[0]
    none = ibis.memtable(pa.table({"none": pa.array([], pa.string())}))
    valid, _, _, _, report, _ = validate(read, impressions, none, none, *NO_LINES)
    assert valid.count().execute() == 40
    assert report["tables"]["users"]["rules"] == []


def test_allowed_values_are_read_in_the_type_of_the_feature(tmp_path: Path) -> None:
    features = {**LOG["features"], "slot": {"allowed": [1, 2, 3]}}  # text by default
    slot = next(r for r in rules(the_schema(tmp_path, features=features)) if (r.column, r.kind) == ("slot", "allowed"))
    assert slot.values == ("1", "2", "3")
    features["slot"] = {"allowed": [True, "no"]}
    with pytest.raises(
        SchemaError, match=r"features.slot.allowed: True is not of the feature's type 'string'. Write it"
    ):
        rules(the_schema(tmp_path, features=features))
    features["slot"] = {"allowed": ["a"], "type": "int"}
    with pytest.raises(SchemaError, match=r"features.slot.allowed: 'a' is not of the feature's type 'int'"):
        rules(the_schema(tmp_path, features=features))


def test_data_docs_have_a_page_per_table(tmp_path: Path) -> None:
    *_, docs = run(lenient(tmp_path), planted_everywhere())
    folder = Folder(filepath=str(tmp_path / "docs"))
    folder.save(docs)
    assert (tmp_path / "docs/index.html").is_file()
    pages = [path.as_posix() for path in (tmp_path / "docs").rglob("*.html")]
    for table in ("impressions", "users", "items"):
        assert any(f"validations/{table}/" in page for page in pages)


def test_the_stage_takes_and_gives_what_the_catalog_names() -> None:
    pipeline = create_pipeline()
    assert pipeline.inputs() == {
        "schema",
        "ingested_impressions",
        "ingested_users",
        "ingested_items",
        "rejected_lines",
        "ingest_report",
    }
    assert pipeline.outputs() == {
        "valid_impressions", "valid_users", "valid_items", "quarantine", "validation_report", "data_docs",
    }  # fmt: skip


def test_lines_of_a_file_that_are_no_rows_are_in_the_quarantine_and_count_towards_the_limit(tmp_path: Path) -> None:
    apart = pa.table(
        {
            "file": ["log.csv"] * 3,
            "line": [3, 5, 9],
            "reason": ["slot 'x' is not a whole number", "slot 'yy' is not a whole number", "is not UTF-8"],
            "text": ["a,x", "b,yy", r"\xff"],
        }
    )
    counts = {"file": "log.csv", "lines": 43, "rows": 40, "rejected": 3}
    lines = (ibis.memtable(apart), {"files": [counts]})
    read = the_schema(tmp_path, validation={"max_quarantined": 0.1})
    *_, quarantine, report, _ = validate(read, *as_ibis(clean()), *lines)
    assert sorted(map(tuple, quarantine.to_pandas().to_numpy().tolist())) == [
        ("log.csv", "line 3", "slot 'x' is not a whole number", "a,x"),
        ("log.csv", "line 5", "slot 'yy' is not a whole number", "b,yy"),
        ("log.csv", "line 9", "is not UTF-8", r"\xff"),
    ]
    found = report["files"]["log.csv"]
    assert (found["rows"], found["kept"], found["quarantined"]) == (43, 40, 3)
    assert [rule["rows"] for rule in found["rules"]] == [2, 1]  # by kind, whatever the value was
    with pytest.raises(DataError) as error:
        validate(the_schema(tmp_path), *as_ibis(clean()), *lines)
    for part in ("log.csv: 3 of 43 rows", "line 3 slot 'x' is not a whole number", "line 9 is not UTF-8"):
        assert part in error.value.message
