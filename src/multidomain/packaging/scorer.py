"""What a packaged model does: rows as the feature stage delivers them in, one probability per row out.

This module and what it imports are copied into every package under a name of the package's own, so that a model
scores with the code it was trained with, whatever is installed and whichever other versions are loaded beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from safetensors.torch import load_file

from ..encoder import Encoder
from ..inputs import InputSchema
from ..models import build, build_serving

CHUNK = 16_384  # rows scored at a time
_VALUES = {"string": pa.string(), "int": pa.int64(), "float": pa.float64()}


class Scorer:
    """An encoder and a model.

    Args:
        encoder: fitted on the training split of the variant the model was trained on.
        model: in evaluation mode; gives one logit per row of a batch.
    """

    def __init__(self, *, encoder: Encoder, model: torch.nn.Module) -> None:
        self.encoder, self.model = encoder, model
        self.columns = columns(encoder)

    @classmethod
    def load(cls, encoder: Path | str, model: Path | str) -> Scorer:
        """Read both from their folders."""
        return cls(encoder=Encoder.load(Path(encoder)), model=restore(Path(model)))

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The column ``score``, with the index of ``frame``; other columns than :attr:`columns` are passed over.

        Raises:
            ValueError: a column is missing or holds values of another type; the message names it.
        """
        return pd.DataFrame({"score": self.score(self.table(frame))}, index=frame.index)

    def table(self, frame: pd.DataFrame) -> pa.Table:
        """The columns the encoder reads, in the types it was fitted on."""
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise ValueError(f"The rows lack {_listed(missing)}. The model reads {_listed(self.columns)}.")
        return pa.table({name: _column(frame[name], name, kind) for name, kind in self.columns.items()})

    def score(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """Probabilities (N,) of N rows, in their order."""
        return self._score(table, None)

    def score_candidates(self, candidates: pa.Table, shared: pa.Table) -> npt.NDArray[np.float64]:
        """Probabilities (N,) of N candidates of one request; what they share is encoded, looked up and pooled once.

        Args:
            candidates: N rows of the columns in which they differ.
            shared: one row of the others: the user's, say.
        """
        return self._score(candidates, shared)

    @torch.inference_mode()
    def _score(self, table: pa.Table, shared: pa.Table | None) -> npt.NDArray[np.float64]:
        scores = np.empty(len(table), dtype=np.float64)
        for start in range(0, len(table), CHUNK):
            part = table.slice(start, CHUNK)
            logits = self.model(self.encoder.batch(part, shared))
            scores[start : start + len(part)] = torch.sigmoid(logits.double()).numpy()
        return scores


def columns(encoder: Encoder) -> dict[str, pa.DataType]:
    """The columns a scorer with this encoder reads, and their types."""
    types: dict[str, pa.DataType] = {"domain": pa.string()}
    for field in encoder.fields:
        if field.kind in ("bucket", "value"):
            types[field.name] = pa.float64()
        elif field.kind == "bag":
            types[field.name] = pa.list_(_VALUES[field.value_type])
        else:
            types[field.name] = _VALUES[field.value_type]
    for name, vocabulary in encoder.history.items():
        known = encoder.hashed if vocabulary in encoder.hashed else encoder.vocabularies
        types[name] = pa.list_(known[vocabulary].type)
    return types


def restore(folder: Path) -> Any:
    """A model in evaluation mode from ``model.json`` and ``weights.safetensors``.

    With ``"serving": true`` the weights are those of the model's ``serving_form()``, folded once.
    """
    about: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    architecture, inputs, config = about["architecture"], InputSchema.from_dict(about["inputs"]), dict(about["config"])
    if about.get("serving"):
        config.pop("max_domain_weight_gib", None)  # a limit of training
        model = build_serving(architecture, inputs, **config)
    else:
        model = build(architecture, inputs, **config)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval()


def _column(series: pd.Series, name: str, kind: pa.DataType) -> pa.Array:
    try:
        try:
            return pa.Array.from_pandas(series, type=kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            return pa.Array.from_pandas(series).cast(kind)  # whole numbers kept as floats, ids kept as numbers
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        example = next((value for value in series if isinstance(value, list | np.ndarray) or not pd.isna(value)), None)
        raise ValueError(f"Column '{name}' must hold {kind}, it has values such as {example!r}: {error}.") from error


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
