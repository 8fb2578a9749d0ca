"""How much each training row counts."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigurationError, DataError
from ..tensors import EncodedSplit


def sample_weights(split: EncodedSplit) -> np.ndarray:
    """float32 (N,), of mean 1, so that learning rates keep their meaning.

    Raises:
        ConfigurationError: the schema names no column of weights.
        DataError: rows have none that can be used, all are 0; the message counts them.
    """
    if split.weight is None:
        raise ConfigurationError(
            "training: sample_weight is true, but the rows have no weights. Name their column in the schema, "
            "'roles: {weight: <column of the impressions>}', and prepare again."
        )
    weight = np.asarray(split.weight, dtype=np.float64)
    odd, negative = ~np.isfinite(weight), weight < 0
    bad = odd | negative
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"training: {int(bad.sum()):,} of {len(weight):,} rows of the {split.split} split have no usable weight: "
            f"{int(odd.sum()):,} missing or not finite, {int(negative.sum()):,} below 0; the first is row {first} with "
            f"{weight[first]:g} ({split.folder}). A weight is a finite number of at least 0. Put the column right "
            "(roles.weight of the schema), or train without (sample_weight: false)."
        )
    mean = float(weight.mean()) if len(weight) else 1.0
    if mean == 0:
        raise DataError(
            f"training: the weights of all {len(weight):,} rows of the {split.split} split are 0: there is nothing to "
            "learn from. Put the column right (roles.weight of the schema), or train without (sample_weight: false)."
        )
    return (weight / mean).astype(np.float32)
