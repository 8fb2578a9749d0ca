"""A simulated log: drawn to a seed, with the true and the blind probability of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..schema import Simulation
from . import effects
from .effects import Effect, Table
from .history import play, sigmoid
from .presets import PRESETS, Preset
from .world import Floats, Rows, World, draw_rows, make_world, shares_by_daypart, stream

ROUNDS = 12  # of finding the intercepts that give the domains their click rates


@dataclass(frozen=True, kw_only=True)
class Log:
    """N impressions and everything that made them.

    ``truth = sigmoid(intercept[domain] + base + effect)``, with ``base = Σ base_weight · table`` and
    ``effect = Σ_k weights[hidden, …, k] · signals[:, k]``.

    Attributes:
        clicked: (N,) drawn from ``truth``.
        truth: (N,) the probability of a click given everything.
        blind: (N,) the probability given everything but what the preset hides (the domain, or the cluster): the truth
            averaged over it, each value weighted by its share.
        base: the signals of the base with their weights.
        intercept: (M,).
        signals: (N, K) of the effect.
    """

    preset: Preset
    world: World
    rows: Rows
    clicked: npt.NDArray[np.bool_]
    truth: Floats
    blind: Floats
    base: tuple[tuple[float, Table], ...]
    intercept: Floats
    effect: Effect
    signals: Floats


def generate(simulation: Simulation, *, history: int = 20, part: int = 0) -> Log:
    """Draw the log that a schema's ``simulation`` section describes.

    Args:
        simulation: preset, size and seed.
        history: how many of a user's clicks the feature stage delivers, and so may matter.
        part: another number draws other impressions of the same users and items: a log too large for memory is
            several parts. What attracts is the same in all, but for each part's own standard deviations; histories do
            not go on from one part to the next.
    """
    preset, seed = PRESETS[simulation.preset], simulation.seed
    shares = domain_shares(preset, simulation.domains)
    world = make_world(seed=seed, users=simulation.users, items=simulation.items, shares=shares, swing=preset.swing)
    rows = draw_rows(world, seed=seed, rows=simulation.rows, days=simulation.days, part=part)
    base = effects.base(stream(seed, "base"), world, rows, preset.base)
    logit = np.sum([weight * table(rows) for weight, table in base], axis=0)
    prior = shares if preset.hidden == "domain" else np.bincount(rows[preset.hidden]) / len(rows)
    effect = effects.EFFECTS[preset.effect](stream(seed, "effect"), rows, prior, preset.strength)
    intercept, signals = np.full(len(shares), preset.intercept), effect.signals(rows)
    if preset.rates:
        intercept = _intercepts(preset.rates, [logit + effect(rows, signals, d) for d in range(len(shares))])
    chance = stream(seed, "clicks", part).random(len(rows))
    if effect.history:
        weights, start = effect.weights_of(rows, rows[preset.hidden]), logit + intercept[rows["domain"]]
        signals, clicked = play(rows, logit=start, weights=weights, chance=chance, length=history)
    truth, blind = _truths(preset, rows, logit, intercept, effect, signals, prior)
    return Log(
        preset=preset,
        world=world,
        rows=rows,
        clicked=clicked if effect.history else chance < truth,
        truth=truth,
        blind=blind,
        base=base,
        intercept=intercept,
        effect=effect,
        signals=signals,
    )


def domain_shares(preset: Preset, domains: int | None) -> Floats:
    """(M,): the share of impressions of each domain; they sum to 1."""
    if preset.shares:
        return np.array(preset.shares)
    sizes = 1 / np.sqrt(np.arange(1, (domains or preset.domains) + 1))
    shares: Floats = sizes / sizes.sum()
    return shares


def _truths(
    preset: Preset, rows: Rows, logit: Floats, intercept: Floats, effect: Effect, signals: Floats, prior: Floats
) -> tuple[Floats, Floats]:
    """The truth and the blind truth (N,): the latter is what the former would be for each hidden value, averaged."""
    domain = rows["domain"]
    truth = sigmoid(intercept[domain] + logit + effect(rows, signals, rows[preset.hidden]))
    if preset.effect == "nothing":
        return truth, truth
    blind = np.zeros(len(rows))
    of_row = shares_by_daypart(prior, preset.swing)[rows["daypart"]].T if preset.swing else prior
    for value, share in enumerate(of_row):
        start = intercept[value if preset.hidden == "domain" else domain]
        blind += share * sigmoid(start + logit + effect(rows, signals, value))
    return truth, blind


def _intercepts(rates: Sequence[float], logits: Sequence[Floats]) -> Floats:
    """(M,): what each domain's logits (N,) need to be raised by for their mean probability to be the domain's rate."""
    found = np.log(rates)
    for _ in range(ROUNDS):
        means = [sigmoid(start + logit).mean() for start, logit in zip(found, logits, strict=True)]
        found = found + np.log(rates) - np.log(means)
    return found
