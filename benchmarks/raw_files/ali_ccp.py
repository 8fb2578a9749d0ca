"""Ali-CCP's four files: skeletons of samples and the features that many of them share, train and test.

The simulated user is the person (101) with the profile; each common-feature index is a person at one time, with lists
of what they did before (categories 109_14, shops 110_14, brands 127_14, intentions 150_14), some hundred features long
as in the original. The position (301) is the domain; gender and city are features of the person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from multidomain.schema import Simulation
from multidomain.simulation.generate import Log

from .lines import PART, Bad, LineFile, codes, parts

SAMPLES_PER_INDEX = 58  # 42.3 million samples, 730,000 indexes
LISTED = {"109_14": 150, "110_14": 150, "127_14": 100, "150_14": 200}  # features of each list in an index
PROFILE = {"121": "occupation", "122": "hobby", "124": "device", "125": "age", "126": "income", "129": "city"}
ITEM = {"206": "category", "216": "brand", "207": "price"}
CARDS = {"109_14": 6_000, "110_14": 500_000, "127_14": 200_000, "150_14": 100_000}
TEST = 0.5  # of all rows
FIRST_TEST_PART = 100_000
KINDS = ("sample_skeleton", "common_features")
NOTHING: Mapping[str, Sequence[Bad]] = MappingProxyType({})
Columns = list[tuple[str, npt.NDArray[np.int64]]]


def write(
    folder: Path,
    *,
    rows: int,
    seed: int = 2021,
    users: int = 3_400,
    items: int | None = None,
    bad: Mapping[str, Sequence[Bad]] = NOTHING,
    crlf: bool = False,
) -> dict[str, LineFile]:
    """Write ``rows`` samples, half of them for testing; ``bad``: file name -> lines that are no rows."""
    items = items or max(rows // 20, 50)
    end = b"\r\n" if crlf else b"\n"
    names = [f"{kind}_{part}.csv" for part in ("train", "test") for kind in KINDS]
    files = {name: LineFile(folder / name, bad=bad.get(name, ()), end=end) for name in names}
    random = np.random.default_rng([seed, 4])
    for part, share, number in (("train", 1 - TEST, 0), ("test", TEST, FIRST_TEST_PART)):
        size = round(rows * share)
        simulation = Simulation(preset="combinations", rows=size, users=users, items=items, domains=3, seed=seed)
        first = 0
        for log in parts(simulation, first=number):
            people = log.rows["user"] + users * (first // PART)  # others in each part, who like what these like
            _write(log, first, people, random, *(files[f"{kind}_{part}.csv"] for kind in KINDS))
            first += len(log.rows)
    for file in files.values():
        file.__exit__(None, None, None)
    return files


def _write(
    log: Log,
    first: int,
    people: npt.NDArray[np.int64],
    random: np.random.Generator,
    samples: LineFile,
    common: LineFile,
) -> None:
    rows = log.rows
    index = _indexes(rows["user"])  # (N,) of this part: rows of one person, some at a time
    names = pc.utf8_lpad(codes((first + index + 1) * 2_654_435_761 % 2**40), 13, "0")
    fields: Columns = [("205", rows["item"])]
    fields += [(field, rows[name]) for field, name in ITEM.items()]
    fields += [("210", rows["category"] * 7 + more) for more in range(3)]
    fields += [("301", rows["domain"]), ("508", rows["category"] * 8 + rows["hobby"])]
    fields += [("509", rows["price"] * 12 + rows["city"]), ("702", rows["brand"] * 8 + rows["age"])]
    fields += [("853", rows["price"] * 9 + rows["income"] + 100 * more) for more in range(3)]
    order = random.permutation(len(rows))  # samples of a person do not stand together
    conversion = random.random(len(rows)) < np.where(log.clicked, 0.02, 0.0001)  # some without a click, as in the original
    columns = [
        codes(np.arange(first + 1, first + len(rows) + 1)),
        codes(log.clicked.astype(np.int8)).take(pa.array(order)),
        codes(conversion.astype(np.int8)).take(pa.array(order)),
        names.take(pa.array(order)),
        codes(np.full(len(rows), len(fields))),
        _features(fields).take(pa.array(order)),
    ]
    samples.write(columns)
    _, once = np.unique(index, return_index=True)
    persons: Columns = [("101", people[once])]
    persons += [(field, rows[name][once]) for field, name in PROFILE.items()]
    lists, counts = _lists(random, len(once))
    text = pc.binary_join_element_wise(_features(persons), lists, "\x01")
    common.write([names.take(pa.array(once)), codes(counts + len(persons)), text])


def _indexes(user: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A common-feature index for each row: rows of one person, which stand together, at most ``SAMPLES_PER_INDEX``."""
    start = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    position = np.arange(len(user)) - np.repeat(start, np.diff(np.r_[start, len(user)]))
    new = (position % SAMPLES_PER_INDEX) == 0
    return np.flatnonzero(new)[np.cumsum(new) - 1]


def _features(fields: Columns) -> pa.Array:
    """``field \\x02 id \\x03 1.0`` of every field, divided by ``\\x01``. Ids are led by their field."""
    made = [
        pc.binary_join_element_wise(f"{field}\x02{int(field) % 1000}", codes(code), "\x031.0", "")
        for field, code in fields
    ]
    return pc.binary_join_element_wise(*made, "\x01")


def _lists(random: np.random.Generator, count: int) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The lists of what people did before: ids of a long tail, with a logarithm of how often."""
    parts_, total = [], np.zeros(count, np.int64)
    for field, mean in LISTED.items():
        sizes = 1 + random.poisson(mean - 1, count)
        ids = (CARDS[field] * random.random(sizes.sum()) ** 3).astype(np.int64)
        value = pa.array(["0.69315", "1.09861", "1.38629", "2.07944", "2.89037"]).take(
            pa.array(random.integers(0, 5, len(ids)))
        )
        tokens = pc.binary_join_element_wise(f"{field}\x02", codes(ids), "", "")
        tokens = pc.binary_join_element_wise(tokens, value, "\x03")
        offsets = pa.array(np.r_[0, np.cumsum(sizes)], pa.int32())
        parts_.append(pc.binary_join(pa.ListArray.from_arrays(offsets, tokens), "\x01"))
        total += sizes
    return pc.binary_join_element_wise(*parts_, "\x01"), total
