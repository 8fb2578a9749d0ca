"""Users, items and impressions before anybody clicks.

Everything is a code, 0 … card-1, of a small categorical feature. Domains, items and sources are drawn independently of
the user, so that the chance of a domain given everything else is its share.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CLUSTERS = 4
LEAN = 0.7  # how often a user's value is one of those that their own group leans to
PROFILE: Mapping[str, int] = {"age": 8, "city": 12, "occupation": 8, "income": 4, "hobby": 8, "device": 4}
ITEM: Mapping[str, int] = {"category": 10, "brand": 12, "price": 5}
DAYPARTS, POPULATIONS, SOURCES = 4, 5, 5
START = np.datetime64("2024-01-01", "us")
SECONDS_PER_DAY = 86_400
PEAK = 9 / 24  # of the day: when the domains of the morning have most traffic, and those of the evening least


@dataclass(frozen=True, kw_only=True)
class World:
    """Who and what there is.

    Attributes:
        lean: profile feature -> (card,): the cluster each of its values leans to.
        profile: profile feature, ``population`` -> (U,).
        cluster: (U,): the cluster that most of a user's profile values lean to (ties: the lowest); known from the
            profile alone, but from no single feature.
        item: item feature -> (I,).
        activity: (U,): the share of impressions each user has.
        popularity: (I,): the share of impressions each item has.
        shares: (M,): the share of impressions each domain has; on average, where they swing.
        swing: see :class:`.presets.Preset`.
    """

    lean: Mapping[str, Ints]
    profile: Mapping[str, Ints]
    cluster: Ints
    item: Mapping[str, Ints]
    activity: Floats
    popularity: Floats
    shares: Floats
    swing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N impressions: those of a user stand together, in order of time.

    Attributes:
        features: name -> (N,) codes: every feature of user, item and context, and ``domain`` and ``cluster``.
        cards: name -> number of codes.
        position: (N,): how many impressions the user had before.
        time: (N,) microseconds since 1970, strictly increasing within a user.
    """

    features: Mapping[str, Ints]
    cards: Mapping[str, int]
    position: Ints
    time: npt.NDArray[np.datetime64]

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, name: str) -> Ints:
        return self.features[name]


def stream(seed: int, name: str, part: int = 0) -> np.random.Generator:
    """Random numbers of their own for each purpose, so that one more draw somewhere changes nothing elsewhere."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *([part] if part else [])])


def make_world(*, seed: int, users: int, items: int, shares: Floats, swing: float = 0.0) -> World:
    """Users with their profiles, items with their features."""
    random = stream(seed, "world")
    lean = {name: random.permutation(np.arange(card) * CLUSTERS // card) for name, card in PROFILE.items()}
    group = random.integers(0, CLUSTERS, users)
    profile = {name: _profile(random, group, lean[name]) for name in PROFILE}
    votes = np.stack([lean[name][codes] for name, codes in profile.items()])  # (features, U)
    cluster = np.stack([(votes == number).sum(axis=0) for number in range(CLUSTERS)]).argmax(axis=0)
    profile["population"] = random.integers(0, POPULATIONS, users)
    item = {name: random.integers(0, card, items) for name, card in ITEM.items()}
    return World(
        lean=lean,
        profile=profile,
        cluster=cluster,
        item=item,
        activity=_share(random.lognormal(0.0, 0.5, users)),
        popularity=_share(random.lognormal(0.0, 0.5, items)),
        shares=shares,
        swing=swing,
    )


def draw_rows(world: World, *, seed: int, rows: int, days: int, part: int = 0) -> Rows:
    """Who sees which item, where and when."""
    random = stream(seed, "rows", part)
    users, items, domains = len(world.activity), len(world.popularity), len(world.shares)
    counts = random.multinomial(rows, world.activity)
    user = np.repeat(np.arange(users), counts)
    position = np.arange(rows) - np.repeat(np.cumsum(counts) - counts, counts)
    seconds = random.integers(0, days * SECONDS_PER_DAY, rows)
    seconds = seconds[np.lexsort((seconds, user))]
    item = random.choice(items, rows, p=world.popularity)
    features = {
        "user": user,
        **{name: codes[user] for name, codes in world.profile.items()},
        "cluster": world.cluster[user],
        "item": item,
        **{name: codes[item] for name, codes in world.item.items()},
        "domain": _domains(random, world, seconds),
        "source": random.integers(0, SOURCES, rows),
        "daypart": seconds % SECONDS_PER_DAY * DAYPARTS // SECONDS_PER_DAY,
    }
    cards = {**PROFILE, **ITEM, "population": POPULATIONS, "source": SOURCES, "daypart": DAYPARTS}
    cards |= {"user": users, "item": items, "domain": domains, "cluster": CLUSTERS}
    time = START + seconds.astype("timedelta64[s]") + position.astype("timedelta64[us]")
    return Rows(features=features, cards=cards, position=position, time=time)


def shares_at(shares: Floats, swing: float, seconds: Ints) -> Floats:
    """(N, M): the share of each domain at these seconds (N,) of the day."""
    phase = np.cos(2 * np.pi * (seconds / SECONDS_PER_DAY - PEAK))
    turned = shares * np.exp(swing * np.multiply.outer(phase, np.where(np.arange(len(shares)) % 2, -1.0, 1.0)))
    found: Floats = turned / turned.sum(axis=1, keepdims=True)
    return found


def shares_by_daypart(shares: Floats, swing: float) -> Floats:
    """(dayparts, M): the mean share of each domain in each part of the day."""
    minutes = shares_at(shares, swing, np.arange(0, SECONDS_PER_DAY, 60))
    found: Floats = minutes.reshape(DAYPARTS, -1, len(shares)).mean(axis=1)
    return found


def _domains(random: np.random.Generator, world: World, seconds: Ints) -> Ints:
    """A domain for each impression (N,), by the shares of its minute."""
    if not world.swing:
        return random.choice(len(world.shares), len(seconds), p=world.shares)
    minute = seconds % SECONDS_PER_DAY // 60
    edges = shares_at(world.shares, world.swing, np.arange(0, SECONDS_PER_DAY, 60)).cumsum(axis=1)
    edges[:, -1] = 1.0
    flat = (edges + np.arange(len(edges))[:, None]).ravel()  # minute k has its edges between k and k + 1
    at = np.searchsorted(flat, minute + random.random(len(seconds)), side="right")
    return np.asarray(at - minute * len(world.shares), np.int64)


def _profile(random: np.random.Generator, group: Ints, lean: Ints) -> Ints:
    """One profile value per user: mostly one that their group leans to, else any."""
    values = random.integers(0, len(lean), len(group))
    own = [np.flatnonzero(lean == number) for number in range(CLUSTERS)]
    typical = np.array([random.choice(own[number]) for number in group], dtype=np.int64)
    return np.where(random.random(len(group)) < LEAN, typical, values)


def _share(weights: Floats) -> Floats:
    shares: Floats = weights / weights.sum()
    return shares
