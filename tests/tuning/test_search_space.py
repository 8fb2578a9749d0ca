from __future__ import annotations

import pytest
from optuna import create_study

from multidomain.errors import ConfigurationError
from multidomain.tuning import space

DEFAULTS = {"model": {"hidden": [8, 4], "dropout": 0.1}, "training": {"epochs": 2}}


def test_an_architecture_has_the_common_options_it_knows_and_its_own() -> None:
    given = {
        "all": {"training.learning_rate": {"low": 0.001, "high": 0.1}, "model.clusters": {"low": 1, "high": 9}},
        "star": {"model.hidden": {"choices": [[8, 4], [4]]}},
        "dnn": {"model.nothing": {"choices": [1]}},
    }
    assert [option.name for option in space.read(given, "star", DEFAULTS)] == ["training.learning_rate", "model.hidden"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"low": 0.1}, "needs both low and high"),
        ({"low": 2, "high": 1}, "low must not be above high"),
        ({"low": 0, "high": 1, "log": True}, "starts above 0"),
        ({"lo": 0, "high": 1}, "did you mean 'low'"),
        ({"choices": []}, "choices must be a list"),
        ({"choices": [1], "low": 0}, "stand alone"),
        (3, "must be"),
    ],
)
def test_a_range_that_is_none_is_an_error_that_says_why(option: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        space.read({"all": {"training.learning_rate": option}}, "star", DEFAULTS)


def test_a_setting_nobody_has_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'hidden'"):
        space.read({"star": {"model.hiden": {"low": 0, "high": 1}}}, "star", DEFAULTS)
    with pytest.raises(ConfigurationError, match=r"must be model\.<option> or training\.<option>"):
        space.read({"all": {"dropout": {"low": 0, "high": 1}}}, "star", DEFAULTS)
    with pytest.raises(ConfigurationError, match="names nothing that star has"):
        space.read({}, "star", DEFAULTS)


def test_values_are_drawn_from_ranges_and_lists_and_take_the_place_of_the_defaults() -> None:
    options = [
        space.Option(name="model.hidden", choices=[[8, 4], [4]]),
        space.Option(name="model.width", low=2, high=6, step=2),
        space.Option(name="training.learning_rate", low=0.001, high=0.1, log=True),
    ]
    study = create_study()
    for _ in range(20):
        trial = study.ask()
        values = {option.name: option.suggest(trial) for option in options}
        assert values["model.hidden"] in ([8, 4], [4])
        assert values["model.width"] in (2, 4, 6)
        assert isinstance(values["model.width"], int)
        assert 0.001 <= values["training.learning_rate"] <= 0.1
        made = space.chosen(values, DEFAULTS)
        assert made["training"] == {"epochs": 2, "learning_rate": values["training.learning_rate"]}
        assert made["model"]["dropout"] == 0.1
    assert DEFAULTS["training"] == {"epochs": 2}


def test_a_default_is_what_is_configured_or_what_training_does_without() -> None:
    assert space.default("model.dropout", DEFAULTS) == 0.1
    assert space.default("training.batch_size", DEFAULTS) == 2000
    lists = space.Option(name="model.hidden", choices=[[8, 4]])
    assert lists.stored([8, 4]) == "[8, 4]"
    assert lists.stored([4]) is None
    assert space.Option(name="x", low=0.0, high=0.3).stored(0.4) is None
