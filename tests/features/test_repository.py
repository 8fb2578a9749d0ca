from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from feast import FeatureService, FeatureView
from feature_oracle import Bench, log, small_schema

from multidomain import schema
from multidomain.errors import ConfigurationError, DataError
from multidomain.features import definitions, repository, views


@pytest.fixture
def bench(tmp_path, data_root):
    made = Bench(tmp_path, small_schema(tmp_path).variant())
    made.build(log(1, rows=40))
    return made


def by_name(variant, folder, kind):
    return {thing.name: thing for thing in definitions.objects(variant, folder) if isinstance(thing, kind)}


COUNTED = (("user",), ("item",), ("domain",), ("user", "domain"), ("item", "domain"))


def windowed(key):
    return [f"{key}_{what}_{days}d" for days in (1, 3) for what in ("count", "rate")]


def test_views_follow_the_schema(tmp_path):
    variant = small_schema(tmp_path).variant()
    planned = {view.name: (view.keys, [c.name for c in view.columns]) for view in views.views(variant)}
    assert planned == {
        "user_profile": (("user",), ["person", "city"]),
        "item_profile": (("item",), ["film", "kind", "tags", "year"]),
        "user_history": (("user",), ["positives_film", "positives_kind", "positives_state"]),
        "user_counts": (("user",), ["user_count", "user_rate"]),
        "item_counts": (("item",), ["item_count", "item_rate"]),
        "domain_counts": (("domain",), ["domain_count", "domain_rate"]),
        "user_domain_counts": (("user", "domain"), ["user_domain_count", "user_domain_rate"]),
        "item_domain_counts": (("item", "domain"), ["item_domain_count", "item_domain_rate"]),
        **{f"{'_'.join(keys)}_windows": (keys, windowed("_".join(keys))) for keys in COUNTED},
    }
    profile = small_schema(tmp_path).variant(features="profile")
    assert [view.name for view in views.views(profile)] == ["user_profile", "item_profile"]


def test_everything_is_named_described_owned_and_tagged(bench):
    for thing in definitions.objects(bench.variant, bench.views):
        assert thing.name, thing
        assert thing.description, thing.name
        assert thing.owner == "multidomain"
        assert thing.tags["dataset"] == "small"
    counts = by_name(bench.variant, bench.views, FeatureView)["item_counts"]
    assert counts.tags["rows"] == "train"
    assert counts.tags["event_time"] == "next midnight UTC"
    assert counts.tags["prior"] == "0.3"
    assert counts.tags["window"] == "all days before the impression's (UTC)"
    windows = by_name(bench.variant, bench.views, FeatureView)["user_windows"]
    assert (windows.tags["window"], windows.tags["rows"]) == ("the 1, 3 UTC days before the impression's", "all")
    assert Path(counts.batch_source.path).is_absolute()


def test_applying_twice_changes_nothing(bench):
    first = repository.apply(bench.variant, bench.views)
    registry = Path(first["registry"])
    before = registry.read_bytes()
    assert repository.apply(bench.variant, bench.views) == first
    assert registry.read_bytes() == before
    store, service = repository.service(bench.variant)
    assert first["service"] == service.name == "full"
    assert first["project"] == store.project == "small__place__user_time__full__click"
    assert {view.name for view in store.list_feature_views()} == set(first["views"])
    assert first["views"]["user_counts"]["features"] == ["user_count", "user_rate"]
    assert first["views"]["user_counts"]["rows"] > 0


def test_what_leaves_the_schema_leaves_the_registry(bench, tmp_path):
    repository.apply(bench.variant, bench.views)
    text = (tmp_path / "small.yml").read_text()
    text = text.replace("  city: {owner: user}\n", "").replace(
        "[user, item, domain, user_domain, item_domain]", "[user]"
    )
    (tmp_path / "small.yml").write_text(text)
    less = schema.parse(tmp_path / "small.yml").variant()
    repository.apply(less, bench.views)
    store, service = repository.service(less)
    found = {view.name: [f.name for f in view.features] for view in store.list_feature_views()}
    assert sorted(found) == ["item_profile", "user_counts", "user_history", "user_profile", "user_windows"]
    assert found["user_profile"] == ["person"]
    assert {p.name for p in service.feature_view_projections} == set(found)
    pushed = {"user_history_push", "user_counts_push"}
    assert {s.name for s in store.list_data_sources()} == {f"{name}_source" for name in found} | pushed
    assert {entity.name for entity in store.list_entities()} == {"user", "item"}


def test_variants_live_side_by_side_in_one_registry(bench, tmp_path):
    other = small_schema(tmp_path).variant(split="time")
    for variant in (bench.variant, other):
        repository.apply(variant, bench.views)
    for variant in (bench.variant, other):
        store, service = repository.service(variant)
        assert service.name == "full"
        assert store.get_feature_view("item_counts").tags["rows"] == ("train" if variant is bench.variant else "all")
    assert len(list((tmp_path / "data/04_feature").glob("registry*.db"))) == 1


def test_a_variant_nobody_registered_is_an_error_that_says_what_to_run(bench):
    with pytest.raises(DataError, match="apply_feature_repository"):
        repository.service(bench.variant)


def test_no_connection_is_opened(bench, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(bench.frame(log(1, rows=40))) == 40


def test_the_command_line_finds_the_same_objects(bench, tmp_path, monkeypatch):
    """``feast apply`` imports ``definitions.py`` and collects what has a module-level name."""
    from feast.repo_operations import parse_repo

    shutil.copytree(schema.project_root() / "feature_repo", tmp_path / "found")
    shutil.move(tmp_path / "found/definitions.py", tmp_path / "found/small_definitions.py")  # a name of its own
    monkeypatch.setenv("MULTIDOMAIN_SCHEMAS", str(tmp_path))
    monkeypatch.setenv("MULTIDOMAIN_DATASET", "small")
    monkeypatch.setenv("MULTIDOMAIN_VARIANT", bench.variant.name)
    monkeypatch.chdir(tmp_path / "found")
    monkeypatch.syspath_prepend(str(tmp_path / "found"))
    contents = parse_repo(tmp_path / "found")
    folder = repository.views_folder(bench.variant)
    assert {v.name: v for v in contents.feature_views} == by_name(bench.variant, folder, FeatureView)
    assert {s.name: s for s in contents.feature_services} == by_name(bench.variant, folder, FeatureService)
    assert [project.name for project in contents.projects] == [bench.variant.project]


def test_the_default_project_of_the_repository_is_the_default_variant(data_root):
    text = (schema.project_root() / "feature_repo/feature_store.yaml").read_text()
    assert f"project: {schema.load('movielens').variant().project}\n" in text
    assert repository.chosen().key == "movielens/age-user_time-full-click"


def test_each_variant_gets_a_configuration_for_feasts_own_command_line(bench):
    from feast import FeatureStore

    path = Path(repository.apply(bench.variant, bench.views)["configuration"])
    store = FeatureStore(repo_path=str(path.parent), fs_yaml_file=path)
    assert store.get_feature_service("full").name == "full"


def test_a_misspelt_variant_is_named(monkeypatch):
    monkeypatch.setenv("MULTIDOMAIN_VARIANT", "age-user_time")
    with pytest.raises(ConfigurationError, match="expected <domain>-<split>-<features>-<label>"):
        repository.chosen()
    monkeypatch.setenv("MULTIDOMAIN_VARIANT", "age-user_tim-full-click")
    with pytest.raises(ConfigurationError, match="did you mean 'user_time'"):
        repository.chosen()


def test_a_feature_named_like_the_joins_own_column_is_refused(tmp_path):
    path = tmp_path / "small.yml"
    small_schema(tmp_path)
    path.write_text(path.read_text().replace("  city: {owner: user}", "  event_timestamp: {owner: user}"))
    with pytest.raises(ConfigurationError, match="my_event_timestamp"):
        definitions.objects(schema.parse(path).variant(), tmp_path)
