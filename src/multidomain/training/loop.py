"""The one training loop."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..errors import DataError
from ..evaluation.metrics import auc
from ..layers import synchronised
from ..models.base import MultiDomainModel
from ..progress import progress
from ..tensors import EncodedSplit
from .agreement import agree, settle
from .checkpoint import Checkpoints, TrainingState, fingerprint, plain_weights, require_room
from .config import TrainingConfig
from .device import choose_device, keep_freed_memory, use_available_cores
from .exchange import GradientExchange
from .guard import GradientGuard, TrainingError
from .loading import EpochLoader
from .moments import settle_moments
from .optimizers import Optimizers
from .prediction import logits
from .sampling import offset
from .shards import Shards
from .step import Step
from .weights import sample_weights
from .workers import Job, fit_together, several

logger = logging.getLogger(__name__)
REFRESH = {"cuda": 50, "cpu": 10}  # steps between two looks at the numbers (progress bar, gradients): CUDA must wait
_STILL_RISING = 0.002  # of validation AUC in the last epoch allowed: worth a word
_SHOWN_BATCHES = 10  # the running AUC is that of the last batches


@dataclass(frozen=True)
class TrainingResult:
    """What a run has to tell.

    Attributes:
        history: per epoch: epoch (from 1), train_loss (auxiliary loss included), validation_loss (log loss),
            validation_auc, seconds (validation included), rows_per_second (in training), and what
            ``model.diagnostics()`` told then.
        best_epoch: the epoch whose weights the model holds now.
        resumed_epoch: the last epoch that a checkpoint contributed; 0 when training began anew.
    """

    history: list[dict[str, float]]
    best_epoch: int
    resumed_epoch: int = 0


def fit(
    model: MultiDomainModel,
    train: EncodedSplit,
    validation: EncodedSplit,
    config: TrainingConfig,
    *,
    seed: int,
    checkpoints: Path,
    device: str | torch.device | None = None,
    show_progress: bool = True,
    architecture: Mapping[str, Any] | None = None,
    after_epoch: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainingResult:
    """Trains the model in place; when it returns, the model holds the weights of the best epoch.

    The loss is the mean binary cross entropy plus ``model.auxiliary_loss()``. The same seed gives the same weights, bit
    by bit, on the same machine, also when a run was killed and started again: it goes on after the last whole epoch
    found in `checkpoints`, which are removed when training has ended.

    With ``config.workers``, or under torchrun, several processes train together (:mod:`.workers`); `after_epoch` then
    gets all lines when they have ended.

    Args:
        model: freshly built (with a seed of the caller's, if runs are to be repeatable).
        train: rows to learn from.
        validation: rows that choose the best epoch.
        config: the settings.
        seed: with the epoch, decides the order of rows, dropout and every other random draw.
        checkpoints: a folder for this run alone.
        device: None takes CUDA, with bf16 products, when present, and the CPU otherwise.
        show_progress: draw a progress bar per epoch.
        architecture: the model's configuration; a checkpoint made with another one is not used.
        after_epoch: gets each line of the history, those of a checkpoint too; an exception of its ends training.

    Raises:
        DataError: a split is empty, or all its labels are the same.
        TrainingError: a loss, gradient or score is not finite.
    """
    for split in (train, validation):
        check_labels(split)
    if several(config):
        job = Job(model, train, validation, config, seed, checkpoints, device, show_progress, architecture)
        result = fit_together(job)
        for line in result.history if after_epoch else ():
            after_epoch(line)  # type: ignore[misc]
        return result
    return fit_here(
        model, train, validation, config, seed, checkpoints, device, show_progress, architecture, after_epoch
    )


def fit_here(
    model: MultiDomainModel,
    train: EncodedSplit,
    validation: EncodedSplit,
    config: TrainingConfig,
    seed: int,
    checkpoints: Path,
    device: str | torch.device | None,
    show_progress: bool,
    architecture: Mapping[str, Any] | None,
    after_epoch: Callable[[Mapping[str, float]], None] | None = None,
    *,
    table: Path | None = None,
) -> TrainingResult:
    """:func:`fit` in this process: alone, or as one of the workers; `table` is where one divided among them is."""
    first = synchronised.rank() == 0
    chosen = choose_device(device)
    use_available_cores(synchronised.workers())
    keep_freed_memory()
    identity: dict[str, str] = {}
    if first:
        require_room(checkpoints, model)
        identity = fingerprint(model, train, validation, config, seed=seed, architecture=architecture)
    if model.logit_offset is None:  # not of an earlier training
        model.logit_offset = offset(config.negative_rate)
    with _divided(model.to(chosen), config, table) as shards:
        run = _Run(model, train, validation, config, seed, chosen, show_progress and first, shards)
        kept = Checkpoints(checkpoints, identity, shards) if first else None  # the first worker's alone
        with torch.random.fork_rng(devices=[chosen] if chosen.type == "cuda" else []):
            return run.all_epochs(kept, after_epoch)


@contextmanager
def _divided(model: MultiDomainModel, config: TrainingConfig, folder: Path | None) -> Iterator[Shards | None]:
    """Within, the model's table is divided among the workers, if it was handed over for that."""
    if folder is None:
        yield None
        return
    shards = Shards(model, config, folder)
    try:
        yield shards
    finally:
        shards.give_back()


def check_labels(split: EncodedSplit) -> None:
    """Raises a DataError when the split is empty or has labels of one class only."""
    if split.rows == 0:
        raise DataError(f"The {split.split} split has no rows ({split.folder}). Choose another split or label.")
    low, high = split.label.min(), split.label.max()
    if not (low == 0 and high == 1):
        found = f"all {split.rows:,} labels are {low:g}" if low == high else f"labels range from {low:g} to {high:g}"
        raise DataError(
            f"The {split.split} split cannot be used: {found}, both 0 and 1 are needed ({split.folder}). "
            "Choose another split or label, or more rows."
        )


class _Run:
    """One call of :func:`fit`."""

    def __init__(
        self,
        model: MultiDomainModel,
        train: EncodedSplit,
        validation: EncodedSplit,
        config: TrainingConfig,
        seed: int,
        device: torch.device,
        show_progress: bool,
        shards: Shards | None = None,
    ) -> None:
        self.shards = shards
        self.model, self.validation, self.config, self.seed, self.device = model, validation, config, seed, device
        self.show_progress = show_progress
        self.loader = EpochLoader(
            train,
            batch_size=config.batch_size,
            seed=seed,
            batching=config.batching,
            window=config.shuffle_window,
            device=device,
            negative_rate=config.negative_rate,
            weights=sample_weights(train) if config.sample_weight else None,
        )
        self.optimizers = Optimizers(model, config, steps_per_epoch=self.loader.steps)
        self.exchange = None if synchronised.alone() else GradientExchange(model)
        self.guard = GradientGuard(model, config)
        self.update = Step(
            model,
            self.optimizers,
            self.guard,
            device=device,
            offset=offset(config.negative_rate),
            precision=config.precision,
            exchange=self.exchange,
        )
        self.validation_label = np.array(validation.label)

    def all_epochs(
        self, checkpoints: Checkpoints | None, after_epoch: Callable[[Mapping[str, float]], None] | None
    ) -> TrainingResult:
        state = checkpoints.restore(self.model, self.optimizers) if checkpoints else self._begin()
        agree(self.model, self.optimizers, state)
        resumed, told = state.epoch, after_epoch or (lambda _: None)
        for line in state.history:
            told(line)
        while not self._ended(state):
            self._one_epoch(state)
            if checkpoints:
                checkpoints.save(self.model, self.optimizers, state)
            elif self.shards:
                self.shards.save(None, {}, state.best_epoch == state.epoch)
            told(state.history[-1])
        if self.shards:
            self.shards.finish()
        if checkpoints is None:
            return TrainingResult(state.history, state.best_epoch, resumed)
        self.model.load_state_dict(state.best_weights)
        self.model.eval()
        checkpoints.clear()
        best = state.history[state.best_epoch - 1]
        logger.info(
            "Trained %d epochs; the best was epoch %d: validation AUC %.4f, log loss %.4f",
            state.epoch,
            state.best_epoch,
            best["validation_auc"],
            best["validation_loss"],
        )
        self._say_if_still_rising(state)
        return TrainingResult(state.history, state.best_epoch, resumed)

    def _begin(self) -> TrainingState:
        """Of a worker that is not the first, which reads what there is."""
        if self.shards:
            self.shards.restore(None, False)
        return TrainingState()

    def _say_if_still_rising(self, state: TrainingState) -> None:
        """A log of few rows has few steps in an epoch: the number of epochs that suits a large one ends too early."""
        if state.epoch < 2 or state.best_epoch < self.config.epochs:
            return
        gain = state.history[-1]["validation_auc"] - state.history[-2]["validation_auc"]
        if gain > _STILL_RISING:
            logger.info(
                "Validation AUC was still rising (%+.4f in epoch %d, the last): more epochs may do better "
                "(training.epochs, now %d).",
                gain,
                state.epoch,
                self.config.epochs,
            )

    def _ended(self, state: TrainingState) -> bool:
        patience = self.config.patience
        out_of_patience = patience is not None and state.epoch - state.best_epoch >= patience
        return state.epoch >= self.config.epochs or (state.epoch > 0 and out_of_patience)

    def _one_epoch(self, state: TrainingState) -> None:
        epoch, start = state.epoch + 1, time.perf_counter()
        torch.manual_seed(_epoch_seed(self.seed, epoch))
        synchronised.seed_own(_epoch_seed(self.seed, epoch))
        with _Bar(self, state) as bar:
            train_loss, rows = self._train(epoch, bar)
            trained = time.perf_counter() - start
            settle(self.model, epoch)
            settle_moments(self.model, self.loader, epoch)
            loss, area = self._validate(epoch)
            score = area if self.config.monitor == "auc" else -loss
            better = score > state.best_score
            bar.finish(train_loss, area, better)
        numbers = {"train_loss": train_loss, "validation_loss": loss, "validation_auc": area}
        times = {"seconds": time.perf_counter() - start, "rows_per_second": rows / trained}
        diagnostics = self.model.diagnostics()
        state.history.append({"epoch": epoch, **numbers, **times, **diagnostics})
        shown = diagnostics if self.show_progress else numbers | diagnostics  # the bar shows the numbers
        if shown and synchronised.rank() == 0:
            logger.info("epoch %d: %s", epoch, ", ".join(f"{key} {value:.4f}" for key, value in shown.items()))
        if better:
            state.best_epoch, state.best_score, state.best_weights = epoch, score, plain_weights(self.model)
            if self.shards:
                self.shards.remember()

    def _train(self, epoch: int, bar: _Bar) -> tuple[float, int]:
        """Mean loss and number of rows of the epoch."""
        self.model.train()
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        rows, refresh = 0, REFRESH.get(self.device.type, 50)
        with closing(self.loader.epoch(epoch)) as batches:
            for step, batch in enumerate(batches, start=1):
                loss = self._step(epoch, step, batch, bar)
                size = synchronised.place(len(batch)).rows
                total += loss * size
                rows += size
                if step % refresh == 0:
                    self.guard.check(epoch)
                    bar.refresh(total, rows)
        self.guard.check(epoch)
        return (total / rows).item(), rows

    def _step(self, epoch: int, step: int, batch: Batch, bar: _Bar) -> Tensor:
        number = (epoch - 1) * self.loader.steps + step - 1
        loss, scores = self.update(batch, epoch=epoch, step=step, number=number)
        bar.saw(scores, batch.label)
        return loss

    def _validate(self, epoch: int) -> tuple[float, float]:
        """Log loss and AUC."""
        together, size = self.exchange is not None, self.config.evaluation_batch_size
        scores = logits(self.model, self.validation, self.device, size, together=together).astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise TrainingError(
                f"After epoch {epoch} the scores of {len(bad):,} of {len(scores):,} validation rows are not finite, "
                f"the first in row {bad[0]}. Lower learning_rate (now {self.config.learning_rate:g}), and look for "
                "infinite values in the numerical features."
            )
        loss = float(np.mean(np.logaddexp(0.0, scores) - self.validation_label * scores))
        return loss, float(auc(self.validation_label, scores))


class _Bar:
    """The progress bar of one epoch: rows/s, loss, AUC of the last batches, best validation score so far."""

    def __init__(self, run: _Run, state: TrainingState) -> None:
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=_SHOWN_BATCHES)
        self._best = f" best={abs(state.best_score):.4f}" if state.best_epoch else ""
        self._monitor = run.config.monitor
        what = f"epoch {state.epoch + 1}/{run.config.epochs}"
        self._bar = progress(total=run.loader.rows, what=what, shown=run.show_progress)

    def saw(self, scores: Tensor, label: Tensor) -> None:
        """Keeps the scores of a batch, where they are."""
        if not self._bar.disable:
            self._last.append((scores, label))

    def refresh(self, total: Tensor, rows: int) -> None:
        """Shows the mean loss so far; waits for the device."""
        if self._bar.disable:
            return
        scores = torch.cat([scores for scores, _ in self._last]).float().cpu().numpy()
        label = torch.cat([label for _, label in self._last]).cpu().numpy()
        area = auc(label, scores)
        self._bar.set_postfix_str(f"loss={total.item() / rows:.4f} auc={area:.4f}{self._best}", refresh=False)
        self._bar.update(rows - self._bar.n)

    def finish(self, loss: float, area: float, better: bool) -> None:
        """Leaves the epoch's numbers standing."""
        mark = " (best)" if better else self._best
        self._bar.set_postfix_str(f"loss={loss:.4f} validation_auc={area:.4f}{mark}", refresh=False)
        self._bar.update(self._bar.total - self._bar.n)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def _epoch_seed(seed: int, epoch: int) -> int:
    """Unrelated seeds for neighbouring epochs and seeds."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
