"""Compare the encoded splits and domains with each other; say which features have moved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ...schema import Variant

logger = logging.getLogger(__name__)
Writer = Callable[[Path], None]


def report_drift(variant: Variant, encoded: Path) -> Writer:
    """The population stability index of every feature and the label's rates: see ``multidomain.evaluation.drift``."""
    from ...evaluation import drift, drift_report

    found = drift.measure(encoded, histories={h.name: h.feature(h.fields[0][0]) for h in variant.histories})
    shifted = found.shifted()
    if shifted:
        named = ", ".join(f"{name} ({value:.2f})" for name, value in shifted.items())
        logger.warning("drift from train to test, PSI above %s: %s", drift.SIGNIFICANT, named)
    overall = found.labels[found.labels.domain.isna()]
    facts = {
        "domains": f"{variant.domain.name} ({found.labels.domain.nunique():,})",
        "rows": ", ".join(f"{rows:,} {split}" for split, rows in zip(overall.split, overall.rows, strict=True)),
        "label": variant.label.name,
        "drift": f"{len(shifted)} of {found.psi.feature.nunique()} features above {drift.SIGNIFICANT}, train to test",
    }

    def write(folder: Path) -> None:
        drift_report.write(folder, found, title=f"Drift in {variant.key}", facts=facts)

    return write
