"""The champion of a model on rows of today, to measure another version against."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .. import tracking
from ..errors import DataError
from . import registry
from .package import CHAMPION

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

logger = logging.getLogger(__name__)
CHUNK = 65_536  # rows in memory at a time


def current(key: str, architecture: str) -> tuple[str, str] | None:
    """Name and version of the champion of ``key`` (``<dataset>/<variant>``); None where there is none yet.

    Raises:
        MlflowException: its server does not answer.
    """
    from mlflow.exceptions import MlflowException

    name = tracking.model_name(key, architecture)
    try:
        return name, str(tracking.connect().get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise  # the server did not answer: that is not "no champion", which would open the gate
        return None


def scores(name: str, version: str, rows: ir.Table) -> pa.Table:
    """``impression_id, score`` of rows as the feature stage delivers them.

    Raises:
        DataError: the model cannot be loaded or reads columns that the rows do not have.
    """
    import pyarrow as pa

    from ..progress import progress

    scorer = _loaded(name, version)
    missing = [column for column in scorer.columns if column not in rows.columns]
    if missing:
        raise DataError(f"{name} version {version} reads {', '.join(missing)}, which the features no longer have.")
    chosen = rows.select("impression_id", *scorer.columns)
    wanted = pa.schema(list(scorer.columns.items()))
    ids, found = [], []
    with progress(total=int(rows.count().execute()), what=f"score with version {version}") as bar:
        for batch in chosen.to_pyarrow_batches(chunk_size=CHUNK):
            part = pa.Table.from_batches([batch])
            ids.append(part.column("impression_id"))
            found.append(pa.array(scorer.score(part.select(wanted.names).cast(wanted))))
            bar.update(len(part))
    kind = chosen.schema()["impression_id"].to_pyarrow()
    together = pa.chunked_array([chunk for column in ids for chunk in column.chunks], kind)
    return pa.table({"impression_id": together, "score": pa.chunked_array(found, pa.float64())})


def _loaded(name: str, version: str) -> Any:
    try:
        return registry.scorer(name, version)
    except Exception as error:  # whatever an older package's own code raises
        raise DataError(f"{name} version {version} cannot be loaded: {type(error).__name__}: {error}") from error
