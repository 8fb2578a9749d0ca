"""How Spark is reached: read, checked, and said in Spark's own words. Needs no Spark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kedro.config import MissingConfigException

from multidomain import hooks, resolvers
from multidomain.errors import ConfigurationError
from multidomain.io import connection, embedded
from multidomain.io.connection import distributed, use_spark
from multidomain.io.spark_options import FIXED, SparkOptions, read


def test_the_clusters_file_is_read_and_the_environment_may_say_where_the_master_is(project, monkeypatch):
    monkeypatch.delenv("MULTIDOMAIN_SPARK_MASTER", raising=False)
    path = project / "conf/cluster/spark.yml"
    assert read(path).master == "local[2]"
    monkeypatch.setenv("MULTIDOMAIN_SPARK_MASTER", "spark://there:7077")
    assert read(path).settings()["spark.master"] == "spark://there:7077"


def test_times_are_utc_to_the_microsecond_whatever_the_file_says():
    settings = SparkOptions.of({"conf": {"spark.sql.ansi.enabled": "true"}}).settings()
    assert settings["spark.sql.session.timeZone"] == "UTC"
    assert settings["spark.sql.parquet.outputTimestampType"] == "TIMESTAMP_MICROS"
    assert settings["spark.sql.ansi.enabled"] == "true"
    assert FIXED.items() <= settings.items()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mastre": "local[2]"}, "spark.yml: 'mastre' is not known; did you mean 'master'?"),
        ({"executor_cores": 0}, "executor_cores must be a whole number above 0, got 0"),
        ({"executor_cores": True}, "executor_cores must be a whole number above 0, got True"),
        ({"master": None}, "master must be text, got None"),
        ({"python": 3}, "python must be text or null, got 3"),
        ({"conf": "x"}, "conf must be a group of settings, got 'x'"),
        ({"conf": {"sql.ansi": 1}}, "conf.sql.ansi: settings of Spark begin with 'spark.'"),
        ({"conf": {"spark.sql.session.timeZone": "CET"}}, "conf.spark.sql.session.timeZone is UTC"),
    ],
)
def test_a_mistake_is_named_with_its_key(given, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        SparkOptions.of(given)


class Loader(dict):
    """What Kedro reads of an environment."""

    env = "there"

    def __missing__(self, key):
        raise MissingConfigException(key)


def test_the_environment_chooses_the_engine():
    hooks._choose_engine(Loader(globals={"engine": "spark"}, spark={"master": "local[1]"}))
    assert distributed()
    hooks._choose_engine(Loader(globals={"engine": "duckdb"}))
    assert not distributed()
    assert connection() is embedded()
    with pytest.raises(ConfigurationError, match=r"conf/there/spark.yml is missing"):
        hooks._choose_engine(Loader(globals={"engine": "spark"}))
    with pytest.raises(ConfigurationError, match=r"there is no 'flink'. Allowed: duckdb, spark"):
        hooks._choose_engine(Loader(globals={"engine": "flink"}))
    use_spark(None)


def test_data_may_be_named_as_a_file_url_and_nothing_that_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MULTIDOMAIN_DATA", f"file://{tmp_path}")
    assert Path(resolvers.data("data")) == tmp_path
    monkeypatch.setenv("MULTIDOMAIN_DATA", "s3://bucket/data")
    with pytest.raises(ConfigurationError, match=r"s3:// is none\. Name a folder(.|\n)*output_store"):
        resolvers.data("data")
