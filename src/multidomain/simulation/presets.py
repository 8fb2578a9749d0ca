"""The presets: which effect is switched on, and how strong it is.

All constants here were set by the AUC of the truth and of the domain-blind truth alone, before any model was trained on
what they make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PERCENTAGES = (
    0.99, 1.61, 3.40, 3.85, 2.79, 0.56, 4.27, 16.76, 10.00, 12.16,
    0.76, 1.31, 3.34, 28.76, 1.17, 0.46, 1.05, 0.91, 5.85,
)  # fmt: skip
CTRS = (
    2.14, 2.69, 2.97, 3.63, 2.77, 3.45, 3.59, 3.24, 3.23, 2.08,
    12.05, 3.52, 1.27, 3.75, 12.03, 4.02, 1.63, 4.64, 1.42,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What one simulated log is like.

    The logit of a click is ``intercept + base + effect``. The base (features, affinities and an item's own quality) has
    standard deviation ``base``; the effect, ``strength``, before what hides in the domain or cluster weighs it.

    Attributes:
        effect: the name of its function in :mod:`multidomain.simulation.effects`.
        hidden: what decides how the effect works and what the blind truth does not see: ``domain`` or ``cluster``.
        strength: of the effect, in logits.
        base: of what holds everywhere, in logits.
        intercept: the logit of an average row; unused where ``rates`` are given.
        domains: how many domains, unless the schema says another number.
        shares: the share of each domain; without them, domain r is 1/√r times as large as the first.
        rates: the click rate of each domain; without them, all domains have the same intercept.
        swing: how far the domains' shares swing over the day. Of a domain that peaks in the morning (nine o'clock) the
            share is ``exp(swing · cos)`` times the one in ``shares``, before all are made to sum to 1; of one that
            peaks in the evening (nine o'clock too) ``exp(-swing · cos)``. Every second domain peaks in the evening.
    """

    effect: str
    hidden: str = "domain"
    strength: float = 0.0
    base: float = 1.1
    intercept: float = -1.2
    domains: int = 8
    shares: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    swing: float = 0.0


PRESETS: Mapping[str, Preset] = {
    # STAR (Sheng et al. 2021), Table 1: 19 domains with its shares and click rates; each weighs features its own way
    "table_1": Preset(
        effect="weighing",
        strength=0.6,
        base=0.9,
        domains=19,
        shares=tuple(p / sum(PERCENTAGES) for p in PERCENTAGES),
        rates=tuple(rate / 100 for rate in CTRS),
    ),
    # the same domains, some of which have their traffic in the morning and some in the evening (STAR, section 4.4)
    "day": Preset(
        effect="weighing",
        strength=0.6,
        base=0.9,
        domains=19,
        shares=tuple(p / sum(PERCENTAGES) for p in PERCENTAGES),
        rates=tuple(rate / 100 for rate in CTRS),
        swing=1.5,
    ),
    # nothing depends on the domain
    "none": Preset(effect="nothing"),
    # what attracts in most domains puts people off in others (STAR)
    "opposite": Preset(effect="opposite", strength=0.8),
    # likewise, but by groups of users that have nothing to do with the domain (AdaptDHM)
    "clusters": Preset(effect="clusters", hidden="cluster", strength=0.8),
    # domain, population and source together decide which of three ways of choosing prevails (HMDN)
    "hierarchy": Preset(effect="hierarchy", strength=1.2),
    # which combinations of features matter is the domain's (HierRec)
    "combinations": Preset(effect="combinations", strength=0.9),
    # which earlier clicks matter, and how, is the domain's (ADS)
    "interest": Preset(effect="interest", strength=0.7),
}
