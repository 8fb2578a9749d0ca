"""How Spark is reached: the keys of ``conf/<environment>/spark.yml``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, unknown_key

# What the project's results rest on, and no file changes: times are UTC, to the microsecond.
FIXED: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.pyspark.fallback.enabled": "false",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
}


@dataclass(frozen=True, kw_only=True)
class SparkOptions:
    """The session's settings.

    Attributes:
        master: ``local[2]``, ``spark://host:7077``, or another that Spark knows.
        application: its name on the cluster's page.
        driver_memory: of this process's Java part, as Spark writes sizes: ``1g``.
        driver_host: the address at which executors reach the driver.
        executor_memory: of each executor.
        executor_cores: of each executor.
        shuffle_partitions: into how many parts tables are divided between stages.
        python: the interpreter of the executors; None: that of the driver.
        scratch: a folder for tables on their way to the driver, which driver and executors share; None: this machine's
            temporary folder.
        log_level: of Spark's own log.
        conf: any other settings of Spark's, ``spark.…``.
    """

    master: str = "local[2]"
    application: str = "multidomain"
    driver_memory: str = "1g"
    driver_host: str = "127.0.0.1"
    executor_memory: str = "1g"
    executor_cores: int = 1
    shuffle_partitions: int = 4
    python: str | None = None
    scratch: str | None = None
    log_level: str = "ERROR"
    conf: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, given: Mapping[str, Any], *, where: str = "spark.yml") -> SparkOptions:
        """Read and check them.

        Raises:
            ConfigurationError: a key is unknown, a value of another type, or ``conf`` would change how times are kept.
        """
        kinds = {one.name: one.type for one in dataclasses.fields(cls)}
        for name, value in given.items():
            if name not in kinds:
                raise ConfigurationError(f"{where}: {unknown_key(name, kinds)}")
            _check(f"{where}: {name}", value, str(kinds[name]))
        for name, value in (given.get("conf") or {}).items():
            if not str(name).startswith("spark."):
                raise ConfigurationError(f"{where}: conf.{name}: settings of Spark begin with 'spark.'.")
            if name in FIXED and str(value) != FIXED[name]:
                raise ConfigurationError(
                    f"{where}: conf.{name} is {FIXED[name]} here, which results rest on; leave it out."
                )
        return cls(**{**given, "conf": {str(k): str(v) for k, v in (given.get("conf") or {}).items()}})

    @property
    def interpreter(self) -> str:
        """Of the executors."""
        return self.python or sys.executable

    def settings(self) -> dict[str, str]:
        """All of it as Spark names it."""
        return {
            "spark.master": self.master,
            "spark.app.name": self.application,
            "spark.driver.memory": self.driver_memory,
            "spark.driver.host": self.driver_host,
            "spark.driver.bindAddress": self.driver_host,
            "spark.executor.memory": self.executor_memory,
            "spark.executor.cores": str(self.executor_cores),
            "spark.sql.shuffle.partitions": str(self.shuffle_partitions),
            "spark.log.level": self.log_level,
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            **self.conf,
            **FIXED,
        }


def read(path: Path) -> SparkOptions:
    """The options of one file, outside a run: Feast's own commands.

    Raises:
        ConfigurationError: the file is not there, or says something that cannot be.
    """
    from omegaconf import OmegaConf

    from ..resolvers import env

    if not path.is_file():
        raise ConfigurationError(f"{path} is missing: it says how Spark is reached.")
    OmegaConf.register_new_resolver("env", env, replace=True)
    given: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    return SparkOptions.of(given or {}, where=str(path))


def _check(where: str, value: Any, kind: str) -> None:
    good = {
        "str": isinstance(value, str) and bool(value),
        "str | None": value is None or isinstance(value, str),
        "int": isinstance(value, int) and not isinstance(value, bool) and value > 0,
        "Mapping[str, str]": value is None or isinstance(value, Mapping),
    }[kind]
    if not good:
        said = {"str": "text", "str | None": "text or null", "int": "a whole number above 0"}.get(
            kind, "a group of settings"
        )
        raise ConfigurationError(f"{where} must be {said}, got {value!r}.")
