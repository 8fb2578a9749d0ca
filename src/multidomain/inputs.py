"""What a model must know of its inputs: names, vocabulary sizes and the number of domains.

Made by the encoder when a variant is encoded, stored beside its tensors, and all that
:func:`multidomain.models.build` is given. It imports nothing of the project, so a packaged model carries it along.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DOMAIN = "domain"  # the column that names it
PADDING, UNKNOWN = 0, 1  # ids of every vocabulary: row 0 is padding, row 1 stands for what training never saw


@dataclass(frozen=True, kw_only=True)
class InputSchema:
    """The inputs of one encoded variant.

    Attributes:
        domains: M, the number of known domains. Domain id M means "unknown".
        vocabularies: rows of each vocabulary, padding and unknown included, in the order of the embedding table.
        categorical: the columns of ``Batch.categorical``; each is the name of its vocabulary.
        numerical: the columns of ``Batch.numerical``, each to be multiplied with a learnt vector.
        history: history field -> the vocabulary it shares with the candidate field it is compared with.
        history_length: T.
        bags: multi-valued field -> its vocabulary.
        distribution: the categorical fields that describe the data distribution (HMDN, ADS).
        owners: field -> user, item, context, domain …: whose property it is (AdaptDHM's user-wise routing).
    """

    domains: int
    vocabularies: Mapping[str, int]
    categorical: tuple[str, ...] = ()
    numerical: tuple[str, ...] = ()
    history: Mapping[str, str] = field(default_factory=dict)
    history_length: int = 0
    bags: Mapping[str, str] = field(default_factory=dict)
    distribution: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.domains < 1:
            raise ValueError(f"domains must be at least 1, got {self.domains}")
        for name in (*self.categorical, *self.history.values(), *self.bags.values()):
            if name not in self.vocabularies:
                raise ValueError(f"field '{name}' has no vocabulary; there are {', '.join(self.vocabularies)}")
        for name in self.distribution:
            if name not in self.categorical:
                raise ValueError(
                    f"distribution field '{name}' is not categorical; there are {', '.join(self.categorical)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> InputSchema:
        """The inverse of :meth:`to_dict`."""
        values = dict(raw)
        for name in ("categorical", "numerical", "distribution"):
            values[name] = tuple(values[name])
        return cls(**values)
