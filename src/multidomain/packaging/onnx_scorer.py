"""What a package's ONNX file is scored with: the same rows, the same encoder, onnxruntime instead of PyTorch.

This module and what it imports are copied into every package, as :mod:`.scorer` is; neither needs the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..calibration import Calibration, logistic
from ..encoder import Encoder
from .rows import RowScorer

AT_ONCE = 2048  # rows given to the graph at a time: it holds numbers for each domain or cluster among them
ABOUT, GRAPH = "onnx.json", "model.onnx"


class OnnxScorer(RowScorer):
    """An encoder and a graph.

    Args:
        encoder: the one the graph's network was trained with.
        session: an ``onnxruntime.InferenceSession``.
        by_domain: whether the graph has a network for each domain: it is given the rows of one at a time then.
        calibration: None: a probability is the logistic function of the logit.
    """

    def __init__(
        self, *, encoder: Encoder, session: Any, by_domain: bool, calibration: Calibration | None = None
    ) -> None:
        super().__init__(encoder=encoder, calibration=calibration)
        self.session, self.by_domain = session, by_domain
        self._inputs = [one.name for one in session.get_inputs()]

    @classmethod
    def load(cls, encoder: Path | str, model: Path | str, *, threads: int = 0) -> OnnxScorer:
        """Read both from their folders; ``threads`` 0 leaves their number to onnxruntime.

        Raises:
            ImportError: onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("An ONNX file is scored by onnxruntime: pip install onnxruntime.") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # idle threads leave the cores to others
        session = onnxruntime.InferenceSession(str(Path(model) / GRAPH), options, providers=["CPUExecutionProvider"])
        about = json.loads((Path(model) / ABOUT).read_text(encoding="utf-8"))
        calibration = Calibration.read(Path(model))
        fitted = Encoder.load(Path(encoder))
        return cls(encoder=fitted, session=session, by_domain=about["by_domain"], calibration=calibration)

    def _score(self, part: pa.Table, shared: pa.Table | None) -> npt.NDArray[np.float64]:
        given = self.encoder.arrays(part, shared)
        logits = np.empty(len(part), dtype=np.float64)
        for rows in self._groups(given["domain"]):
            feed = {name: np.ascontiguousarray(given[name][rows]) for name in self._inputs}
            logits[rows] = self.session.run(None, feed)[0]
        if self.calibration is None:
            return logistic(logits)
        return self.calibration.probabilities(logits, given["domain"].astype(np.int64))

    def _groups(self, domain: npt.NDArray[np.int32]) -> Iterator[Any]:
        """The rows to be scored at once: neighbours, or those of one domain."""
        if not self.by_domain or (domain == domain[0]).all():
            yield from (slice(start, start + AT_ONCE) for start in range(0, len(domain), AT_ONCE))
            return
        order = np.argsort(domain, kind="stable")
        ends = np.flatnonzero(np.diff(domain[order])) + 1
        for rows in np.split(order, ends):
            yield from (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
