"""Workers that train one model hold the same state: told to them when training begins, seen to after every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers.embedding import KnownDomains
from ..layers.synchronised import alone, from_first, object_from_first, padded, rank
from ..models.base import MultiDomainModel
from .checkpoint import TrainingState, load_optimizer_tensors, optimizer_tensors
from .guard import TrainingError
from .optimizers import Optimizers


def agree(model: MultiDomainModel, optimizers: Optimizers, state: TrainingState) -> None:
    """Begin where the first worker does: with its weights, the state of its optimizers, and its history."""
    if alone():
        return
    for tensor in model.state_dict().values():
        from_first(tensor)
    first = rank() == 0
    tensors = optimizer_tensors(optimizers) if first and state.epoch else {}
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    told = object_from_first((state.history, state.best_epoch, state.best_score, shapes))
    state.history, state.best_epoch, state.best_score, shapes = told
    for name, (shape, dtype) in shapes.items():
        tensors.setdefault(name, torch.empty(shape, dtype=dtype))
        from_first(tensors[name])
    if shapes and not first:
        load_optimizer_tensors(optimizers, tensors)


def settle(model: MultiDomainModel, epoch: int) -> None:
    """After the steps of an epoch: tell each other which domains were met, and see that all have the same weights.

    Raises:
        TrainingError: the weights of two workers differ.
    """
    if alone():
        return
    for layer in model.modules():
        if isinstance(layer, KnownDomains):
            layer.tell()
    names, digests = list(model.state_dict()), digest(model)
    every = padded(digests, len(digests))
    for number, other in enumerate(every):
        if not torch.equal(other, every[0]):
            name = names[int((other != every[0]).nonzero()[0])]
            raise TrainingError(
                f"After epoch {epoch} the weights '{name}' of worker {number} differ from those of the first worker. "
                "All machines must run the same code and the same version of PyTorch on the same kind of device."
            )


def digest(model: MultiDomainModel) -> Tensor:
    """A number per tensor of the model that depends on every bit of it: int64 (tensors,), on the CPU."""
    return torch.stack([_digest(tensor) for tensor in model.state_dict().values()])


def _digest(tensor: Tensor) -> Tensor:
    if not tensor.numel():
        return torch.zeros((), dtype=torch.int64)
    number = torch.hash_tensor(tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach())
    return number.view(torch.int64).cpu()
