"""Which negatives an epoch meets, and what that does to the probabilities a network learns.

He et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", section 6.3: where a share w of the
negatives is kept, a network learns p of the sampled rows, and of all rows q = p / (p + (1 - p) / w). In logits that is
``logit(q) = logit(p) + log w``.
``fit`` gives the model that offset (``logit_offset``), and takes its loss at ``logit - log w``: the network itself
learns p, from where it begins without sampling, and what the model gives, in validation, in a package and in every
other form of it, is q. A warm start keeps the offset of the model it starts from, whatever the rate now.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ConfigurationError

_STREAM = 0x6E6567  # draws of rows beside those of their order, which stay as they are without sampling


class SampledRows:
    """All positives, and of the negatives a share that is drawn anew for each epoch.

    Args:
        label: (N,) zeros and ones.
        rate: w, the share of the negatives that is kept, above 0 and at most 1.
        seed: with the epoch, decides which.

    Attributes:
        size: rows of an epoch, the same in each.

    Raises:
        ConfigurationError: no negative would be left.
    """

    def __init__(self, label: np.ndarray, *, rate: float, seed: int) -> None:
        self.rate, self.seed = rate, seed
        positive = np.asarray(label) > 0.5
        self._rows, self._positive = len(positive), positive
        negatives = self._rows - int(np.count_nonzero(positive))
        self._kept = round(rate * negatives)
        self.size = self._rows - negatives + self._kept
        if negatives and not self._kept:
            raise ConfigurationError(
                f"training: negative_rate {rate:g} leaves none of {negatives:,} negative training rows. Choose a "
                "larger one: a few negatives per positive row are usual."
            )

    def rows(self, epoch: int) -> np.ndarray:
        """The rows of an epoch, ascending: int64 (size,)."""
        random = np.random.default_rng([self.seed, epoch, _STREAM])
        negative = np.flatnonzero(~self._positive)
        drawn = random.choice(len(negative), self._kept, replace=False, shuffle=False)
        chosen = self._positive.copy()
        chosen[negative[drawn]] = True
        return np.flatnonzero(chosen)


def offset(rate: float) -> float:
    """log w: what is added to the logit of a sampled row's probability to have that of a row as it came."""
    return math.log(rate)
