"""What a layer asks of a batch as a whole, where several processes train together and each holds some of its rows.

A statistic over the rows of a batch in training (a sum, a count, a mean) goes through :func:`total`, a random number
per row through :func:`draws`; what is drawn for the model rather than for rows comes from PyTorch's own generator,
which is the same in all processes. With one process each of them is what it stands for, and costs nothing.

The processes are those of ``torch.distributed``'s default group. All of them must ask the same, in the same order: what
is asked may depend on the model and on totals, never on a process's own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class LostPeer(RuntimeError):
    """Another process is gone, or did not do what this one did."""


@dataclass(frozen=True)
class Place:
    """Where a process's rows stand in the batch of all processes.

    Attributes:
        first: the place of its first row.
        rows: of all processes together.
    """

    first: int
    rows: int


class _State:
    place: Place | None = None  # of the batch that is being worked on, where who loads it has said so
    draws: dict[torch.device, torch.Generator] = {}  # noqa: RUF012 - the one instance is the process's
    seed: int = 0


def workers() -> int:
    """How many processes train together."""
    return int(dist.get_world_size()) if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first is the one that writes."""
    return int(dist.get_rank()) if dist.is_available() and dist.is_initialized() else 0


def alone() -> bool:
    """Whether this process trains by itself."""
    return workers() == 1


def share(rows: int, worker: int | None = None) -> slice:
    """The rows of a worker, this process unless it is named, among so many: as even as can be, none shared."""
    mine, of = rank() if worker is None else worker, workers()
    return slice(rows * mine // of, rows * (mine + 1) // of)


def stand(place: Place | None) -> None:
    """Say where the rows worked on next stand in the batch; None: not known."""
    _State.place = place


def place(rows: int) -> Place:
    """Where these rows of this process stand in the batch of all."""
    if alone():
        return Place(0, rows)
    if _State.place is None:
        counts = _counts(rows)
        return Place(sum(counts[: rank()]), sum(counts))
    return _State.place


def total(x: Tensor) -> Tensor:
    """The sum of x over all processes, in each of them, with its gradient: what one process would have."""
    if alone():
        return x
    summed: Tensor = _Total.apply(x) if x.requires_grad else _summed(x)  # type: ignore[no-untyped-call]
    return summed


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, (n of this one, …) -> (n of all, …), in their order; no gradient goes through it."""
    if alone():
        return x
    counts = _counts(len(x))
    return torch.cat([part[:count] for part, count in zip(padded(x.detach(), max(counts)), counts, strict=True)])


def padded(x: Tensor, length: int) -> list[Tensor]:
    """What each process has, (length, …) each: what is behind its own rows means nothing."""
    own = x.new_zeros(length, *x.shape[1:])
    own[: len(x)] = x
    parts = [torch.empty_like(own) for _ in range(workers())]
    _together(dist.all_gather, parts, own)
    return parts


def from_first(x: Tensor) -> None:
    """Gives x the values it has in the first process, in place."""
    if alone():
        return
    plain = (x.to(torch.uint8) if x.dtype == torch.bool else x).contiguous()
    _together(dist.broadcast, plain, 0)
    if plain is not x:
        x.copy_(plain)


def object_from_first(value: Any) -> Any:
    """What the first process has, as a Python object."""
    if alone():
        return value
    held = [value]
    _together(dist.broadcast_object_list, held, 0, device=torch.device("cpu"))
    return held[0]


def meet() -> None:
    """Wait until all processes are here."""
    total(torch.zeros(1))


def draws(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A uniform random number for each row (B,) or for each part of it (B, …): one process would draw the same."""
    if alone():
        return torch.rand(shape, device=device)
    at = place(shape[0])
    return torch.rand((at.rows, *shape[1:]), device=device)[at.first : at.first + shape[0]]


def seed_own(seed: int) -> None:
    """Begin the random numbers that are each process's own; see :func:`own_generator`."""
    _State.seed = seed
    _State.draws.clear()


def own_generator(device: torch.device) -> torch.Generator | None:
    """Of numbers whose count depends on a process's own rows, such as dropout's; None is PyTorch's own: alone."""
    if alone():
        return None
    if device not in _State.draws:
        generator = torch.Generator(device)
        generator.manual_seed(_State.seed + rank())
        _State.draws[device] = generator
    return _State.draws[device]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _summed(gradients[0])  # each process's share of the loss has one


def _summed(x: Tensor) -> Tensor:
    summed = x.detach().clone(memory_format=torch.contiguous_format)
    _together(dist.all_reduce, summed)
    return summed


def _counts(rows: int) -> list[int]:
    return [int(one) for one in padded(torch.tensor([rows]), 1)]


@contextmanager
def peers_watched() -> Iterator[None]:
    """Within, messages are sent that are not this module's; one that fails raises LostPeer, too."""
    try:
        yield
    except RuntimeError as error:  # gloo has no error of its own
        if isinstance(error, LostPeer) or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise LostPeer(f"Worker {rank()} of {workers()} lost the others: {error}") from error


def _together(collective: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    try:
        collective(*arguments, **options)
    except RuntimeError as error:
        raise LostPeer(f"Worker {rank()} of {workers()} lost the others: {error}") from error
