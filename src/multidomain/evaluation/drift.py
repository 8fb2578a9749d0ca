"""Drift: how far the values of every feature differ between splits, and between domains.

The measure is the population stability index of two sets of rows with the shares a_i and b_i of value i,

    PSI = Σ_i (a_i - b_i) ln(a_i / b_i)

(N. Siddiqi, *Credit Risk Scorecards*, 2006; the symmetric divergence of Jeffreys, 1946). In common use below 0.1 is
little, and above 0.25 a significant shift.

**Values.** Ids keep to the 50 most frequent training values, which the encoder gives the ids 2 to 51; all others are
one value (of a number in more than 50 buckets: the uppermost ones), so that what changes among them is not seen.
Unknown (1) is a value, as is, of a bag, none at all (0). A bag of several values counts with each of them. Numbers that
are not bucketed, and the lengths of histories, are cut at the training rows' quantiles; an empty history stays apart.

**Empty values.** A share of zero would make PSI infinite, so each share counts as at least 0.0001 (in wide use), or
half a row of the smaller set where that is more (as in Haldane 1956): so few rows say nothing of rarer values. The
floor is that of both sets; equal shares give 0, and a value that is rare in both adds nothing.

**Chance.** Two samples of one population differ, too: PSI over 50 values of 100 rows is 0.4 by chance alone. Of two
such samples of n and m independent rows PSI / (1/n + 1/m) follows a chi-square distribution with one degree of freedom
less than there are values (B. Yurdakul, *Statistical Properties of Population Stability Index*, 2018): ``chance`` is
what PSI stays below in 95 of 100 such cases. Rows of one user are not independent; with them it is somewhat more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..inputs import PADDING, UNKNOWN, InputSchema
from ..progress import progress
from ..schema import SPLITS
from ..tensors import EncodedSplit

VALUES = 50  # most frequent values with a share of their own
OTHERS = UNKNOWN + 1 + VALUES
PARTS = 20  # of a number, about equal in training rows: as many as the encoder makes buckets
SMALLEST_SHARE = 1e-4
SIGNIFICANT = 0.25
UNLIKELY = 0.05
CHUNK = 1 << 18  # rows at a time
BLOCK, BLOCKS = 1 << 10, 64  # training rows that quantiles are taken from, evenly spread

TRAIN = SPLITS[0]
AGAINST_TRAIN = {split: f"{split} against {TRAIN}" for split in SPLITS[1:]}
AGAINST_OTHERS = "domain against others"

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What was measured.

    Attributes:
        psi: one row per ``comparison``, ``domain`` (None: all rows) and ``feature``: ``psi``, ``chance``, and the rows
            of both sides, ``rows_a`` and ``rows_b``. Comparisons: ``validation against train``, ``test against train``,
            and ``domain against others``, the domain's training rows against those of all other domains. Without rows
            on one side psi and chance are NaN.
        labels: one row per ``split`` and ``domain`` (None: all rows): ``rows``, ``positives`` and their ``rate``, NaN
            without rows.
    """

    psi: pd.DataFrame
    labels: pd.DataFrame

    def shifted(self, comparison: str = AGAINST_TRAIN["test"]) -> dict[str, float]:
        """Features whose PSI over all rows is significant and not by chance, the largest first."""
        rows = self.psi[(self.psi.comparison == comparison) & self.psi.domain.isna()]
        found = rows[(rows.psi > SIGNIFICANT) & (rows.psi > rows.chance)].sort_values("psi", ascending=False)
        return dict(zip(found.feature, found.psi, strict=True))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Of one split, M known domains and the unknown one.

    ``rows`` and ``positives`` are (M+1,); ``values`` holds (M+1, B) for each feature with B values.
    """

    rows: Array
    positives: Array
    values: Mapping[str, Array]


def psi(a: Array, b: Array) -> Array:
    """The population stability index of two sets of rows.

    Args:
        a: (…, B) how often each of B values occurs.
        b: (…, B) likewise; leading dimensions are broadcast.

    Returns:
        (…,) numbers from 0 up; NaN where a set is empty.
    """
    share_a, share_b, floor = _shares(a, b)
    share_a, share_b = np.maximum(share_a, floor), np.maximum(share_b, floor)
    return np.asarray(((share_a - share_b) * np.log(share_a / share_b)).sum(-1))


def chance(a: Array, b: Array) -> Array:
    """What :func:`psi` stays below in 95 of 100 cases where both sets are of one population: (…,), NaN as there."""
    from scipy.special import chdtri

    share_a, share_b, floor = _shares(a, b)
    known = (np.maximum(share_a, share_b) > floor).sum(-1)
    bound = np.where(known > 1, chdtri(np.maximum(known - 1, 1), UNLIKELY), 0.0)
    return np.asarray((1 / _rows(a) + 1 / _rows(b))[..., 0] * bound)


def measure(
    encoded: Path | str, *, histories: Mapping[str, str] | None = None, chunk: int = CHUNK, shown: bool = True
) -> Drift:
    """Compare the splits of an encoded variant with each other, and its domains.

    Args:
        encoded: the folder, as :mod:`multidomain.tensors` describes it.
        histories: what each history is called -> one of its fields, whose lengths are taken. Default: every field.
        chunk: rows read at a time; memory does not grow with the rows, but for a byte or two per user state.
        shown: whether a progress bar is drawn.

    Raises:
        DataError: a file of the folder is missing or damaged.
    """
    splits = {split: EncodedSplit(encoded, split) for split in SPLITS}
    inputs, domains = splits[TRAIN].inputs, splits[TRAIN].domains
    total = sum(len(rows) for rows in splits.values())
    fields = {name: name for name in inputs.history} if histories is None else histories
    lengths = {f"{name} (length)": _lengths(splits[TRAIN], field, chunk) for name, field in fields.items()}
    edges = _edges(splits[TRAIN], lengths)
    with progress(total=total, what="drift", shown=shown) as bar:
        counted = {split: _count(rows, lengths, edges, chunk, bar.update) for split, rows in splits.items()}
    return compare(counted, domains)


def compare(counted: Mapping[str, Counts], domains: Sequence[str]) -> Drift:
    """The tables of a :class:`Drift` from the counts of each split.

    Rows of the unknown domain are in the sums and have no line of their own.
    """
    train = counted[TRAIN]
    parts = []
    for split, comparison in AGAINST_TRAIN.items():
        rows = _with_sum(counted[split].rows), _with_sum(train.rows)
        for name, values in counted[split].values.items():
            sides = _with_sum(values), _with_sum(train.values[name])
            parts.append(_part(comparison, [None, *domains], name, sides, rows))
    rows = train.rows[:-1], train.rows.sum() - train.rows[:-1]
    for name, values in train.values.items():
        parts.append(_part(AGAINST_OTHERS, domains, name, (values[:-1], values.sum(0) - values[:-1]), rows))
    labels = []
    for split, counts in counted.items():
        number, positives = _with_sum(counts.rows), _with_sum(counts.positives)
        rate = np.divide(positives, number, out=np.full(len(number), np.nan), where=number > 0)
        table = {"split": split, "domain": [None, *domains], "rows": number, "positives": positives, "rate": rate}
        labels.append(pd.DataFrame(table))
    return Drift(psi=pd.concat(parts, ignore_index=True), labels=pd.concat(labels, ignore_index=True))


def _part(
    comparison: str, domains: Sequence[str | None], feature: str, sides: tuple[Array, Array], rows: tuple[Array, Array]
) -> pd.DataFrame:
    """One comparison of one feature in K domains: sides (K, B), rows (K,)."""
    return pd.DataFrame(
        {
            "comparison": comparison,
            "domain": pd.Series(list(domains), dtype=object),
            "feature": feature,
            "psi": psi(*sides),
            "chance": chance(*sides),
            "rows_a": rows[0],
            "rows_b": rows[1],
        }
    )


def _with_sum(values: Array) -> Array:
    """(M+1, …) -> (1+M, …): the sum over all domains, then the known ones."""
    return np.concatenate([values.sum(0, keepdims=True), values[:-1]])


def _shares(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The shares of both (…, B), NaN without rows, and what a share counts as at least (…, 1)."""
    return a / _rows(a), b / _rows(b), np.maximum(SMALLEST_SHARE, 0.5 / np.minimum(_rows(a), _rows(b)))


def _rows(counts: Array) -> Array:
    """(…, B) -> (…, 1), NaN in the place of zero."""
    rows = np.asarray(counts, dtype=np.float64).sum(-1, keepdims=True)
    return np.where(rows > 0, rows, np.nan)


# --- counting ----------------------------------------------------------------------------------------------------


def _count(
    split: EncodedSplit,
    lengths: Mapping[str, Array],
    edges: Mapping[str, Array],
    chunk: int,
    done: Callable[[int], Any],
) -> Counts:
    """How often each value of each feature occurs in each domain, chunk by chunk."""
    domains = split.inputs.domains + 1
    rows, positives = np.zeros(domains, np.int64), np.zeros(domains, np.int64)
    values: dict[str, Array] = {}
    for arrays in _chunks(split, chunk):
        domain = arrays["domain"].astype(np.int64)
        rows += np.bincount(domain, minlength=domains)
        positives += np.bincount(domain[arrays["label"] == 1], minlength=domains)
        for name, size, of, value in _valued(split.inputs, arrays, domain, lengths, edges):
            found = np.bincount(of * size + value, minlength=domains * size).reshape(domains, size)
            values[name] = found if name not in values else np.add(values[name], found, out=values[name])
        done(len(domain))
    return Counts(rows=rows, positives=positives, values=values)


def _valued(
    inputs: InputSchema,
    arrays: Mapping[str, Array],
    domain: Array,
    lengths: Mapping[str, Array],
    edges: Mapping[str, Array],
) -> Iterator[tuple[str, int, Array, Array]]:
    """Of each feature its name, B, and for every value met its domain and its number (0 to B-1)."""
    for column, name in enumerate(inputs.categorical):
        yield name, OTHERS + 1, domain, np.minimum(arrays["categorical"][:, column], OTHERS)
    for name in inputs.bags:
        ids = arrays[f"bag_{name}"]
        met = ids != PADDING
        met[:, :1] = True  # padding stands on the right: here it means that there is no value at all
        yield name, OTHERS + 1, np.repeat(domain, met.sum(1)), np.minimum(ids[met], OTHERS)
    numbers = {name: arrays["numerical"][:, column] for column, name in enumerate(inputs.numerical)}
    for name, known in (numbers | {name: length[arrays["state"]] for name, length in lengths.items()}).items():
        yield name, len(edges[name]) + 1, domain, np.searchsorted(edges[name], known, side="right")


def _edges(train: EncodedSplit, lengths: Mapping[str, Array]) -> dict[str, Array]:
    """Where numbers and lengths are cut, from at most ``BLOCK * BLOCKS`` training rows."""
    rows, arrays = _spread(len(train)), train.arrays()
    numbers = {name: arrays["numerical"][rows, column] for column, name in enumerate(train.inputs.numerical)}
    cuts = {name: _quantiles(values) for name, values in numbers.items()}
    for name, length in lengths.items():
        cuts[name] = np.unique(np.append(_quantiles(length[arrays["state"][rows]]), 1))
    return cuts


def _quantiles(values: Array) -> Array:
    """The distinct cuts into ``PARTS`` parts."""
    if not len(values):
        return np.zeros(0)
    return np.unique(np.quantile(values.astype(np.float64), np.arange(1, PARTS) / PARTS))


def _spread(rows: int) -> Array:
    """Row numbers in blocks, so that only the pages of these blocks are read."""
    if rows <= BLOCK * BLOCKS:
        return np.arange(rows)
    return (np.linspace(0, rows - BLOCK, BLOCKS).astype(np.int64)[:, None] + np.arange(BLOCK)).reshape(-1)


def _lengths(split: EncodedSplit, field: str, chunk: int) -> Array:
    """The number of items in the history of every user state (S,), in as few bytes as it takes."""
    states = len(split.arrays()[f"states/{field}"])
    lengths = np.zeros(states, np.min_scalar_type(split.inputs.history_length))
    for start in range(0, states, chunk):
        part = EncodedSplit(split.folder, split.split).arrays()[f"states/{field}"][start : start + chunk]
        lengths[start : start + chunk] = (part != PADDING).sum(1)
    return lengths


def _chunks(split: EncodedSplit, rows: int) -> Iterator[dict[str, Array]]:
    """The arrays of a split, ``rows`` rows at a time.

    The files are mapped anew for each part: pages of a map that is still open count as memory of this process, and all
    of them together would be the whole split.
    """
    for start in range(0, len(split), rows):
        arrays = EncodedSplit(split.folder, split.split).arrays()
        yield {name: array[start : start + rows] for name, array in arrays.items() if not name.startswith("states/")}
