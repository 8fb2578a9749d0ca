from __future__ import annotations

import pytest

from multidomain.comparison.entries import Comparison, Entry
from multidomain.errors import ConfigurationError

OWN = {
    "star": {"model": {"hidden": [8], "fcn": "star"}, "training": {"epochs": 2}},
    "dnn": {"model": {"hidden": [8]}, "training": {"epochs": 2}},
}


def asked(**compare) -> Comparison:
    return Comparison.of({"compare": {"base": "dnn", **compare}, **OWN}, ["dnn", "star"])


def labels(**compare) -> list[str]:
    return [entry.label for entry in asked(**compare).entries]


def test_null_means_every_architecture():
    assert labels(models=None) == ["dnn", "star"]
    assert asked().seeds == (1, 2, 3)
    assert asked().workers == 1


@pytest.mark.parametrize("text", ["star dnn", "star|dnn", " star | dnn ", "star,dnn", ["star", "dnn"], ["star dnn"]])
def test_lists_may_be_written_as_the_command_line_lets_them(text):
    assert labels(models=text) == ["star", "dnn"]


@pytest.mark.parametrize(("text", "wanted"), [("1 2 3", (1, 2, 3)), (7, (7,)), ("4|5", (4, 5)), (["0"], (0,))])
def test_seeds_may_be_written_as_the_command_line_lets_them(text, wanted):
    assert asked(seeds=text).seeds == wanted


def test_an_entry_overrides_the_configuration_of_its_architecture():
    entry = {"label": "one network", "architecture": "star", "model": {"fcn": "shared"}, "training": {"epochs": 5}}
    found = asked(models=[entry, "star"], base="star").entries[0]
    assert found.label == "one network"
    assert found.model == {"hidden": [8], "fcn": "shared"}
    assert found.training == {"epochs": 5}
    assert OWN["star"]["model"]["fcn"] == "star"


def test_a_shared_budget_stands_between_the_models_own_settings_and_those_of_an_entry():
    longer = {"label": "longer", "architecture": "star", "training": {"epochs": 9}}
    found = asked(models=["star", longer], training={"epochs": 5, "patience": 1}).entries
    assert [entry.training for entry in found] == [{"epochs": 5, "patience": 1}, {"epochs": 9, "patience": 1}]
    assert OWN["star"]["training"] == {"epochs": 2}


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({"training": {"epoch": 3}}, "'epoch' is not known; did you mean 'epochs'"),
        ({"training": 3}, "compare.training is a group of settings"),
        ({"models": "star dn"}, "'dn' is not known; did you mean 'dnn'"),
        ({"model": "star"}, "'model' is not known; did you mean 'models'"),
        ({"models": {"0": "star"}}, "must be a list.*separate several by spaces.*star dnn"),
        ({"models": []}, "nothing to compare"),
        ({"models": [{"architecture": "star", "modle": {}}]}, "'modle' is not known; did you mean 'model'"),
        ({"models": [{"label": "x"}]}, "'None' is not known"),
        ({"models": [{"architecture": "star", "model": [1]}]}, r"model is a group of options, not \[1\]"),
        ({"models": [{"architecture": "star", "model": {"hiden": [1]}}]}, "'star': star.model: 'hiden' is not known"),
        ({"models": [{"architecture": "star", "training": {"epochs": 0}}]}, "'star': star.training: epochs"),
        ({"models": "star star"}, "label 'star' 2 times"),
        ({"models": [3]}, "a name or a group"),
        ({"seeds": "1 two"}, "'two': a seed is a whole number"),
        ({"seeds": "1 1"}, "none twice"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": 1.5}, "must be a list.*1 2 3"),
        ({"seeds": [-1]}, "a whole number of at least 0"),
        ({"workers": 0}, "compare.workers must be a whole number of at least 1, got 0"),
        ({"base": "dn"}, "compare.base: the label 'dn' is not known; did you mean 'dnn'"),
    ],
)
def test_a_mistake_says_what_is_allowed(compare, message):
    with pytest.raises(ConfigurationError, match=message):
        asked(**compare)


def test_a_section_that_is_no_section_is_refused():
    with pytest.raises(ConfigurationError, match="must be a group"):
        Comparison.of({"compare": "star"}, ["star"])


def test_a_base_that_is_not_compared_is_allowed_if_there_is_such_a_model():
    assert asked(models="star").base == "dnn"


def test_settings_hold_defaults_and_neither_labels_nor_limits():
    one = Entry(label="a", architecture="dnn", model={"hidden": [8]}, training={})
    full = {"hidden": (8,), "dropout": 0.0, "max_domain_weight_gib": 9}
    two = Entry(label="b", architecture="dnn", model=full, training={"epochs": 10})
    assert {**one.settings()["model"], "hidden": None} == {**two.settings()["model"], "hidden": None}
    assert one.settings()["training"] == two.settings()["training"]
    assert one.settings()["training"]["batch_size"] == 2000
