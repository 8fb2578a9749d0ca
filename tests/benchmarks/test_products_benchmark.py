"""Products of float32: both ways compute the same, and the table says so."""

from __future__ import annotations

from benchmarks import measure, products


def test_the_table_has_both_ways_of_every_product(capsys):
    setting = measure.setting(measure.parser("products", None).parse_args(["--quick"]))
    found = products.taken((64, 16, 8), setting)
    assert len(found) == 6
    content = {"used": True, "shapes": [{"shape": (64, 16, 8), "ms": found}], "head": measure.head(setting)}
    text = "\n".join(products.markdown(content))
    assert "| 64 × 16 × 8 |" in text
    assert text.count("×:") == 0
    assert text.count("× |") >= 3
