"""The sliding window of history that batches are drawn from (STAR, section 4.4).

"Samples in the buffer are shuffled firstly and then sampled to construct a mini-batch. After fed to the model, this
mini-batch of samples are removed from the buffer and new arriving data is added to this buffer."
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]  # name -> (N, …), all of one N
CHANGED = 16_384  # rows given other values together
_STREAM = 0x627566  # draws of their own


class Waiting(ABC):
    """Rows that came and are yet to be learnt: at most ``rows`` of them, in memory taken once.

    Args:
        rows: the most it holds.
        batch_size: rows of a draw.

    Attributes:
        size: rows it holds now.

    Raises:
        ValueError: a batch that is larger than all it holds.
    """

    def __init__(self, *, rows: int, batch_size: int) -> None:
        if not 1 <= batch_size <= rows:
            raise ValueError(f"a buffer of {rows} rows gives no batches of {batch_size}")
        self.rows, self.batch_size, self.size = rows, batch_size, 0
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def full(self) -> bool:
        """Whether a batch must be drawn before more can be added."""
        return self.size == self.rows

    @property
    def room(self) -> int:
        """Rows that may be added."""
        return self.rows - self.size

    @property
    def nbytes(self) -> int:
        """Bytes of memory, which stay the same from the first row on."""
        return sum(array.nbytes for array in self._arrays.values())

    def add(self, arrays: Arrays) -> None:
        """Put N rows behind the others.

        Raises:
            ValueError: there is room for fewer, or they are of another kind than those here.
        """
        count = len(next(iter(arrays.values())))
        if count > self.room:
            raise ValueError(f"{count} rows for a buffer with room for {self.room}")
        if not self._arrays:
            self._arrays = {name: np.empty((self.rows, *a.shape[1:]), a.dtype) for name, a in arrays.items()}
        if arrays.keys() != self._arrays.keys():
            raise ValueError(f"rows of {', '.join(arrays)} for a buffer of {', '.join(self._arrays)}")
        for name, values in arrays.items():
            if values.shape[1:] != self._arrays[name].shape[1:] or values.dtype != self._arrays[name].dtype:
                raise ValueError(f"'{name}' is {values.dtype} {values.shape[1:]} of another kind than before")
            self._arrays[name][self.size : self.size + count] = values
        self.size += count

    def draw(self, step: int) -> dict[str, np.ndarray]:
        """Take a batch out: ``batch_size`` rows, or all if there are fewer.

        Args:
            step: number of the draw; with it, what is in the buffer decides what is drawn.
        """
        places = self._places(min(self.batch_size, self.size), step)
        batch = {name: array[places] for name, array in self._arrays.items()}
        self._remove(places)
        return batch

    def change(self, name: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
        """Give every row held other values of one array, of the same shape, in place.

        Args:
            name: of the array; nothing happens where there is none.
            function: of the values of some rows, which depend on those rows alone: a copy of all would be as large as
                the buffer.
        """
        if name not in self._arrays:
            return
        held = self._arrays[name][: self.size]
        for start in range(0, self.size, CHANGED):
            held[start : start + CHANGED] = function(held[start : start + CHANGED])

    def state(self) -> dict[str, np.ndarray]:
        """The rows held, in their places, as they lie here: to be written, not to be kept."""
        return {name: array[: self.size] for name, array in self._arrays.items()}

    def load(self, arrays: Arrays) -> None:
        """The inverse of :meth:`state`."""
        self.size, self._arrays = 0, {}
        if arrays:
            self.add(arrays)

    @abstractmethod
    def _places(self, count: int, step: int) -> np.ndarray:
        """Which rows are drawn, in which order: (count,)."""

    @abstractmethod
    def _remove(self, places: np.ndarray) -> None:
        """Close the gaps."""


class Buffer(Waiting):
    """Draws every row with equal chance.

    Shuffling all rows and taking the first B draws every ordered B of them with equal chance; so does drawing B places
    without replacement, which costs B and not the buffer. What is drawn depends on the seed, the number of the draw and
    the rows held: no state of a generator has to be kept.

    Args:
        rows: R, of the window.
        batch_size: B.
        seed: of the draws.
    """

    def __init__(self, *, rows: int, batch_size: int, seed: int) -> None:
        super().__init__(rows=rows, batch_size=batch_size)
        self.seed = seed

    def _places(self, count: int, step: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, step, _STREAM])
        return random.choice(self.size, count, replace=False)

    def _remove(self, places: np.ndarray) -> None:
        """The last rows move into the gaps: their order is of no account."""
        left = self.size - len(places)
        gaps = np.sort(places[places < left])
        stay = np.ones(self.size - left, dtype=bool)
        stay[places[places >= left] - left] = False
        movers = left + np.flatnonzero(stay)
        for array in self._arrays.values():
            array[gaps] = array[movers]
        self.size = left


class Queue(Waiting):
    """Gives rows in the order they came: plain chronological training, the comparison."""

    def _places(self, count: int, step: int) -> np.ndarray:  # noqa: ARG002
        return np.arange(count)

    def _remove(self, places: np.ndarray) -> None:
        left = self.size - len(places)
        for array in self._arrays.values():
            array[:left] = array[len(places) : self.size].copy()
        self.size = left
