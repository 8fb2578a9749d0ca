"""A log that can be learnt, drawn to a seed: written once, in the layout of encoded splits, read by every side.

Ids are log-uniform, which is Zipf's law with exponent 1: of V ids the first tenth of a percent has about half of the
rows. A label is drawn with a probability that hidden tables give: a weight of every id of every field, pairs of fields
whose latent vectors meet, a factor of each domain on the weights of half of the fields, and, with a history, the share
of events whose group is the candidate's. All histories are full, so that it does not matter on which side a library
wants them padded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .settings import CANDIDATE, FIELDS, HISTORY, SEED, Setting

CHUNK = 100_000
FIRST = 2  # 0 is padding, 1 unknown
PAIRS, LATENT, GROUPS = 5, 4, 16
SPLITS = ("train", "validation", "test")
Rows = dict[str, np.ndarray]


class Truth:
    """The hidden model of a setting.

    Args:
        setting: sizes.
    """

    def __init__(self, setting: Setting) -> None:
        rng = np.random.default_rng([SEED, setting.ids, setting.domains])
        size = vocabulary(setting)
        self.weights = rng.normal(0, 0.35, (FIELDS, size)).astype(np.float32)
        self.latent = rng.normal(0, 0.45, (2 * PAIRS, size, LATENT)).astype(np.float32)
        self.factors = np.ones((setting.domains, FIELDS), np.float32)
        self.factors[:, FIELDS // 2 :] += rng.normal(0, 0.6, (setting.domains, FIELDS - FIELDS // 2))

    def probability(self, rows: Rows) -> np.ndarray:
        """(n,) of the rows' label being 1."""
        ids = rows["categorical"]
        logit = (self.weights[np.arange(FIELDS), ids] * self.factors[rows["domain"]]).sum(1)
        for pair in range(PAIRS):
            left, right = self.latent[2 * pair, ids[:, 2 * pair]], self.latent[2 * pair + 1, ids[:, 2 * pair + 1]]
            logit += (left * right).sum(1)
        if "history" in rows:
            same = rows["history"] % GROUPS == ids[:, :1] % GROUPS
            logit += 6 * same.mean(1, dtype=np.float32) - 0.5
        return 1 / (1 + np.exp(1.0 - logit))


def vocabulary(setting: Setting) -> int:
    """Ids of one field, padding and unknown included."""
    return setting.ids // FIELDS


def drawn(setting: Setting, split: str, rows: int) -> Iterator[Rows]:
    """Chunks of a split: categorical (n, F), domain (n,), label (n,) and, with a history, history (n, T)."""
    truth, rng = Truth(setting), np.random.default_rng([SEED, SPLITS.index(split), setting.ids, setting.domains])
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        chunk = {
            "categorical": _ids(rng, setting, (n, FIELDS)),
            "domain": rng.integers(0, setting.domains, n, np.int32),
        }
        if setting.history:
            chunk["history"] = _ids(rng, setting, (n, setting.history))
        chunk["label"] = (rng.random(n) < truth.probability(chunk)).astype(np.float32)
        yield chunk


def _ids(rng: np.random.Generator, setting: Setting, shape: tuple[int, int]) -> np.ndarray:
    span = vocabulary(setting) - FIRST
    log_uniform = np.exp(np.log(span) * rng.random(shape, np.float32)) - 1
    ids: np.ndarray = (FIRST + log_uniform).astype(np.int32).clip(FIRST, vocabulary(setting) - 1)
    return ids


def write(setting: Setting, folder: Path) -> Path:
    """The log of a setting below `folder`, written unless it is there; where it is."""
    from multidomain.inputs import InputSchema
    from multidomain.io.atomic import replacing
    from multidomain.tensor_writer import TensorWriter

    target = folder / setting.log
    if target.is_dir():
        return target
    fields = tuple(f"field_{number}" for number in range(FIELDS))
    inputs = InputSchema(
        domains=setting.domains,
        vocabularies=dict.fromkeys(fields, vocabulary(setting)),
        categorical=fields,
        history={HISTORY: CANDIDATE} if setting.history else {},
        history_length=setting.history,
    )
    rows = {"train": setting.rows, "validation": 1_000, "test": setting.test_rows}
    states = 1 + sum(rows.values()) if setting.history else 1
    with replacing(target) as made:
        made.mkdir()
        (made / "inputs.json").write_text(json.dumps(inputs.to_dict()), encoding="utf-8")
        (made / "domains.json").write_text(json.dumps([f"domain {n}" for n in range(setting.domains)]))
        with TensorWriter(made, inputs, rows=rows, states=states) as writer:
            state = 1
            for split, count in rows.items():
                for chunk in drawn(setting, split, count):
                    numbers = np.arange(state, state + len(chunk["label"]), dtype=np.int32)
                    values = chunk | {"numerical": np.zeros((len(numbers), 0), np.float32)}
                    writer.write(split, values, label=chunk["label"], state=numbers)
                    if setting.history:
                        writer.write_states(HISTORY, numbers, chunk["history"])
                        state += len(numbers)
    return target


def columns(folder: Path, split: str) -> tuple[Rows, np.ndarray, np.ndarray]:
    """A split as peers are given it: an array in memory for every field (and the history), the label, the domain."""
    part = folder / split
    categorical = np.load(part / "categorical.npy", mmap_mode="r")
    fields = {f"field_{number}": np.array(categorical[:, number]) for number in range(categorical.shape[1])}
    if (part / "state.npy").is_file():
        histories = np.load(folder / "states" / f"{HISTORY}.npy", mmap_mode="r")
        fields[HISTORY] = np.array(histories[np.load(part / "state.npy")])
    return fields, np.load(part / "label.npy"), np.load(part / "domain.npy").astype(np.int64)


def main() -> None:
    """Write one log: in a process of its own, so that its memory is nobody's."""
    import sys

    setting, folder = Setting(**json.loads(sys.argv[1])), Path(sys.argv[2])
    print(write(setting, folder))


if __name__ == "__main__":
    main()
