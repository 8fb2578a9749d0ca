"""What is known of every output: what it was made of, and whether an object store has the same one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from . import tracking
from .digests import check_input, digest_file, expected_digests, forget_stale_output, is_stale
from .io.atomic import replacing
from .io.datasets import place_of
from .io.output_store import OutputStore

logger = logging.getLogger(__name__)


class OutputHooks:
    """Every output carries a digest of what made it; one that differs counts as missing.

    Kedro's ``--only-missing-outputs`` looks at existence alone. Here each file or folder has a ``.<name>.digest``
    beside it: a hash of the node's code, its parameters, the schema and the digests of its inputs.

    With ``output_store`` a copy of every output is put there when it is saved, and what a run starts from, or with
    ``--only-missing-outputs`` would make, is taken from there where the digests are equal.
    """

    def __init__(self) -> None:
        self._expected: dict[str, str] = {}
        self._catalog: DataCatalog | None = None
        self._store: OutputStore | None = None

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Remove stale outputs where only missing ones are made; refuse inputs that are stale or were never made."""
        from kedro.framework.project import pipelines

        names = run_params.get("pipeline_names") or ["__default__"]
        full = sum((pipelines[name] for name in (*names, "prepare")), Pipeline([]))
        self._catalog = catalog
        self._expected = expected_digests(full, catalog)
        self._store = output_store(catalog)
        inputs, only_missing = pipeline.inputs() & full.all_outputs(), run_params.get("only_missing_outputs")
        if self._store is not None:
            self._exchange(sorted(inputs | (pipeline.all_outputs() if only_missing else set())))
        for name in sorted(inputs):
            check_input(name, catalog, self._expected)
        if only_missing:
            for name in sorted(pipeline.all_outputs()):
                forget_stale_output(name, catalog, self._expected)

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Whatever is there now is no longer what its digest says."""
        path = self._place(dataset_name)
        if path:
            digest_file(path).unlink(missing_ok=True)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Stamp what was written, and put a copy of it into the store."""
        path = self._place(dataset_name)
        if path:
            self._stamp(path, self._expected[dataset_name])
            if self._store is not None and self._shared(dataset_name, path):
                self._store.put(path, self._expected[dataset_name])

    def _place(self, name: str) -> Path | None:
        """Of an output that has a digest."""
        return place_of(self._catalog, name) if self._catalog is not None and name in self._expected else None

    def _exchange(self, names: Iterable[str]) -> None:
        """Take what is not here, or stale, from the store; put what an earlier run that did not reach it could not."""
        assert self._store is not None
        taken = 0
        for name in names:
            path = self._place(name)
            if path is None or not self._shared(name, path):
                continue
            expected = self._expected[name]
            if path.exists() and not is_stale(path, expected):
                mark = self._store.mark(path)
                if mark is None or mark.digest != expected:
                    self._store.put(path, expected)
            elif self._store.bring(path, expected):
                self._stamp(path, expected)
                taken += 1
        if taken:
            logger.info("%d outputs were taken from %s.", taken, self._store.address)

    def _shared(self, name: str, path: Path) -> bool:
        """Whether it means the same elsewhere: a report of what was written into a registry here does not."""
        assert self._store is not None
        assert self._catalog is not None
        tells_of = (getattr(self._catalog.get(name), "metadata", None) or {}).get("tells_of")
        return self._store.covers(path) and (tells_of is None or (tells_of == "mlflow" and tracking.on_a_server()))

    def _stamp(self, path: Path, digest: str) -> None:
        with replacing(digest_file(path)) as temporary:
            temporary.write_text(digest, encoding="utf-8")


def output_store(catalog: DataCatalog) -> OutputStore | None:
    """That of the run's parameters; None where they name none.

    Raises:
        ConfigurationError: it is none.
    """
    address = catalog.load("params:output_store")
    return OutputStore(address=address, data=tracking.data_folder()) if address else None
