"""The loop over a stream: score, put into the buffer, learn a batch of it.

Rows are worked on ``batch_size`` at a time, whatever the pieces in which they arrive, so that the same stream gives the
same weights, bit by bit, whether files are large or small, Redis is quick or slow, however often the run was killed.
Memory stays as it is once the buffer is full: what waits to be written goes with a checkpoint, which is due after so
many rows scored, so many bad ones, and so many learnt after the last had come.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..batch import Batch
from ..encoder import Encoder
from ..io.atomic import replacing
from ..models import build
from ..models.base import MultiDomainModel
from ..progress import progress as bar_of
from ..training.checkpoint import load_optimizer_tensors, optimizer_tensors, plain_weights, require_room
from ..training.config import TrainingConfig
from ..training.device import choose_device, use_available_cores
from ..training.growth import Growth, grow, grow_optimizers
from ..training.guard import GradientGuard, TrainingError
from ..training.loop import REFRESH
from ..training.optimizers import Optimizers
from ..training.step import Step
from . import rows as stream_rows
from .buffer import Buffer, Queue, Waiting
from .checkpoint import Progress, Saved, StreamCheckpoints
from .options import StreamOptions, check_training
from .prequential import Prequential
from .source import MOST_BAD, Bad, Source, Tick, ticks
from .vocabulary import Candidates, Vocabularies, translated, translations

logger = logging.getLogger(__name__)
REJECTED, LEDGER = "rejected", "ledger"


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a stream starts from.

    Attributes:
        encoder: that fits the weights.
        weights: a model's state; None: begin with random ones.
        logit_offset: of that model.
        source: where it was found, for messages.
    """

    encoder: Encoder
    weights: Mapping[str, torch.Tensor] | None = None
    logit_offset: float = 0.0
    source: str = "random weights"


class Stream:
    """One architecture, trained on one stream.

    Args:
        architecture, config: of the model.
        begin: gives what to start from; not asked where a checkpoint is.
        options: the section ``stream``.
        training: its settings of a step.
        seed: decides every draw.
        folder: keeps checkpoints, prequential windows, rejected rows; nobody else's.
        identity: more that a checkpoint must agree with.
        device: None takes CUDA when present.
        package: called every ``package_rows`` rows, after a checkpoint.
        show_progress: draw a progress bar.

    Attributes:
        model, encoder: of now.
        progress: how far the stream has come.
        recent: the rows since the last version as they came, with ``score``, at most ``gate_rows``, oldest first.

    Raises:
        ConfigurationError: settings that a stream cannot follow, or a checkpoint of others.
    """

    _vocabularies: Vocabularies

    def __init__(
        self,
        *,
        architecture: str,
        config: Mapping[str, Any],
        begin: Callable[[], Beginning],
        options: StreamOptions,
        training: TrainingConfig,
        seed: int,
        folder: Path,
        identity: Mapping[str, Any] | None = None,
        device: str | None = None,
        package: Callable[[Stream], None] | None = None,
        show_progress: bool = True,
    ) -> None:
        check_training(training, options)
        self.architecture, self.config, self.options, self.training = architecture, dict(config), options, training
        self.seed, self.folder, self.device, self._packager = seed, folder, choose_device(device), package
        self.show_progress = show_progress
        use_available_cores()
        everything = {
            "architecture": architecture,
            "model": self.config,
            "training": training.settings(),
            "stream": options.settings(),
            "seed": seed,
        }
        self._checkpoints = StreamCheckpoints(folder / "checkpoints", {**everything, **(identity or {})})
        saved = self._checkpoints.restore()
        if saved is None:
            start = begin()
            logger.info("The stream begins with %s", start.source)
            saved = Saved(Progress(), start.encoder, {}, {}, {}, {}, {}, logit_offset=start.logit_offset)
            saved.weights = dict(start.weights or {})
        self._take(saved)

    def run(self, source: Source) -> Progress:
        """Follow the stream until it ends, then learn what waits in the buffer.

        Raises:
            DataError: rows that nobody can read.
            TrainingError: a loss, gradient or score is not finite.
        """
        if self._package_is_due():  # a crash came between the checkpoint and this
            self._package()
        with bar_of(total=None, what=f"stream {self.architecture}", shown=self.show_progress) as bar:
            bar.update(self.progress.rows)
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                chunks = source.chunks(self.progress.position)
                for tick in ticks(chunks, self.training.batch_size, most_bad=MOST_BAD):
                    self._tick(tick, source)
                    bar.update(len(tick.rows))
                    bar.set_postfix_str(self._told(), refresh=False)
                self._learn_the_rest()
        self._prequential.finish()
        self._save(source)
        return self.progress

    def batches(self) -> Mapping[str, Any]:
        """What waits, for those who look: ``size``, ``rows`` and ``nbytes`` of the buffer."""
        return {"size": self._waiting.size, "rows": self._waiting.rows, "nbytes": self._waiting.nbytes}

    def score(self, rows: pa.Table) -> np.ndarray:
        """Probabilities (N,) float64 of rows of a stream's columns, as the model is now; none of them is learnt."""
        return self._score(stream_rows.arrays(self.encoder, rows))

    # --- rows ----------------------------------------------------------------------------------------------------

    def _tick(self, tick: Tick, source: Source) -> None:
        before = self.progress.rows
        if len(tick.rows):
            arrays = stream_rows.arrays(self.encoder, tick.rows)
            scores = self._score(arrays)
            self._prequential.saw(arrays["label"], scores, arrays["domain"])
            self.progress.rows += len(tick.rows)
            self._vocabularies.saw(tick.rows, arrays, self.progress.rows)
            self._keep(tick.rows, scores)
            self._wait(arrays)
        self._bad += tick.bad
        self.progress.rejected += len(tick.bad)
        self.progress.position = tick.position
        now = self.progress.rows
        if self._vocabularies.due(before, now) and (growth := self._vocabularies.change(now)) is not None:
            self._grow(growth)
        if self._checkpoint_is_due(before, now) or len(self._bad) >= MOST_BAD or self._package_is_due():
            self._save(None if tick.last else source)  # the source is told of its end when all is learnt
        if self._package_is_due():
            self._package()

    def _learn_the_rest(self) -> None:
        """What waits when no more rows come, with checkpoints on the way."""
        while self._waiting.size:
            before = self.progress.learnt
            self._learn()
            if self._checkpoint_is_due(before, self.progress.learnt):
                self._save(None)

    def _checkpoint_is_due(self, before: int, now: int) -> bool:
        """Whether there is one between two counts of rows."""
        every = self.options.checkpoint_rows
        return before // every != now // every

    def _wait(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Into the buffer; whenever it is full, a batch of it is learnt."""
        start, count = 0, len(arrays["label"])
        while start < count:
            stop = min(start + self._waiting.room, count)
            self._waiting.add({name: values[start:stop] for name, values in arrays.items()})
            start = stop
            if self._waiting.full:
                self._learn()

    def _score(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities (N,) float64 in evaluation mode, before anything is learnt of these rows."""
        self.model.eval()
        with torch.inference_mode():
            logits = self.model(_batch(self.encoder, arrays).to(self.device)).double().cpu()
        scores: np.ndarray = torch.sigmoid(logits).numpy()
        if not np.isfinite(scores).all():
            self._guard.check(1)
            raise TrainingError(
                f"After {self.progress.steps:,} steps the scores of {int((~np.isfinite(scores)).sum()):,} of "
                f"{len(scores):,} rows are not finite. Lower learning_rate (now {self.training.learning_rate:g}), "
                f"remove {self.folder} and begin anew, from a packaged version (warm_start) if there is one."
            )
        return scores

    def _learn(self) -> None:
        self.progress.steps += 1
        step = self.progress.steps
        arrays = self._waiting.draw(step)
        torch.manual_seed(_seed(self.seed, step))
        self.model.train()
        self._step(_batch(self.encoder, arrays).to(self.device), epoch=1, step=step, number=step - 1)
        self.progress.learnt += len(arrays["label"])
        if self.options.ledger:
            self._ledger.append((step, arrays["impression_id"]))
        if step % REFRESH.get(self.device.type, 50) == 0:
            self._guard.check(1)

    def _keep(self, table: pa.Table, scores: np.ndarray) -> None:
        """The rows since the last version, for the gate."""
        if self._packager is None or self.options.package_rows is None:
            return
        self._recent.append(table.append_column("score", pa.array(scores)))
        while sum(map(len, self._recent)) - len(self._recent[0]) >= self.options.gate_rows:
            self._recent.pop(0)

    @property
    def recent(self) -> pa.Table:
        """See the class."""
        if not self._recent:
            return stream_rows.wanted(self.encoder).empty_table()
        table = pa.concat_tables(self._recent)
        return table.slice(max(len(table) - self.options.gate_rows, 0))

    # --- the model -----------------------------------------------------------------------------------------------

    def _grow(self, growth: Growth) -> None:
        """The model for the new vocabularies; rows that wait are translated."""
        self._guard.check(1)
        weights, moments = plain_weights(self.model), optimizer_tensors(self._optimizers)
        offset, names = self.model.logit_offset, (self.architecture, self.config)
        del self.model, self._optimizers, self._step, self._guard
        self._make(growth.new, offset)
        self.model.load_state_dict(grow(weights, self.model, growth, *names))
        load_optimizer_tensors(self._optimizers, grow_optimizers(moments, self.model, self._optimizers, growth, *names))
        self.encoder = self._vocabularies.encoder
        self.progress.entered, self.progress.left = self._vocabularies.entered, self._vocabularies.left
        for name, by_column in translations(growth, growth.new).items():
            self._waiting.change(name, lambda ids, by=by_column: translated(ids, by))  # type: ignore[misc]
        logger.info("After %s rows:\n%s", f"{self.progress.rows:,}", growth.describe())

    def _make(self, inputs: Any, offset: float | None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.model: MultiDomainModel = build(self.architecture, inputs, **self.config).to(self.device)
        self.model.logit_offset = offset
        self._optimizers = Optimizers(self.model, self.training, steps_per_epoch=1)
        self._guard = GradientGuard(self.model, self.training)
        precision = self.training.precision
        self._step = Step(self.model, self._optimizers, self._guard, device=self.device, precision=precision)

    # --- what is kept --------------------------------------------------------------------------------------------

    def _take(self, saved: Saved) -> None:
        """Go on from here."""
        options, size = self.options, self.training.batch_size
        self.progress, self.encoder = saved.progress, saved.encoder
        self._make(saved.encoder.inputs, saved.logit_offset)
        if saved.weights:
            self.model.load_state_dict(saved.weights)
        if saved.optimizers:
            load_optimizer_tensors(self._optimizers, saved.optimizers)
        require_room(self._checkpoints.folder, self.model)
        self._waiting: Waiting = (
            Buffer(rows=options.buffer_rows, batch_size=size, seed=self.seed)
            if options.order == "buffer"
            else Queue(rows=size, batch_size=size)
        )
        self._waiting.load(saved.waiting)
        self._vocabularies = Vocabularies(saved.encoder, options.vocabulary)
        if saved.seen:
            self._vocabularies.seen = {name: array.copy() for name, array in saved.seen.items()}
        self._vocabularies.candidates |= {name: Candidates(dict(one)) for name, one in saved.candidates.items()}
        self._vocabularies.entered, self._vocabularies.left = saved.progress.entered, saved.progress.left
        self._prequential = Prequential(self.folder, saved.encoder.domains, options.report_rows)
        self._prequential.restore(*saved.progress.window, saved.window)
        self._recent = [saved.recent] if saved.recent is not None else []
        self._bad: list[Bad] = []
        self._ledger: list[tuple[int, np.ndarray]] = []
        for name in (REJECTED, LEDGER):
            for path in (self.folder / name).glob("*.parquet"):  # of after the checkpoint: they come again
                if int(path.stem) > self.progress.saves:
                    path.unlink()

    def _save(self, source: Source | None) -> None:
        """A checkpoint; only then is the source told that its rows are safe (None: later)."""
        self._guard.check(1)
        self.progress.saves += 1
        self._write_parts()
        window = self._prequential.window
        self.progress.window = (window.number, window.start)
        saved = Saved(
            progress=self.progress,
            encoder=self.encoder,
            weights=plain_weights(self.model),
            optimizers=optimizer_tensors(self._optimizers),
            waiting=self._waiting.state(),
            window=window.state(),
            seen=self._vocabularies.seen,
            candidates={name: one.counts for name, one in self._vocabularies.candidates.items()},
            recent=self.recent if self._recent else None,
            logit_offset=self.model.logit_offset or 0.0,
        )
        self._checkpoints.save(saved)
        if source is not None and self.progress.position is not None:
            source.commit(self.progress.position)

    def _write_parts(self) -> None:
        """Rows rejected and impressions learnt since the last checkpoint, each part under the number of this one."""
        number = f"{self.progress.saves:08d}"
        if self._bad:
            columns = {
                "position": [json.dumps(one.position) for one in self._bad],
                "reason": [one.reason for one in self._bad],
                "row": [one.text for one in self._bad],
            }
            logger.warning("%d rows could not be learnt, such as: %s", len(self._bad), self._bad[0].reason)
            _write(self.folder / REJECTED / f"{number}.parquet", pa.table(columns))
        if self._ledger:
            steps = np.concatenate([np.full(len(ids), step, np.int64) for step, ids in self._ledger])
            ids = np.concatenate([ids for _, ids in self._ledger])
            _write(self.folder / LEDGER / f"{number}.parquet", pa.table({"step": steps, "impression_id": ids}))
        self._bad, self._ledger = [], []

    def _package_is_due(self) -> bool:
        """Whether ``package_rows`` rows have come since a version last was due."""
        every = self.options.package_rows
        if self._packager is None or every is None:
            return False
        return self.progress.rows // every != self.progress.packaged // every

    def _package(self) -> None:
        """A version of what the last checkpoint holds: after a crash meanwhile, the same weights are packaged again."""
        assert self._packager is not None
        self.model.eval()
        self._packager(self)
        self.progress.packaged = self.progress.rows
        self._recent = []  # the next one is compared on rows that this one never met

    def _told(self) -> str:
        last = " ".join(f"{name}={value:.4f}" for name, value in self._prequential.last.items())
        return f"waiting={self._waiting.size:,} {last}"


def _batch(encoder: Encoder, arrays: Mapping[str, np.ndarray]) -> Batch:
    inputs = encoder.inputs
    return Batch(
        categorical=torch.from_numpy(arrays["categorical"]),
        numerical=torch.from_numpy(arrays["numerical"]),
        history={name: torch.from_numpy(arrays[f"history_{name}"]) for name in inputs.history},
        bags={name: torch.from_numpy(arrays[f"bag_{name}"]) for name in inputs.bags},
        domain=torch.from_numpy(arrays["domain"]),
        label=torch.from_numpy(arrays["label"]),
    )


def _write(path: Path, table: pa.Table) -> None:
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _seed(seed: int, step: int) -> int:
    """Unrelated seeds of dropout and the like for every step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
