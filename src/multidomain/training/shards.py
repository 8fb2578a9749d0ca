"""The one table of a model divided by rows among the workers, by TorchRec: ``training.embedding_shards: rows``.

Of V rows and W workers each holds ceil(V / W) neighbours, the last what is left, and their optimizer state. A batch's
ids are sent to those who hold their rows, the vectors sent back, and the gradients sent the same way; the row-wise
Adagrad that TorchRec has fused into the backward pass then updates them: the equations of
:class:`.rowwise_adagrad.RowwiseAdagrad`. Everything else of a model is whole in every worker, as without shards.

What the memory of a worker holds of the table, in float32: 2·V·d / W numbers, its rows and those of the best epoch, and
V / W of state; of a batch, the rows it has ids of. Files carry the table between processes, and each worker reads and
writes its own rows in them (:mod:`.pieces`); no process gathers it. Where the model is made and where it is afterwards
evaluated the table must still find room, once, without gradient and state: while workers train, it is not there.

TorchRec (Ivchenko et al., *TorchRec: a PyTorch Domain Library for Recommendation Systems*, RecSys 2022) is no
requirement and is imported here alone, inside functions.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..disk import require_space
from ..errors import ConfigurationError
from ..layers.remote import RemoteTable
from ..layers.synchronised import meet, object_from_first, peers_watched, rank, workers
from ..models.base import MultiDomainModel
from . import pieces
from .config import TrainingConfig
from .optimizers import sparse_tables

TABLE = "inputs.embedding.table.weight"
INSTALL = (
    "pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 tensordict==0.15.3 pyre-extensions==0.0.32 "
    "typing-inspect==0.9.0 mypy-extensions pyvers==0.2.3"
)
MODULES = ["torchrec.distributed.model_parallel", "torchrec.distributed.embedding"]
_PACKAGES = (
    "torchrec",
    "fbgemm_gpu",
    "tensordict",
    "pyre_extensions",
    "typing_inspect",
    "mypy_extensions",
    "pyvers",
)
_START, _END = "table-start.safetensors", "table-end.safetensors"
_EPS = 1e-8  # that of RowwiseAdagrad


def share_of_rows(rows: int, worker: int | None = None, of: int | None = None) -> slice:
    """The rows of a worker, this process unless it is named: TorchRec's division, ceil(rows / workers) each."""
    mine, size = rank() if worker is None else worker, -(-rows // (of or workers()))
    return slice(min(rows, size * mine), min(rows, size * (mine + 1)))


def missing() -> list[str]:
    """The packages of TorchRec that are not installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def check(model: MultiDomainModel, number: int, device: torch.device) -> None:
    """Look whether so many workers can share the table.

    Raises:
        ConfigurationError: TorchRec is not installed; the device is no CPU; the table has dense gradients, or too few
            rows.
    """
    if lacking := missing():
        raise ConfigurationError(
            f"training: embedding_shards needs TorchRec, and {', '.join(lacking)} cannot be found. Install it beside "
            f"PyTorch 2.13 with\n    {INSTALL}\n(without --no-deps, pip would replace packages), or leave "
            "embedding_shards out."
        )
    if device.type != "cpu":
        raise ConfigurationError(
            f"training: embedding_shards is for workers on CPUs, the device is {device}. Set device: cpu, or leave "
            "embedding_shards out."
        )
    table = model.inputs.embedding.table
    if not table.sparse:
        raise ConfigurationError(
            "training: embedding_shards needs a table with sparse gradients, the model has sparse: false. Remove that, "
            "or leave embedding_shards out."
        )
    if share_of_rows(table.num_embeddings, number - 1, number).start >= table.num_embeddings:
        raise ConfigurationError(
            f"training: embedding_shards would leave a worker without rows: the table has {table.num_embeddings:,}, "
            f"workers is {number}. Choose fewer workers, or leave embedding_shards out."
        )


@contextlib.contextmanager
def handed_over(model: MultiDomainModel, folder: Path) -> Iterator[None]:
    """Within, the table is in a file of the folder, which all workers see, and not in this process.

    Afterwards the model's table is what :meth:`Shards.finish` left there, or what it was: a mapping of the file, so
    that the memory it takes is that of the rows looked at, and may be had back by the system.

    Raises:
        DataError: the disk has no room for the table before and after.
    """
    weight = model.inputs.embedding.table.weight
    require_space(folder, 2 * weight.nbytes, "a table of embeddings, before and after training,")
    pieces.begin(folder / _START, {TABLE: weight.detach()}, {})
    weight.data = weight.new_zeros(()).expand(weight.shape)  # of that shape, and without memory
    try:
        yield
    finally:
        end = folder / _END
        weight.data = pieces.mapped(end if end.exists() else folder / _START, TABLE)


class ShardedTable(RemoteTable):
    """The rows of a table that this worker holds, and the way to the others'.

    Args:
        rows: V.
        features: d.
        lr, weight_decay: of row-wise Adagrad.

    Attributes:
        weight: (n, d), the own rows.
        square: (n,), their state.
        own: which rows of the table these are.
        steps: updates so far.
    """

    def __init__(self, *, rows: int, features: int, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.own, self.lr, self.steps = share_of_rows(rows), lr, 0
        self._last: Tensor | None = None
        parallel = _parallel(rows, features, lr, weight_decay)
        self._parallel = (parallel,)  # hidden: its parameters are updated in the backward pass, and nobody else's
        (self.weight,) = (parameter.data for parameter in parallel.parameters())
        (states,) = parallel.fused_optimizer.state_dict()["state"].values()
        (square,) = states.values()
        self.square: Tensor = square.local_shards()[0].tensor

    def forward(self, rows: Tensor) -> Tensor:
        """See :class:`RemoteTable`."""
        if not torch.is_inference_mode_enabled():
            return self._looked_up(rows)
        with torch.inference_mode(False), torch.no_grad():  # fbgemm has no look-up for that mode on CPUs
            return self._looked_up(rows.clone())

    def anchor(self) -> Tensor:
        """See :class:`RemoteTable`."""
        assert self._last is not None, "nothing was looked up"
        last, self._last = self._last, None
        return last[:0].sum()

    def set_rate(self, factor: float) -> None:
        """See :class:`RemoteTable`: `lr` times the factor."""
        self.steps += 1
        optimizer = self._parallel[0].fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.lr * factor
        optimizer.step()  # tells the fused kernel the rate, nothing more

    def _looked_up(self, rows: Tensor) -> Tensor:
        from torchrec import KeyedJaggedTensor

        asked = KeyedJaggedTensor(keys=["row"], values=rows, lengths=torch.tensor([len(rows)]))
        with peers_watched():
            vectors: Tensor = self._parallel[0].module.table(asked).wait()["row"].values()
        self._last = vectors
        return vectors


def _parallel(rows: int, features: int, lr: float, weight_decay: float) -> Any:
    """TorchRec's model of one table, divided by a plan made by hand: its planner knows no row-wise one for gloo."""
    try:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.distributed import DistributedModelParallel, comm_ops
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.types import ShardingEnv, ShardingPlan
    except (ImportError, OSError, AttributeError) as error:
        raise ConfigurationError(
            f"training: embedding_shards: TorchRec does not load here ({error}). Install the versions that fit "
            f"PyTorch 2.13:\n    {INSTALL}"
        ) from error
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # warns of what TorchRec calls
    comm_ops.set_gradient_division(False)  # each worker's loss is its part of the batch's: gradients add up
    holder = nn.Module()
    tables = [EmbeddingConfig(num_embeddings=rows, embedding_dim=features, name="rows", feature_names=["row"])]
    holder.table = EmbeddingCollection(device=torch.device("meta"), tables=tables)
    fused = {
        "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        "learning_rate": lr,
        "eps": _EPS,
        "weight_decay": weight_decay,
        "weight_decay_mode": WeightDecayMode.DECOUPLE if weight_decay else WeightDecayMode.NONE,
    }
    return DistributedModelParallel(
        holder,
        env=ShardingEnv.from_process_group(torch.distributed.group.WORLD),
        device=torch.device("cpu"),
        plan=ShardingPlan({"table": _plan(rows, features)}),
        sharders=[EmbeddingCollectionSharder(fused_params=fused)],
        init_data_parallel=False,
    )


def _plan(rows: int, features: int) -> Any:
    from torchrec.distributed.types import (
        EmbeddingModuleShardingPlan,
        EnumerableShardingSpec,
        ParameterSharding,
        ShardMetadata,
    )

    shares = [share_of_rows(rows, worker) for worker in range(workers())]
    parts = [
        ShardMetadata([share.start, 0], [share.stop - share.start, features], placement=f"rank:{worker}/cpu")
        for worker, share in enumerate(shares)
    ]
    spec = EnumerableShardingSpec(parts)
    whole = ParameterSharding(
        sharding_type="row_wise", compute_kernel="fused", ranks=list(range(workers())), sharding_spec=spec
    )
    return EmbeddingModuleShardingPlan({"rows": whole})


class Shards:
    """The table of a model in the hands of the workers, from :func:`handed_over` to the file it ends in.

    The model's own table is replaced, until :meth:`give_back`. All methods but :meth:`whole_names`, :meth:`own_names`
    and :meth:`remember` are to be called by all workers together.

    Args:
        model: as it was handed over.
        config: the settings.
        folder: of the hand-over.
    """

    def __init__(self, model: MultiDomainModel, config: TrainingConfig, folder: Path) -> None:
        self._embedding, self._folder = model.inputs.embedding, folder
        self._replaced = self._embedding.table
        tables = [id(table) for table in sparse_tables(model)]
        self.place = tables.index(id(self._replaced.weight))  # among the tables of the embedding optimizer
        rows, features = self._replaced.weight.shape
        self.rows, self.features = rows, features
        self.table = ShardedTable(
            rows=rows,
            features=features,
            lr=config.embedding_learning_rate or config.learning_rate,
            weight_decay=config.embedding_weight_decay,
        )
        self._fill(self.table.weight, folder / _START, TABLE)
        self.best = torch.zeros(0, features)
        self._put(self.table)

    def give_back(self) -> None:
        """Put the model's own table back; its values come from the hand-over."""
        self._put(self._replaced)

    def _put(self, table: nn.Module) -> None:
        self._embedding.add_module("table", table)

    def remember(self) -> None:
        """Keep a copy of the own rows: they are of the best epoch."""
        if len(self.best) != len(self.table.weight):
            self.best = torch.empty_like(self.table.weight)
        self.best.copy_(self.table.weight)

    def finish(self) -> None:
        """Leave the table of the best epoch in a file."""
        self._together(self._folder, {_END: ({}, {TABLE: (self._shape(), self.best)})})

    def restore(self, path: Path | None, last_is_best: bool) -> None:
        """Read the own rows and their state from a checkpoint of any number of workers, where the first found one."""
        path, last_is_best = object_from_first((path, last_is_best))
        if path is None:
            return
        model, optimizers, best = (path / f"{name}.safetensors" for name in ("model", "optimizers", "best"))
        self._fill(self.table.weight, model, TABLE)
        self._fill(self.table.square, optimizers, f"embeddings.{self.place}.square")
        self.table.steps = int(pieces.mapped(optimizers, f"embeddings.{self.place}.step"))
        self.best = torch.empty_like(self.table.weight)
        self._fill(self.best, model if last_is_best else best, TABLE)

    def save(self, folder: Path | None, parts: Mapping[str, Mapping[str, Tensor]], last_is_best: bool) -> None:
        """Write a checkpoint's files, the same as those of one worker.

        Args:
            folder: of the checkpoint; the first worker's counts.
            parts: of the files ``model``, ``optimizers`` and ``best`` all but the table; the first worker's count.
            last_is_best: whether the last epoch is the best: then ``best`` is empty.
        """
        square = {f"embeddings.{self.place}.square": (pieces.Shape((self.rows,)), self.table.square)}
        later = {"model": {TABLE: (self._shape(), self.table.weight)}, "optimizers": square, "best": {}}
        if not last_is_best:
            later["best"] = {TABLE: (self._shape(), self.best)}
        files = {f"{name}.safetensors": (parts.get(name, {}), of) for name, of in later.items()}
        self._together(folder, files)

    def whole_names(self, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of the optimizers (``embeddings.0.square``, …) named as if they had the table, too."""
        step = {f"embeddings.{self.place}.step": torch.tensor(float(self.table.steps))}
        return {_moved(name, self.place, 1): value for name, value in moments.items()} | step

    def own_names(self, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse, of all but the state of the table."""
        return {_moved(name, self.place, -1): value for name, value in moments.items() if name not in self.names}

    @property
    def names(self) -> tuple[str, ...]:
        """What the files of a checkpoint call the table and its state."""
        return TABLE, *(f"embeddings.{self.place}.{part}" for part in ("step", "square"))

    @property
    def nbytes(self) -> int:
        """What the table takes in a checkpoint, at most."""
        return 4 * self.rows * (2 * self.features + 1)

    def _fill(self, rows: Tensor, path: Path, name: str) -> None:
        pieces.fill(rows, path, name, self.table.own.start)

    def _shape(self) -> pieces.Shape:
        return pieces.Shape((self.rows, self.features))

    def _together(
        self,
        folder: Path | None,
        files: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, tuple[pieces.Shape, Tensor]]]],
    ) -> None:
        """Every file's tensors of the first worker, and of those that all have parts of, each its own rows."""
        if rank() == 0:
            assert folder is not None
            for name, (whole, divided) in files.items():
                pieces.begin(folder / name, whole, {key: shape for key, (shape, _) in divided.items()})
        folder = Path(object_from_first(folder))
        for name, (_, divided) in files.items():
            for key, (_, values) in divided.items():
                pieces.put(folder / name, key, values, self.table.own.start)
        meet()


def _moved(name: str, place: int, by: int) -> str:
    optimizer, number, key = name.split(".")
    if optimizer != "embeddings" or int(number) < place:
        return name
    return f"{optimizer}.{int(number) + by}.{key}"
