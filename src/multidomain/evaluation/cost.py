"""What a model costs: parameters, floating point operations, time to score."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..batch import Batch
from ..layers.embedding import InputEmbedding
from ..models.base import MultiDomainModel
from ..tensors import EncodedSplit

ROWS = 2000  # of a batch that is timed (HierRec, Table 3)
BATCHES, WARM_UP, REPEATS = 8, 3, 30


@dataclass(frozen=True)
class Parameters:
    """Trainable numbers of a model.

    Attributes:
        embedding: of the tables that ids are looked up in, and of the vectors by which numerical fields are multiplied.
        rest: everything else, the embeddings of domains included.
    """

    embedding: int
    rest: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.embedding + self.rest


def parameters(model: nn.Module) -> Parameters:
    """Count the parameters of a model; one on the device ``meta`` will do."""
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag | InputEmbedding)
        for parameter in module.parameters()
    }
    sizes = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    embedding = sum(size for key, size in sizes.items() if key in tables)
    return Parameters(embedding=embedding, rest=sum(sizes.values()) - embedding)


def inference_ms(model: MultiDomainModel, split: EncodedSplit, device: torch.device, rows: int = ROWS) -> float:
    """Milliseconds that the serving form of a model takes for a batch of ``rows``: the median of repeated batches.

    The batches are on the device beforehand: what is timed is the network, its embeddings included. A split with fewer
    rows is gone through again from its start.
    """
    served = model.eval().serving_form().to(device).eval()
    batches = [split.batch((np.arange(rows) + k * rows) % split.rows).to(device) for k in range(BATCHES)]
    taken = []
    with torch.inference_mode():
        for number in range(WARM_UP + REPEATS):
            start = time.perf_counter()
            served(batches[number % BATCHES])
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken[WARM_UP:])


def flops(model: MultiDomainModel, batch: Batch, *, training: bool) -> float:
    """Floating point operations per row of a batch: those of matrix products, two per multiplication and addition.

    Element-wise operations and lookups, which PyTorch does not count, are left out.

    Args:
        model: on the CPU.
        batch: rows to count on.
        training: forward and backward; otherwise one pass of the serving form.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    network: nn.Module = model.train() if training else model.eval().serving_form()
    with counter, torch.set_grad_enabled(training):
        logits = network(batch)
        if training:
            loss = binary_cross_entropy_with_logits(logits, batch.label) + model.auxiliary_loss()
            loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() / len(batch))
