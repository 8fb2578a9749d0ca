"""Drawn inputs of any schema, batches in memory or an encoded variant on disk: to time what real ones would take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from multidomain.batch import Batch
from multidomain.inputs import InputSchema
from multidomain.tensor_writer import TensorWriter

CHUNK = 200_000
BAG, CLICK_RATE = 5, 0.3
FILLED = 0.86  # of a history
RATES_OF_TWENTY = ("user_count", "user_rate", "item_count", "item_rate", "domain_count", "domain_rate")

# MovieLens-1M, domain genre, split user_time: what its encoded folder says, and the share of its training rows.
MOVIELENS = InputSchema(
    domains=18,
    vocabularies={
        "user_id": 6042,
        "gender": 4,
        "age": 9,
        "occupation": 23,
        "zip_code": 1923,
        "item_id": 3669,
        "genres": 20,
        "genre": 20,
        "release_year": 20,
        **dict.fromkeys(RATES_OF_TWENTY, 22),
    },
    categorical=("user_id", "gender", "age", "occupation", "zip_code", "item_id", "release_year", *RATES_OF_TWENTY),
    history={"positives_item_id": "item_id", "positives_genre": "genre"},
    history_length=20,
    bags={"genres": "genres"},
    distribution=("gender", "age"),
    owners={
        **dict.fromkeys(("user_id", "gender", "age", "occupation", "zip_code", "user_count", "user_rate"), "user"),
        **dict.fromkeys(("item_id", "genres", "release_year", "item_count", "item_rate"), "item"),
        **dict.fromkeys(("domain_count", "domain_rate"), "domain"),
    },
)
GENRES = (
    *(0.2764, 0.2654, 0.2056, 0.0433, 0.0422, 0.0386, 0.0373, 0.0208, 0.0166),
    *(0.0113, 0.0098, 0.0097, 0.0068, 0.0066, 0.0052, 0.0026, 0.0009, 0.0008),
)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How rows are drawn: ids by a power law, their density falling with the root; a domain by its share.

    Attributes:
        schema: the inputs.
        shares: of each domain; even ones when None.
        seed: same seed, same rows.
    """

    schema: InputSchema
    shares: Sequence[float] | None = None
    seed: int = 2021

    def batches(self, rows: int, count: int, *, one_domain: bool = False) -> list[Batch]:
        """``count`` batches of ``rows`` rows, each of all domains, or each of one domain drawn by its share."""
        random = np.random.default_rng([self.seed, rows, one_domain])
        return [self._batch(random, rows, one_domain) for _ in range(count)]

    def write(self, folder: Path, *, rows: Mapping[str, int]) -> None:
        """Write an encoded variant with so many rows per split, and a user state for every two rows."""
        folder.mkdir(parents=True, exist_ok=True)
        random, states = np.random.default_rng(self.seed), sum(rows.values()) // 2 + 1
        (folder / "inputs.json").write_text(json.dumps(self.schema.to_dict()), encoding="utf-8")
        names = json.dumps([f"domain {number}" for number in range(self.schema.domains)])
        (folder / "domains.json").write_text(names, encoding="utf-8")
        with TensorWriter(folder, self.schema, rows=rows, states=states) as out:
            for split, total in rows.items():
                for start in range(0, total, CHUNK):
                    n = min(CHUNK, total - start)
                    label = (random.random(n) < CLICK_RATE).astype(np.float32)
                    out.write(
                        split, self._columns(random, n), label=label, state=random.integers(0, states, n, np.int32)
                    )
            for start in range(0, states, CHUNK):
                number = np.arange(start, min(start + CHUNK, states))
                for field, ids in self._histories(random, len(number)).items():
                    out.write_states(field, number, ids)

    def domains(self, random: np.random.Generator, rows: int) -> np.ndarray:
        """(rows,) int32."""
        shares = np.ones(self.schema.domains) if self.shares is None else np.asarray(self.shares)
        return random.choice(self.schema.domains, rows, p=shares / shares.sum()).astype(np.int32)

    def _batch(self, random: np.random.Generator, rows: int, one_domain: bool) -> Batch:
        arrays = {name: torch.from_numpy(value) for name, value in self._columns(random, rows).items()}
        domain = arrays["domain"][:1].expand(rows).contiguous() if one_domain else arrays["domain"]
        return Batch(
            categorical=arrays["categorical"],
            numerical=arrays["numerical"],
            history={name: torch.from_numpy(ids) for name, ids in self._histories(random, rows).items()},
            bags={name: arrays[f"bag_{name}"] for name in self.schema.bags},
            domain=domain,
            label=torch.from_numpy((random.random(rows) < CLICK_RATE).astype(np.float32)),
        )

    def _columns(self, random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        sizes = np.array([self.schema.vocabularies[name] for name in self.schema.categorical])
        bags = {
            f"bag_{name}": self._ids(random, (rows, BAG), self.schema.vocabularies[vocabulary])
            * (np.arange(BAG) < random.integers(1, BAG + 1, (rows, 1))).astype(np.int32)
            for name, vocabulary in self.schema.bags.items()
        }
        return {
            "categorical": self._ids(random, (rows, len(sizes)), sizes),
            "numerical": random.standard_normal((rows, len(self.schema.numerical)), np.float32),
            "domain": self.domains(random, rows),
            **bags,
        }

    def _histories(self, random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        length = self.schema.history_length
        empty = np.arange(length) < (length * (1 - FILLED) * 2 * random.random((rows, 1))).round()
        return {
            name: np.where(empty, 0, self._ids(random, (rows, length), self.schema.vocabularies[vocabulary])).astype(
                np.int32
            )
            for name, vocabulary in self.schema.history.items()
        }

    def _ids(self, random: np.random.Generator, shape: tuple[int, int], size: int | np.ndarray) -> np.ndarray:
        """Ids of 2 … size - 1, without padding and unknown; the first are the frequent ones."""
        known = np.maximum(np.asarray(size) - 2, 1)
        ids: np.ndarray = (2 + known * random.random(shape, np.float32) ** 2).astype(np.int32)
        return np.minimum(ids, np.asarray(size, np.int32) - 1)
