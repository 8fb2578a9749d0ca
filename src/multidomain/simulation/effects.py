"""What makes people click: a base that holds everywhere, and one function per effect.

Everything is a sum of signals, each a number that features decide, times weights. An effect is K signals and, for each
domain (or cluster), K weights: ``effect(row) = Σ_k weights[domain, k] · signal_k(row)``. So the truth of a row is known
under every domain, which is what the blind truth averages over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .world import ITEM, PROFILE, Floats, Ints, Rows, World

FACTORS = 3  # width of the latent factors behind an affinity
AFFINITIES = (("age", "category"), ("occupation", "brand"), ("city", "price"))
TURNING = (("age",), ("hobby",), ("category",), ("price",), ("income", "brand"), ("device", "category"))
TURNING_BY_CLUSTER = (
    ("category",),
    ("brand",),
    ("price",),
    ("daypart",),
    ("daypart", "category"),
    ("daypart", "brand"),
)
COMBINATIONS = (
    ("age", "price"),
    ("occupation", "category"),
    ("income", "daypart"),
    ("hobby", "brand"),
    ("device", "price"),
    ("city", "category"),
)
ACTIVE = 2  # combinations that matter in one domain
OPPOSITE = 0.3  # the share of traffic in which a signal works the other way round
WAYS = 3  # of choosing, in the hierarchy
LEVELS = (3.0, 2.0, 1.5)  # how far domain, population and source push towards one of them
WINDOWS = ((0, 4), (4, None))  # the latest clicks, and those before
MATCHES = ("category", "brand")
SPREAD = 1.0  # of the weights around 1 where every domain weighs signals its own way


@dataclass(frozen=True)
class Table:
    """A signal looked up by the codes of one or several features; mean 0 and standard deviation 1 over the rows."""

    fields: tuple[str, ...]
    values: Floats

    def __call__(self, rows: Rows) -> Floats:
        """(N,)"""
        found: Floats = self.values[tuple(rows[name] for name in self.fields)]
        return found


@dataclass(frozen=True)
class Effect:
    """K signals and their weights.

    Attributes:
        tables: the signals; none where they come from the history.
        weights: (V, …, K) for V domains or clusters; the axes between are those of ``within``.
        within: features that take part in choosing the weights.
        history: whether the signals are those of :func:`multidomain.simulation.history.matches`.
    """

    tables: tuple[Table, ...]
    weights: Floats
    within: tuple[str, ...] = ()
    history: bool = False

    def signals(self, rows: Rows) -> Floats:
        """(N, K); zeros where they come from the history, which is yet to be played."""
        signals = np.zeros((len(rows), self.weights.shape[-1]))
        for number, table in enumerate(self.tables):
            signals[:, number] = table(rows)
        return signals

    def __call__(self, rows: Rows, signals: Floats, hidden: Ints | int) -> Floats:
        """(N,) logits if all rows were of this domain or cluster, or each of its own (N,)."""
        logit: Floats = (signals * self.weights_of(rows, hidden)).sum(axis=1)
        return logit

    def weights_of(self, rows: Rows, hidden: Ints | int) -> Floats:
        """(N, K), or (K,) for one domain and no ``within``: the weights if the rows were of these domains."""
        found: Floats = self.weights[(hidden, *(rows[name] for name in self.within))]
        return found


# --- the base ----------------------------------------------------------------------------------------------------


def base(random: np.random.Generator, world: World, rows: Rows, deviation: float) -> tuple[tuple[float, Table], ...]:
    """What holds everywhere, as (weight, signal): features, affinities, and an item's own quality.

    Their sum has this standard deviation.
    """
    single = [*PROFILE, *ITEM, "daypart"]
    mains = [_main(random, world, rows, name) for name in single]
    affinities = [_affinity(random, rows, pair) for pair in AFFINITIES]
    quality = _standard(("item",), random.normal(size=rows.cards["item"]), rows)
    parts = [
        *((math.sqrt(0.65 / len(mains)), table) for table in mains),
        *((math.sqrt(0.25 / len(affinities)), table) for table in affinities),
        (math.sqrt(0.10), quality),
    ]
    whole = float(np.sum([weight * table(rows) for weight, table in parts], axis=0).std()) or 1.0
    return tuple((weight * deviation / whole, table) for weight, table in parts)


def _main(random: np.random.Generator, world: World, rows: Rows, name: str) -> Table:
    """One number per value of a feature; of a profile feature, much of it is common to values that lean alike."""
    values = random.normal(size=rows.cards[name])
    if name in world.lean:
        values = values + 2.0 * random.normal(size=world.lean[name].max() + 1)[world.lean[name]]
    return _standard((name,), values, rows)


def _affinity(random: np.random.Generator, rows: Rows, pair: Sequence[str]) -> Table:
    """The dot products of latent factors of a user's and an item's values, less what each does alone."""
    user, item = (random.normal(size=(rows.cards[name], FACTORS)) for name in pair)
    return _standard(tuple(pair), _centred(user @ item.T), rows)


def _combination(random: np.random.Generator, rows: Rows, pair: Sequence[str]) -> Table:
    """Whether two values are of one kind: half the values of a feature are of either, and neither is better alone."""
    kinds = [np.where(random.permutation(rows.cards[name]) % 2, 1.0, -1.0) for name in pair]
    return _standard(tuple(pair), np.multiply.outer(*kinds), rows)


def _centred(values: Floats) -> Floats:
    """A matrix with rows and columns of mean 0."""
    centred: Floats = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return centred


def _standard(fields: tuple[str, ...], values: Floats, rows: Rows) -> Table:
    """The table with mean 0 and standard deviation 1 over these rows (0 throughout where it does not vary)."""
    seen = values[tuple(rows[name] for name in fields)]
    return Table(fields, (values - seen.mean()) / (seen.std() or 1.0))


# --- the effects -------------------------------------------------------------------------------------------------


def nothing(random: np.random.Generator, rows: Rows, shares: Floats, strength: float) -> Effect:
    """No effect: every domain is like the others."""
    del random, rows, strength
    return Effect((), np.zeros((len(shares), 0)))


def weighing(random: np.random.Generator, rows: Rows, shares: Floats, strength: float) -> Effect:
    """Every domain weighs the same signals its own way: weights around 1, some near 2, some below 0.

    Over the traffic they have mean 1 and standard deviation SPREAD.
    """
    tables = _turning(random, rows)
    own = random.normal(size=(len(shares), len(tables)))
    own -= shares @ own
    own /= np.sqrt(shares @ own**2)
    return Effect(tables, (1.0 + SPREAD * own) * strength / np.sqrt(len(tables)))


def opposite(random: np.random.Generator, rows: Rows, shares: Floats, strength: float) -> Effect:
    """Each signal counts in most domains as it is and in some, about 30 % of the traffic, the other way round."""
    return _opposite(random, TURNING, rows, shares, strength)


def clusters(random: np.random.Generator, rows: Rows, shares: Floats, strength: float) -> Effect:
    """The same by hidden clusters of users, of signals that say nothing about the cluster: ``shares`` are theirs."""
    return _opposite(random, TURNING_BY_CLUSTER, rows, shares, strength)


def hierarchy(random: np.random.Generator, rows: Rows, shares: Floats, strength: float) -> Effect:
    """Domain, population and source each push towards one of three ways of choosing; the softmax of their sum blends.

    The domain pushes hardest, the population may turn it, the source tips what is left open.
    """
    tables = _turning(random, rows)
    types = (len(shares), rows.cards["population"], rows.cards["source"])
    d, p, s = (level * _pushes(random, size) for level, size in zip(LEVELS, types, strict=True))
    logits = d[:, None, None] + p[None, :, None] + s[None, None, :]  # (M, P, S, ways)
    blend = np.exp(logits - logits.max(axis=-1, keepdims=True))
    blend /= blend.sum(axis=-1, keepdims=True)
    ways = np.stack([np.roll([1.0, 1.0, -1.0, -1.0, 1.0, -1.0], 2 * way) for way in range(WAYS)])
    return Effect(tables, blend @ ways * strength / np.sqrt(len(tables)), within=("population", "source"))


def combinations(random: np.random.Generator, rows: Rows, shares: Floats, strength: float) -> Effect:
    """Two of six combinations of features matter in each domain; one value alone says nothing."""
    tables = tuple(_combination(random, rows, pair) for pair in COMBINATIONS)
    order = np.concatenate([random.permutation(len(tables)) for _ in range(ACTIVE * len(shares) // len(tables) + 1)])
    weights = np.zeros((len(shares), len(tables)))
    for domain in range(len(shares)):
        weights[domain, order[ACTIVE * domain : ACTIVE * (domain + 1)]] = 1.0
    return Effect(tables, weights * strength / np.sqrt(ACTIVE))


def interest(random: np.random.Generator, rows: Rows, shares: Floats, strength: float) -> Effect:
    """Which earlier clicks matter: the latest or those before, compared by category or by brand; for or against."""
    del rows
    kinds = len(WINDOWS) * len(MATCHES)
    first = np.arange(len(shares)) % kinds
    signs = np.where(np.arange(len(shares)) // kinds % 2 == 0, 1.0, -1.0)
    order = random.permutation(len(shares))
    weights = np.zeros((len(shares), kinds))
    weights[order, first] = signs
    return Effect((), weights * strength, history=True)


Maker = Callable[[np.random.Generator, Rows, Floats, float], Effect]
EFFECTS: Mapping[str, Maker] = {
    "nothing": nothing,
    "weighing": weighing,
    "opposite": opposite,
    "clusters": clusters,
    "hierarchy": hierarchy,
    "combinations": combinations,
    "interest": interest,
}


def _turning(random: np.random.Generator, rows: Rows, fields: Sequence[tuple[str, ...]] = TURNING) -> tuple[Table, ...]:
    """Signals that are weighed differently from place to place: of single features, and of pairs."""
    return tuple(
        _standard(names, random.normal(size=rows.cards[names[0]]), rows)
        if len(names) == 1
        else _affinity(random, rows, names)
        for names in fields
    )


def _opposite(
    random: np.random.Generator, fields: Sequence[tuple[str, ...]], rows: Rows, shares: Floats, strength: float
) -> Effect:
    tables = _turning(random, rows, fields)
    signs = np.stack([_signs(random, shares) for _ in tables], axis=1)
    return Effect(tables, signs * strength / np.sqrt(len(tables)))


def _signs(random: np.random.Generator, shares: Sequence[float] | Floats) -> Floats:
    """+1 or -1 per domain: -1 for as many, in random order, as come closest to the share OPPOSITE of the traffic."""
    order = random.permutation(len(shares))
    traffic = np.concatenate([[0.0], np.cumsum(np.asarray(shares)[order])])
    signs = np.ones(len(shares))
    signs[order[: int(np.abs(traffic - OPPOSITE).argmin())]] = -1.0
    return signs


def _pushes(random: np.random.Generator, size: int) -> Floats:
    """(size, ways): each value pushes towards one of the ways, every way as often as the others."""
    pushes: Floats = np.eye(WAYS)[random.permutation(np.arange(size) % WAYS)]
    return pushes
