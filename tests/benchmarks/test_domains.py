"""What is shown of training against domains, from figures written by hand; and that every part runs."""

import pytest
import torch

from benchmarks import domains
from benchmarks.domains import ALL_TOWERS, PARTS, PLAIN, PYTORCHS
from benchmarks.drawn import Draw
from multidomain.layers.products import Linear


def line(number, rows, shares="even", **seconds):
    named = {"dnn": PLAIN, "usual": PYTORCHS, "towers": ALL_TOWERS}
    return {
        "domains": number,
        "rows": rows,
        "shares": shares,
        "seconds": {named.get(name, name): values for name, values in seconds.items()},
    }


CONTENT = {
    "mixed": {
        "runs": [
            line(3, 4096, dnn=[1.0], star=[1.1]),
            line(100, 4096, dnn=[1.0, 2.0, 1.0], star=[2.0, 5.0, 4.0], towers=[100.0, 100.0, 100.0]),
        ]
    },
    "domain": {"runs": [line(100, 4096, "Zipf", dnn=[9.0], star=[10.0])]},
    "large": {"runs": [line(300, 16384, dnn=[1.0], usual=[2.0], star=[4.0])]},
    "ids": {"runs": [{"rows": 4096, "seconds": {"1,000,000": [1.0, 2.0], "10,000,000": [1.2, 2.2]}}]},
    "adaptdhm": {"runs": [line(33, 2048, adaptdhm=[2.0], star=[1.0], towers=[10.0])]},
}


def test_what_is_shown_is_computed_from_rounds():
    shown = {one["what"]: one for one in domains.shows(CONTENT)}
    mixed = shown["STAR / plain tower, 100 domains, mixed, even shares"]
    assert mixed["found"] == 0.4  # the middle of 1/2, 2/5 and 1/4
    assert mixed["met"]
    assert shown["STAR / all towers, 100 domains, mixed, even shares"]["found"] == 25.0  # of 50, 20 and 25
    assert shown["STAR / plain tower, 100 domains, one per batch, Zipf shares"]["found"] == 0.9
    large = shown["STAR / plain tower, 300 domains, batch 16,384, even shares"]
    assert (large["found"], large["met"]) == (0.25, False)
    usual = shown["STAR / plain tower with PyTorch's products, 300 domains, batch 16,384, even shares"]
    assert (usual["found"], usual["met"]) == (0.5, None)
    ids = shown["time of the embedding, 10,000,000 ids / 1,000,000"]
    assert ids["found"] == pytest.approx(1.15)  # of 1.2 and 1.1
    assert ids["met"]
    assert shown["AdaptDHM's time, 33 domains / all-towers STAR's"]["found"] == 0.2
    assert shown["AdaptDHM's time, 33 domains / our STAR's"]["found"] == 2.0
    assert len(shown) == 8


def test_a_model_that_was_not_measured_everywhere_leaves_a_gap(head):
    part = {"head": head, "runs": [line(3, 100, dnn=[1.0], star=[2.0]), line(9, 100, dnn=[1.0])]}
    lines = domains.markdown({"mixed": part, "shows": []})
    assert lines[-2:] == ["| 3 | even | 100 | 100 | 50 (0.5) |", "| 9 | even | 100 | 100 |  |"]


def test_shares_of_zipf_add_up_and_fall():
    shares = domains.zipf(3)
    assert shares == pytest.approx([6 / 11, 3 / 11, 2 / 11])


def test_every_part_runs_in_the_smallest_setting(quick, monkeypatch):
    tiny = domains.Sizes(
        domains=(2,),
        widths=(8,),
        batch=64,
        large=(3, 64),
        ids=(2_000, 4_000),
        paper=(3,),
        paper_widths=(8,),
        paper_batch=64,
        few_ids=200,
        batches=2,
    )
    monkeypatch.setattr(domains, "QUICK", tiny)
    content, text = quick("domains", "--only", "mixed")
    assert set(content["mixed"]["runs"][0]["seconds"]) == set(domains.MODELS)
    content, text = quick("domains", "--only", *PARTS[1:])
    assert set(PARTS) <= set(content)  # those of the run before stayed
    assert "AdaptDHM's time, 3 domains / all-towers STAR's" in text


def test_the_plain_tower_with_pytorchs_products_is_the_plain_tower():
    draw = Draw(schema=domains.inputs(2, 100))
    batches = draw.batches(64, 1)
    plain, usual = (domains.step(name, draw.schema, batches, (16, 8)).model.eval() for name in (PLAIN, PYTORCHS))
    assert [type(m).__name__ for m in plain.modules()] == [type(m).__name__ for m in usual.modules()]
    assert any(type(module) is Linear for module in plain.modules())
    assert not any(type(module) is Linear for module in usual.modules())
    torch.testing.assert_close(usual(batches[0]), plain(batches[0]))
