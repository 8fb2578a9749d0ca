"""A Spark of the test process: two threads, in UTC, as ``conf/cluster/spark.yml`` has it."""

from __future__ import annotations

import shutil

import pytest

from multidomain.io.connection import connection, use_spark
from multidomain.io.spark_options import SparkOptions

OPTIONS = SparkOptions(master="local[2]", shuffle_partitions=2, driver_memory="768m")


@pytest.fixture(scope="session")
def spark_options() -> SparkOptions:
    pytest.importorskip("pyspark", reason="PySpark is not installed: pip install '.[cluster]'")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17")
    return OPTIONS


@pytest.fixture
def spark(spark_options):
    """Tables are Spark's while a test runs; its backend."""
    use_spark(spark_options)
    yield connection()
    use_spark(None)
