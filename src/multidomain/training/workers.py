"""Several processes that train one model: started here, or by torchrun.

Every batch is that of one process; each worker works on its share of the rows, and gradients, statistics and scores are
those of the whole (:mod:`.exchange`, :mod:`multidomain.layers.synchronised`). The same seed therefore gives the same
losses with any number of workers up to rounding, dropout aside, whose random numbers are each worker's own. The first
worker writes checkpoints and shows the progress. The messages are gloo's on CPUs and NCCL's on GPUs.

``training.workers: N`` starts N processes on this machine, by PyTorch's elastic agent: where one is lost, all are
started again and go on after the last checkpoint. An error that a worker raises ends them all and is raised here.

Under torchrun every process is given the same command. The first does what it says; the others wait in :func:`serve`
for trainings to take part in, until :func:`dismiss`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ..errors import ConfigurationError, DataError, UserError
from ..layers.synchronised import LostPeer, object_from_first
from ..models.base import MultiDomainModel
from ..tensors import EncodedSplit
from . import shards, torchrun
from .checkpoint import plain_weights
from .config import TrainingConfig
from .device import available_cores, choose_device
from .guard import TrainingError

if TYPE_CHECKING:
    from .loop import TrainingResult

logger = logging.getLogger(__name__)
RESTARTS = 3  # after workers that were lost, before giving up
_JOB, _ERROR, _WEIGHTS, _RESULT = "job.pt", "error.json", "weights.safetensors", "result.json"
_PATIENCE = timedelta(minutes=30)  # with a worker that says nothing
_IDLE = timedelta(days=7)  # under torchrun the others wait while the first prepares


@dataclass(frozen=True)
class Job:
    """One training, as :func:`.loop.fit` takes it; and where its table is, if that is divided among the workers."""

    model: MultiDomainModel
    train: EncodedSplit
    validation: EncodedSplit
    config: TrainingConfig
    seed: int
    checkpoints: Path
    device: str | torch.device | None
    show_progress: bool
    architecture: Mapping[str, Any] | None
    table: Path | None = None

    def packed(self) -> bytes:
        """What another process needs; the rows are read from their folder there."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("train", "validation"):
            parts[name] = (str(parts[name].folder.resolve()), parts[name].split)
        held = io.BytesIO()
        torch.save(parts, held)
        return held.getvalue()

    @classmethod
    def unpacked(cls, held: bytes) -> Job:
        """The job in this process."""
        parts = torch.load(io.BytesIO(held), map_location="cpu", weights_only=False)  # written by the first process
        for name in ("train", "validation"):
            parts[name] = EncodedSplit(*parts[name])
        return cls(**parts)

    def check(self, number: int) -> None:
        """Raises unless so many workers have something to do, and on GPUs one each; warns of too few cores."""
        self.config.check_workers(number)
        if self.train.rows < number:
            raise DataError(
                f"training: workers is {number}, but the {self.train.split} split has {self.train.rows:,} rows "
                f"({self.train.folder}). Choose fewer workers."
            )
        here = int(os.environ.get("LOCAL_WORLD_SIZE", number))
        if choose_device(self.device).type == "cuda" and here > torch.cuda.device_count():
            raise ConfigurationError(
                f"training: workers is {here}, but this machine has {torch.cuda.device_count()} GPUs, and each worker "
                "takes one. Choose fewer workers, or device: cpu."
            )
        if self.config.embedding_shards != "none":
            shards.check(self.model, number, choose_device(self.device))
        if choose_device(self.device).type == "cpu" and here > available_cores():
            logger.warning("%d workers share %d cores: fewer would be faster.", here, available_cores())


def several(config: TrainingConfig) -> bool:
    """Whether a training called for in this process is to be done by several."""
    return config.workers > 1 or torchrun.process() is not None


def fit_together(job: Job) -> TrainingResult:
    """Train with workers; ``job.model`` then holds the weights of the best epoch.

    Raises:
        ConfigurationError, DataError: so many workers cannot be.
        TrainingError: workers were lost again and again.
        UserError: whatever a worker raised.
    """
    if torchrun.process() is None:
        job.check(job.config.workers)
        return _start(job)
    job.check(int(os.environ["WORLD_SIZE"]))
    _join(job.device, _IDLE)
    with _folder(job) as folder, _handed_over(job, folder) as handed:
        object_from_first(handed.packed())
        return _fit(handed)


def serve() -> None:
    """Take part in the trainings of the first process of torchrun until it is done."""
    _join(None, _IDLE)
    while (held := object_from_first(None)) is not None:
        _fit(Job.unpacked(held))
    dist.destroy_process_group()


def dismiss() -> None:
    """Let the other processes of torchrun end: there is no training left."""
    if torchrun.process() is not None:
        _join(None, _IDLE)
        object_from_first(None)
        dist.destroy_process_group()


def _fit(job: Job) -> TrainingResult:
    """The part of this process, one of the workers."""
    from .loop import fit_here

    device = choose_device(job.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    splits = (job.train, job.validation)
    shown = job.show_progress
    return fit_here(
        job.model, *splits, job.config, job.seed, job.checkpoints, device, shown, job.architecture, table=job.table
    )


def _join(device: str | torch.device | None, timeout: timedelta, attempt: int = 0) -> None:
    """Meet the other workers.

    The agent keeps one store over all attempts, while PyTorch takes it for new in each (2.13): what the lost workers
    have left in it would be taken for an address of the new ones, so every attempt has names of its own.
    """
    if dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if choose_device(device).type == "cuda" else "gloo"
    try:
        store, number, size = next(rendezvous("env://", timeout=timeout))
        store = PrefixStore(f"attempt-{attempt}", store)
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=timeout)
    except RuntimeError as error:
        raise LostPeer(f"The workers did not find each other: {error}") from error


def _start(job: Job) -> TrainingResult:
    """Train in processes of this machine, and read what the first has left."""
    from safetensors.torch import load_file

    from .loop import TrainingResult

    with _folder(job) as folder, _handed_over(job, folder) as handed:
        (folder / _JOB).write_bytes(handed.packed())
        failure = _launched(job.config, folder)
        if (folder / _ERROR).exists():
            raise _told(json.loads((folder / _ERROR).read_text(encoding="utf-8")))
        if failure is not None:
            raise TrainingError(failure)
        weights, result = load_file(folder / _WEIGHTS), json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        job.model.load_state_dict(weights, strict=handed.table is None)  # the table comes by itself
    job.model.logit_offset = result.pop("logit_offset")
    job.model.eval()
    return TrainingResult(**result)


@contextlib.contextmanager
def _folder(job: Job) -> Iterator[Path]:
    """For what this process and the workers tell each other by files; what a killed one has left is removed."""
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    for left_over in job.checkpoints.glob("workers-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="workers-", dir=job.checkpoints) as name:
        yield Path(name)


@contextlib.contextmanager
def _handed_over(job: Job, folder: Path) -> Iterator[Job]:
    """The job as its workers get it: without the table, where that is to be divided among them."""
    if job.config.embedding_shards == "none":
        yield job
        return
    with shards.handed_over(job.model, folder):
        yield replace(job, table=folder.resolve())


def _launched(config: TrainingConfig, folder: Path) -> str | None:
    """Run the workers to their end; what to say if they were lost too often."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    number, linux = config.workers, sys.platform == "linux"
    if linux:  # a warm process that workers are forked from, CUDA untouched: they start in no time, again too
        more = [] if config.embedding_shards == "none" else shards.MODULES
        needed = ["torch._dynamo", "multidomain.training.loop", "multidomain.models", *more]
        multiprocessing.set_forkserver_preload(needed)
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=RESTARTS,
        start_method="forkserver" if linux else "spawn",
    )
    level = logging.getLogger("multidomain").getEffectiveLevel()
    try:
        with _own_signals():
            elastic_launch(launch, _work)(str(folder), os.getpid(), level)
    except ChildFailedError as error:
        worker, failure = error.get_first_failure()
        how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        return (
            f"The {number} workers were started {RESTARTS + 1} times, and each time one was lost; at last worker "
            f"{worker} ({how}). Often memory is short: try fewer workers or a smaller batch_size. The same command "
            "goes on after the last checkpoint."
        )
    return None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """The agent answers signals with an exception of its own, and goes on doing so when it has ended."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    here = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)} if here else {}
    try:
        yield
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _work(folder_name: str, parent: int, level: int) -> None:
    """What a worker does, in a process of its own."""
    folder, number = Path(folder_name), int(os.environ["RANK"])
    if (folder / _ERROR).exists():
        return  # started again after an error that would only come again
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    logging.basicConfig(level=level if number == 0 else logging.WARNING, format="%(message)s")
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if again:
        logger.warning("A worker was lost; all of them start again (%d of %d times)", again, RESTARTS)
    try:
        job = Job.unpacked((folder / _JOB).read_bytes())
        _join(job.device, _PATIENCE, again)
        result = _fit(job)
        if number == 0:
            _leave(job, result, folder)
        dist.destroy_process_group()
    except LostPeer:
        raise
    except Exception as error:
        _record(error, number, folder)
        raise


def _leave(job: Job, result: TrainingResult, folder: Path) -> None:
    from safetensors.torch import save_file

    apart = () if job.table is None else (shards.TABLE,)
    save_file(plain_weights(job.model, *apart), folder / _WEIGHTS)
    text = json.dumps({**asdict(result), "logit_offset": job.model.logit_offset})
    (folder / _RESULT).write_text(text, encoding="utf-8")


def _record(error: Exception, worker: int, folder: Path) -> None:
    """Leave the first error of any worker: where another's is lost because of it, that is no news."""
    kind = type(error)
    told = {"module": kind.__module__, "name": kind.__qualname__, "message": str(error), "worker": worker}
    own = folder / f"{_ERROR}.{worker}"
    own.write_text(json.dumps({**told, "trace": traceback.format_exc()}), encoding="utf-8")
    with contextlib.suppress(FileExistsError):
        os.link(own, folder / _ERROR)


def _told(error: Mapping[str, Any]) -> Exception:
    """A user's error as it was raised in the worker; another with its trace."""
    try:
        kind = getattr(importlib.import_module(error["module"]), error["name"])
    except (ImportError, AttributeError):
        kind = None
    if isinstance(kind, type) and issubclass(kind, UserError):
        return kind(error["message"])
    return RuntimeError(f"Worker {error['worker']} failed.\n{error['trace']}")


def _end_with(parent: int) -> None:
    """Ends this process when the one that started the workers is gone, which would otherwise train on unseen."""
    while True:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)
