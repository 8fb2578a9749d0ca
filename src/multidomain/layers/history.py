"""Interest extraction: the history of a row as vectors to put beside its other fields, chosen in configuration.

``mean``: the mean of each history field (done by the embedding itself).
"""

from __future__ import annotations

from torch import nn

HISTORIES = ("mean",)


def history(name: str) -> nn.Module | None:
    """The encoder of that name; None for ``mean``.

    Raises:
        ValueError: a name not in ``HISTORIES``.
    """
    if name == "mean":
        return None
    raise ValueError(f"no history encoder is called '{name}'; there are {', '.join(HISTORIES)}")
