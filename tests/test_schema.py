"""A schema is read whole or refused with the file, the key and what is allowed there."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from multidomain import schema
from multidomain.errors import ConfigurationError, SchemaError

MOVIELENS = schema.project_root() / "conf/base/datasets/movielens.yml"
SMALL: dict[str, Any] = {
    "source": "table",
    "files": {"log": "log.csv"},
    "roles": {"user": "who", "item": "what", "timestamp": "at"},
    "labels": {"click": "clicked", "conversion": {"column": "bought", "where": "clicked"}},
    "domains": {
        "page": {"column": "page", "top": 5},
        "years": {"column": "years", "bins": [25, 35], "names": ["young", "middle", "old"]},
        "both": {"cross": ["page", "years"], "minimum": 10},
    },
    "splits": {"user_time": {}, "random": {"seed": 3}, "official": {"column": "part"}},
    "features": {
        "who": {},
        "what": {},
        "genre": {"owner": "item", "allowed": ["a", "b"]},
        "years": {"owner": "user", "type": "int", "range": [0, 120]},
        "price": {"kind": "numerical", "transform": "value"},
        "tags": {"owner": "item", "kind": "sequence", "separator": "|", "length": 4},
    },
    "history": {"positives": {"length": 7, "fields": {"what": "what"}}},
    "counts": ["user"],
    "windows": [1, 7],
    "request": ["hour"],
    "feature_sets": {
        "full": {},
        "few": {"features": ["who"], "history": False, "counts": False, "request": False},
        "all_time": {"windows": False},
    },
    "validation": {"max_quarantined": 0.01},
}


def parse(folder: Path, changed: Any) -> schema.Schema:
    path = folder / "shop.yml"
    path.write_text(changed if isinstance(changed, str) else yaml.safe_dump(changed, sort_keys=False))
    return schema.parse(path)


def with_value(path: str, value: Any) -> dict[str, Any]:
    """SMALL with one key, named by its dotted path, set to another value."""
    changed = copy.deepcopy(SMALL)
    place: Any = changed
    *parents, last = path.split(".")
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return changed


def test_the_default_data_set_is_read_with_its_variants() -> None:
    read = schema.parse(MOVIELENS)
    assert [d.name for d in read.domains] == ["age", "genre", "occupation", "age_gender_occupation"]
    assert read.roles.group == "user_id"
    chosen = read.variant()
    assert chosen.key == "movielens/age-user_time-full-click"
    assert "age" not in {f.name for f in chosen.base_features}  # it is the domain
    assert "age" in {f.name for f in read.variant(domain="genre").base_features}
    assert read.variant(features="profile").histories == ()
    assert len(read.digest) == 16


def test_every_section_arrives_typed(tmp_path: Path) -> None:
    read = parse(tmp_path, SMALL)
    assert read.feature("who").owner == "user"  # a role's column belongs to its owner
    assert read.feature("what").owner == "item"
    assert (read.feature("price").owner, read.feature("price").value_type) == ("context", "float")
    assert read.domains[1].names == ("young", "middle", "old")
    assert read.domains[2].columns == ("page", "years")
    assert read.splits[2].kind == "official"
    assert read.labels[1].where == "clicked"
    assert read.histories[0].feature("what") == "positives_what"
    assert read.validation.max_quarantined == 0.01


def test_the_digest_changes_with_the_file(tmp_path: Path) -> None:
    first = parse(tmp_path, SMALL).digest
    assert parse(tmp_path, SMALL).digest == first
    assert parse(tmp_path, with_value("validation.max_quarantined", 0.02)).digest != first


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("soruce", "table", "'soruce' is not known; did you mean 'source'?"),
        ("files.log", {"pth": "a"}, "files.log: 'pth' is not known; did you mean 'path'? Allowed: address, checksum"),
        ("files.log", {"path": "a", "fetch": "ftp://a/b"}, "files.log.fetch: expected a pip requirement or an address"),
        ("files.log", {"path": "a", "fetch": "https://a/b", "checksum": "md5:1"}, "files.log.checksum: expected md5:"),
        (
            "files.log",
            {"path": "a", "fetch": "a==1", "checksum": f"md5:{'a' * 32}"},
            "files.log.checksum: it is of what",
        ),
        ("files.log", {"sha256": "a"}, "files.log: the key 'path' is missing"),
        ("files", [], "files: expected a mapping from names to settings"),
        ("roles.usr", "who", "roles: 'usr' is not known; did you mean 'user'?"),
        ("roles.user", 5, "roles.user: expected text, got 5"),
        ("labels", {}, "labels: expected a mapping"),
        ("labels.Click!", "clicked", "labels.Click!: a name here may hold small letters"),
        ("labels.click", {"where": "x"}, "labels.click: the key 'column' is missing"),
        ("domains.page", {"colum": "page"}, "domains.page: 'colum' is not known; did you mean 'column'?"),
        ("domains.page", {"top": 3}, "domains.page: give either 'column' (one) or 'cross'"),
        ("domains.page", {"column": 5}, "domains.page.column: expected text, got 5"),
        ("domains.page.top", 0, "domains.page.top: expected at least 1, got 0"),
        ("domains.years.bins", [35, 25], "domains.years.bins: bins are ascending edges"),
        ("domains.years.bins", ["a", "b"], "domains.years.bins: expected a list of numbers, got 'a' in it"),
        ("domains.years.names", ["a"], "domains.years.names: 2 edges make 3 bins, got 1 names"),
        ("domains.both.cross", "page", "domains.both.cross: expected a list, got 'page'"),
        ("domains.both.cross", [], "domains.both.cross: expected at least one column"),
        (
            "splits.weekly",
            {},
            "splits.weekly.kind: 'weekly' is not known. Allowed: official, order, random, time, user_time",
        ),
        ("splits.random", 5, "splits.random: expected a mapping, got 5"),
        ("splits.random.train", 0.9, "splits.random: train, validation and test must be positive and sum to 1"),
        ("splits.random.sed", 1, "splits.random: 'sed' is not known; did you mean 'seed'?"),
        ("splits.official", {}, "splits.official: an official split, and no other, names the 'column'"),
        ("splits.random.column", "part", "splits.random: an official split, and no other, names the 'column'"),
        ("features", {}, "features: expected a mapping"),
        ("features.years.onwer", "user", "features.years: 'onwer' is not known; did you mean 'owner'?"),
        ("features.years.owner", "usr", "features.years.owner: 'usr' is not known; did you mean 'user'?"),
        ("features.years.owner", "domain", "features.years.owner: 'domain' is not known"),
        ("features.years", 5, "features.years: expected a mapping, got 5"),
        (
            "features.years.kind",
            "category",
            "features.years.kind: 'category' is not known; did you mean 'categorical'?",
        ),
        ("features.years.type", "integer", "features.years.type: 'integer' is not known; did you mean 'int'?"),
        ("features.years.nullable", "no", "features.years.nullable: expected true or false, got 'no'"),
        ("features.years.range", [5, 1], "features.years.range: expected [lowest, highest]"),
        ("features.years.range", ["a", 1], "features.years.range: expected a list of numbers"),
        ("features.years.allowed", 5, "features.years.allowed: expected a list, got 5"),
        ("features.price.type", "string", "features.price.type: a numerical feature is int or float"),
        ("features.tags.length", 0, "features.tags.length: expected at least 1"),
        ("features.domain", {}, "features.domain: the product keeps this name for itself"),
        ("history", 5, "history: expected a mapping, got 5"),
        ("history.positives", {"length": 3}, "history.positives: the key 'fields' is missing"),
        ("history.positives.fields", {"waht": "what"}, "'waht' is not known; did you mean 'what'?"),
        ("history.positives.fields", {"what": "years"}, "categorical item features only: 'years' is not known"),
        ("counts", "user", "counts: expected a list, got 'user'"),
        ("counts", ["users"], "counts: 'users' is not known; did you mean 'user'?"),
        ("counts", [], "windows: these are the days of 'counts', which the schema does not have"),
        ("windows", 7, "windows: expected a list, got 7"),
        ("windows", ["7"], "windows: expected a list of whole numbers, got '7' in it"),
        ("windows", [True], "windows: expected a list of whole numbers, got True in it"),
        ("windows", [0], "windows: expected ascending numbers of days, 1 to 3650, got [0]"),
        ("windows", [7, 1], "windows: expected ascending numbers of days, 1 to 3650, got [7, 1]"),
        ("request", ["hours"], "request: 'hours' is not known; did you mean 'hour'?"),
        ("request", ["hour", "hour"], "request: a name is given twice: hour, hour"),
        ("features.user_rate_7d", {}, "features.user_rate_7d: 'counts' makes a feature of this name"),
        ("features.hour", {}, "features.hour: 'request' makes a feature of this name"),
        ("feature_sets.few.features", ["whom"], "feature_sets.few.features: 'whom' is not known; did you mean 'who'?"),
        ("validation.max_quarantined", 5, "validation.max_quarantined: expected 0 to 1, got 5"),
        ("validation", {"limit": 1}, "validation: 'limit' is not known. Allowed: max_quarantined"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(tmp_path: Path, path: str, value: Any, said: str) -> None:
    with pytest.raises(SchemaError) as error:
        parse(tmp_path, with_value(path, value))
    assert str(tmp_path / "shop.yml") in error.value.message
    assert said in error.value.message


@pytest.mark.parametrize("section", ["source", "files", "roles", "labels", "domains", "features"])
def test_a_section_that_must_be_there_is_missed(tmp_path: Path, section: str) -> None:
    with pytest.raises(SchemaError, match=f"the key '{section}' is missing"):
        parse(tmp_path, {key: value for key, value in SMALL.items() if key != section})


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"user": "who", "timestamp": "at"}, "genre, tags belong to the item, but roles.item names no column"),
        ({"user": "who", "item": "what"}, "splits.user_time: a split by time needs roles.timestamp"),
    ],
)
def test_a_role_others_rest_on_is_missed(tmp_path: Path, roles: dict[str, str], said: str) -> None:
    changed = {**SMALL, "roles": roles}
    if "item" not in roles:
        changed = {key: value for key, value in changed.items() if key != "history"}
    with pytest.raises(SchemaError) as error:
        parse(tmp_path, changed)
    assert said in error.value.message


def test_a_log_without_time_is_split_at_random_and_has_no_history(tmp_path: Path) -> None:
    timed = ("splits", "history", "counts", "windows", "request")
    changed = {k: v for k, v in SMALL.items() if k not in timed}
    changed["roles"] = {"user": "who", "item": "what"}
    assert [split.name for split in parse(tmp_path, changed).splits] == ["random"]
    with pytest.raises(SchemaError, match=r"counts: earlier labels need roles.timestamp"):
        parse(tmp_path, {**changed, "counts": ["item"]})
    with pytest.raises(SchemaError, match=r"request: what is made of the request's time needs roles.timestamp"):
        parse(tmp_path, {**changed, "request": ["hour"]})


@pytest.mark.parametrize("content", ["", "[]", "a: [", "5", "a: 1: 2"])
def test_a_file_that_is_no_mapping_is_one_clear_message(tmp_path: Path, content: str) -> None:
    with pytest.raises(SchemaError, match=r"shop.yml"):
        parse(tmp_path, content)


def test_schemas_of_a_person_s_own_folder_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIDOMAIN_SCHEMAS", str(tmp_path))
    (tmp_path / "movielens.yml").write_text(yaml.safe_dump(SMALL))
    assert schema.load("movielens").source == "table"
    with pytest.raises(SchemaError, match=r"No schema for data set 'shop'.*There are: .*movielens"):
        schema.load("shop")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"domain": "pages"}, "domain=pages of data set 'shop': 'pages' is not known; did you mean 'page'?"),
        ({"split": "randm"}, "did you mean 'random'?"),
        ({"features": "some"}, "Allowed: all_time, few, full"),
        ({"label": "buy"}, "Allowed: click, conversion"),
        ({"split": "random"}, "history 'positives', counts of 'user' carry earlier labels"),
    ],
)
def test_a_choice_the_schema_lacks_or_that_leaks_is_refused(tmp_path: Path, choice: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse(tmp_path, SMALL).variant(**choice)
    assert said in error.value.message


def test_a_random_split_goes_with_features_that_carry_no_labels(tmp_path: Path) -> None:
    assert parse(tmp_path, SMALL).variant(split="random", features="few").name == "page-random-few-click"


@pytest.mark.parametrize(
    ("features", "names"),
    [
        ("full", ["user_count", "user_rate", "user_count_1d", "user_rate_1d", "user_count_7d", "user_rate_7d", "hour"]),
        ("all_time", ["user_count", "user_rate", "hour"]),
        ("few", []),
    ],
)
def test_a_feature_set_says_whether_windows_and_the_requests_time_are_among_the_inputs(
    tmp_path: Path, features: str, names: list[str]
) -> None:
    variant = parse(tmp_path, SMALL).variant(features=features)
    declared = len(variant.base_features)
    assert [feature.name for feature in variant.features[declared:]] == names


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a nested value."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


JUNK = [None, 5, -1, 0.5, "x", "", [], {}, [1], ["x"], [[1]], {"x": 1}, {5: None}, True, float("nan"), [None, 1]]


@settings(max_examples=30, deadline=None)
@given(path=st.sampled_from(list(places(SMALL))), junk=st.sampled_from(JUNK))
def test_nonsense_anywhere_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, path: tuple[Any, ...], junk: Any
) -> None:
    changed = copy.deepcopy(SMALL)
    place: Any = changed
    for parent in path[:-1]:
        place = place[parent]
    place[path[-1]] = junk
    folder = tmp_path_factory.mktemp("nonsense")
    with contextlib.suppress(SchemaError, ConfigurationError):
        parse(folder, changed).variant(domain=None)


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    text = yaml.safe_dump(SMALL, sort_keys=False) + "counts: [item]\n"
    with pytest.raises(SchemaError, match=r"shop.yml is not valid YAML.*'counts' is given twice[\s\S]*line"):
        parse(tmp_path, text)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"kind": "numerical", "hash": 10}, "only texts and whole numbers that are categories are hashed"),
        ({"type": "float", "hash": 10}, "only texts and whole numbers that are categories are hashed"),
        ({"hash": 10, "minimum_count": 2}, "counts no values: leave out minimum_count"),
        ({"hash": 1}, "expected 2 to"),
        ({"hash": "many"}, "expected a whole number, got 'many'"),
    ],
)
def test_a_feature_that_cannot_be_hashed_is_an_error(tmp_path, feature, message):
    with pytest.raises(SchemaError, match=message):
        parse(tmp_path, with_value("features.price", feature))
