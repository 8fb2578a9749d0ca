"""``docs/hostile_input.md``: every hostile line and file that the tests of the formats try, and what happens to each.

The table is made of those tests' own cases. Write it again: ``python tests/sources/test_hostile_table.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import test_ali_ccp
import test_grouplens
import test_kuairand
import test_taobao

from benchmarks.raw_files import taobao

PROJECT = Path(__file__).parents[2]
DOCUMENT = PROJECT / "docs/hostile_input.md"
HEAD = """# Hostile input, and what happens to it

Made of the cases in `tests/sources/` by `python tests/sources/test_hostile_table.py`; each is asserted there. A line
that is set apart is in `quarantine` with its file, its number and this reason: kept + quarantined = lines in the files.
Where more are set apart than the schema's `max_quarantined` (one in a thousand), the run stops and shows the first of
them. Control characters are written out as `\\x02`.

| format | file | what | line | what happens |
|---|---|---|---|---|
"""
VIDEOS, USERS = "video_features_basic_pure.csv", "user_features_pure.csv"
KUAIRAND_FILES = {"log": test_kuairand.LOGS[0], "user": USERS, "video": VIDEOS}
Row = tuple[str, str, str, str, str]


def set_apart() -> Iterator[Row]:
    """Lines: the rest of their file is read."""
    named = [
        ("Ali-CCP", "sample_skeleton_train.csv", test_ali_ccp.HOSTILE),
        ("KuaiRand", test_kuairand.LOGS[1], test_kuairand.BAD_LOG),
        ("KuaiRand", USERS, test_kuairand.BAD_USERS),
        ("KuaiRand", VIDEOS, test_kuairand.BAD_VIDEOS),
        ("Taobao", taobao.NAME, test_taobao.HOSTILE),
    ]
    for form, file, cases in named:
        for what, (line, reason) in cases.items():
            yield form, file, what, shown(line), f"set apart: {reason}"
    for form, files in (("MovieLens 1M", test_grouplens.DAT), ("MovieLens 20M to 32M", test_grouplens.CSV)):
        for file, lines in files.items():
            for bad in lines:
                yield form, file, "", shown(bad.line), f"set apart: {bad.reason}"


def stopped() -> Iterator[Row]:
    """Whole files: the run stops before anything is written."""
    for what, (file, _, said) in test_ali_ccp.STOPS.items():
        yield "Ali-CCP", file, what, "", stops(said)
    for what, (kind, _, said) in test_kuairand.STOPS.items():
        yield "KuaiRand", KUAIRAND_FILES[kind], what, "", stops(said)
    for what, (file, _, said) in test_taobao.STOPS.items():
        yield "Taobao", file, what, "", stops(said)
    for form, cases in (
        ("MovieLens 1M", test_grouplens.STOPS_DAT),
        ("MovieLens 20M to 32M", test_grouplens.STOPS_CSV),
    ):
        for what, (file, _, said) in cases.items():
            yield form, file, what, "", stops(said)


def keys() -> Iterator[Row]:
    """Keys that are unknown or come twice: found after reading, by ingestion or validation."""
    common = "common_features_train.csv"
    yield "Ali-CCP", "sample_skeleton_*.csv", "an unknown common feature index", "", apart("not among the valid users")
    yield "Ali-CCP", "sample_skeleton_*.csv", "a sample id twice", "", apart("impression_id occurs more than once")
    yield "Ali-CCP", common, "an index twice", "", "the first stays; the second is set apart: is on line N already"
    yield "KuaiRand", "log_*.csv", "an unknown user or video", "", apart("not among the valid users (items)")
    for file in (USERS, VIDEOS):
        yield "KuaiRand", file, "a key twice", "", "the first stays; the second is set apart: is on line N already"


def apart(reason: str) -> str:
    return f"set apart: {reason}"


def stops(said: list[str]) -> str:
    return f"stops the run; its message has: {'; '.join(said)}"


def shown(line: bytes) -> str:
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in line.decode(errors="backslashreplace")
    )
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return f"`{short}`" if short else ""


def document() -> str:
    cells = [
        [cell.replace("|", "\\|").replace("\x00", "\\x00") for cell in row]
        for row in (*set_apart(), *keys(), *stopped())
    ]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in cells)


def test_the_table_of_hostile_input_is_what_the_tests_try() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


if __name__ == "__main__":
    sys.stdout.write(f"{DOCUMENT}\n")
    DOCUMENT.write_text(document(), encoding="utf-8")
