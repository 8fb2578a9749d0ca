from __future__ import annotations

import copy
import pickle

import pytest

from multidomain.errors import ConfigurationError
from multidomain.training.config import TrainingConfig


def test_the_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.learning_rate, config.batch_size, config.batching) == (1e-3, 2000, "mixed")


def test_an_unknown_key_is_named_with_the_one_that_was_meant():
    with pytest.raises(ConfigurationError, match=r"'epohcs' is not known; did you mean 'epochs'\? Allowed: batch_size"):
        TrainingConfig(epohcs=3)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", 0, "a whole number of at least 1, got 0"),
        ("epochs", True, "a whole number of at least 1, got True"),
        ("batch_size", 2.5, "a whole number of at least 1, got 2.5"),
        ("batch_size", None, "a whole number of at least 1, got None"),
        ("patience", 0, "a whole number of at least 1 or null, got 0"),
        ("learning_rate", "1e-3", "a number above 0, got '1e-3'"),
        ("learning_rate", 0.0, "a number above 0, got 0.0"),
        ("learning_rate", float("nan"), "a number above 0, got nan"),
        ("weight_decay", -1e-6, "a number of at least 0, got -1e-06"),
        ("clip_norm", -1, "a number above 0 or null, got -1"),
        ("monitor", "gauc", "one of auc, logloss, got 'gauc'"),
        ("batching", "Domain", "one of mixed, domain, got 'Domain'"),
        ("schedule", None, "one of constant, cosine, got None"),
        ("embedding_optimizer", "adagrad", "one of adam, rowwise_adagrad, got 'adagrad'"),
    ],
)
def test_a_value_that_cannot_be_is_refused(key, value, message):
    with pytest.raises(ConfigurationError) as error:
        TrainingConfig.from_dict({key: value})
    assert str(error.value) == f"training: {key} must be {message}."


def test_null_leaves_optional_settings_out():
    config = TrainingConfig(patience=None, clip_norm=None, embedding_learning_rate=None)
    assert config.patience is config.clip_norm is config.embedding_learning_rate is None


def test_a_configuration_can_be_copied():
    config = TrainingConfig(epochs=3)
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
