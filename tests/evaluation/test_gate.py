from __future__ import annotations

import pytest

from multidomain.errors import ConfigurationError
from multidomain.evaluation.gate import Gate, decide, outside
from multidomain.evaluation.intervals import Estimate

EQUAL = {"auc": Estimate(-0.0005, 0.001), "gauc": Estimate(0.002, 0.001)}


def test_a_version_as_good_as_the_champion_passes() -> None:
    decision = decide(Gate(), pcoc=1.02, overall=EQUAL, domains={"home": (9000, Estimate(-0.004, 0.001))})
    assert decision.passed
    assert decision.reasons == ()
    assert decision.figures == {"auc_difference": -0.0005, "gauc_difference": 0.002}


def test_a_metric_worse_beyond_its_interval_is_a_reason() -> None:
    worse = EQUAL | {"gauc": Estimate(-0.01, 0.002)}
    decision = decide(Gate(), pcoc=1.0, overall=worse, domains={})
    assert not decision.passed
    assert decision.reasons == (
        "GAUC is worse than the champion's by 0.0100, beyond the 95 % interval (-0.0139 to -0.0061).",
    )


def test_a_large_domain_that_loses_is_a_reason_and_a_small_one_is_not() -> None:
    domains = {"home": (9000, Estimate(-0.02, 0.01)), "tab": (100, Estimate(-0.2, 0.1))}
    decision = decide(Gate(), pcoc=1.0, overall=EQUAL, domains=domains)
    assert [reason.split(" is ")[0] for reason in decision.reasons] == ["AUC of the domain 'home'"]


def test_an_undefined_interval_does_not_hide_a_loss() -> None:
    worse = {"auc": Estimate(-0.1, float("nan")), "gauc": Estimate(float("nan"), float("nan"))}
    assert len(decide(Gate(), pcoc=1.0, overall=worse, domains={}).reasons) == 1


@pytest.mark.parametrize(("pcoc", "said"), [(1.1001, "1.1001"), (0.5, "0.5000"), (None, "undefined")])
def test_pcoc_out_of_its_band_is_a_reason(pcoc: float | None, said: str) -> None:
    assert outside(Gate(), pcoc) == [f"PCOC is {said}; it must lie from 0.9 to 1.1."]
    assert not decide(Gate(), pcoc=pcoc, overall=EQUAL, domains={}).passed


def test_settings_are_read_and_checked() -> None:
    assert Gate.read({"domain_rows": 100}) == Gate(domain_rows=100)
    assert Gate.read("off") is None
    assert Gate.read(False) is None
    for given, said in (
        ({"domain_row": 1}, "did you mean 'domain_rows'"),
        ({"pcoc_low": "x"}, "gate.pcoc_low must be a number"),
        ({"pcoc_low": 2}, "must not be above"),
        ("on", "settings or `off`"),
        (None, "settings or `off`"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Gate.read(given)
