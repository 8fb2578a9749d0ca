"""Train, predict and measure one entry with one seed, by the functions of ``train_<architecture>``; many of them."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from ...comparison.results import Key, Result
from ...errors import UserError
from ...io import ParquetTable
from ...io.atomic import replacing
from ...schema import Variant
from ..evaluate.nodes import SPLIT, evaluate, predict
from ..train.nodes import train

logger = logging.getLogger(__name__)
_THREADS = "OMP_NUM_THREADS"


class ComparisonError(UserError):
    """Some results could not be made."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One result to be made.

    Attributes:
        key: entry, seed, data.
        variant, encoded, device: as the nodes of ``train_<architecture>`` take them.
        results: the folder of all results.
        checkpoints: the folder of all checkpoints.
        workers: processes that train at the same time; the speeds of a result are those beside the others.
    """

    key: Key
    variant: Variant
    encoded: Path
    results: Path
    checkpoints: Path
    device: str | None
    workers: int = 1

    def run(self, *, show_progress: bool = True) -> None:
        """Train, predict, measure; write the result's folder as a whole.

        A training that was stopped goes on after its last epoch.
        """
        entry, checkpoints = self.key.entry, self.checkpoints / self.key.place
        checkpoints.mkdir(parents=True, exist_ok=True)
        write, history = train(
            self.encoded,
            checkpoints,
            entry.architecture,
            dict(entry.model),
            dict(entry.training),
            self.key.seed,
            self.device,
            show_progress,
        )
        started = time.perf_counter()
        with (
            tempfile.TemporaryDirectory(dir=checkpoints) as scratch,
            replacing(self.results / self.key.place) as folder,
        ):
            folder.mkdir()
            model = Path(scratch) / "model"
            model.mkdir()
            write(model)
            predictions = ParquetTable(filepath=str(folder / "predictions.parquet"))
            predictions.save(predict(self.variant, self.encoded, model, self.device))
            metrics = evaluate(predictions.load(), self.encoded)
            history.to_csv(folder / "history.csv", index=False)
            about = self._about(model, history["rows_per_second"].median())
            about["seconds"] = float(history["seconds"].sum()) + time.perf_counter() - started
            for name, values in {"metrics": metrics, "result": about}.items():
                (folder / f"{name}.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
        shutil.rmtree(checkpoints, ignore_errors=True)

    def _about(self, model: Path, rows_per_second: float) -> dict[str, object]:
        import torch

        from ...evaluation import cost
        from ...packaging.scorer import restore
        from ...tensors import EncodedSplit
        from ...tracking import git_revision
        from ...training.device import choose_device

        device, network = choose_device(self.device), restore(model)
        counts = cost.parameters(network)
        return {
            "label": self.key.entry.label,
            **json.loads(json.dumps(self.key.entry.settings(), default=str)),
            "seed": self.key.seed,
            "data": self.key.data,
            "digest": self.key.digest,
            "parameters_embedding": counts.embedding,
            "parameters_rest": counts.rest,
            "training_rows_per_second": float(rows_per_second),
            "inference_ms_per_2000_rows": cost.inference_ms(network, EncodedSplit(self.encoded, SPLIT), device),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "workers": self.workers,
            "code": code(self.key.entry.architecture),
            "revision": git_revision(),
            "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        }


def make(jobs: Sequence[Job], workers: int = 1) -> None:
    """Make the results that are not there yet.

    An error of one does not keep the others from being made.

    Raises:
        ComparisonError: some could not be made; the message names each with its reason.
    """
    missing = _missing(jobs)
    logger.info("%d results: %d are there, %d to make", len(jobs), len(jobs) - len(missing), len(missing))
    absent = {job.key.place for job in missing}
    _warn_of_other_code(job for job in jobs if job.key.place not in absent)
    if not missing:
        return
    workers = min(workers, len(missing))
    clock, failed = _Clock(jobs, missing, workers), {}
    for job, error in _run(missing, workers, clock):
        if error is None:
            clock.finished(job)
        else:
            clock.failed(job)
            failed[job.key.name] = error
            unforeseen = None if isinstance(error, UserError) else error
            logger.error("%s: %s", job.key.name, error, exc_info=unforeseen)
    if failed:
        reasons = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failed.items())
        raise ComparisonError(
            f"{len(failed)} of {len(jobs)} results could not be made. {reasons} The others are kept: put this right, "
            "or leave these models out (compare.models), and run again."
        )


def code(architecture: str) -> str:
    """A digest of the code that a result depends on: the model's file, the layers, the training."""
    from ...models import source
    from ...tracking import fingerprint

    package = Path(__file__).parents[2]
    parts = ("batch.py", "inputs.py", "tensors.py", "models/base.py")
    files = [*(package / part for part in parts), source(architecture)]
    files += [path for folder in ("layers", "training") for path in sorted((package / folder).glob("*.py"))]
    return fingerprint(*files)


def _missing(jobs: Sequence[Job]) -> list[Job]:
    """Each result that is wanted and not there, once; says what has changed since the last one of its name."""
    found: dict[Path, Job] = {}
    for job in jobs:
        if not job.key.is_there(job.results):
            found.setdefault(job.key.place, job)
            if why := job.key.differences(job.results):
                logger.info("%s is computed again: %s", job.key.name, why)
    return list(found.values())


def _warn_of_other_code(jobs: Iterable[Job]) -> None:
    stale = []
    for job in jobs:
        folder = job.results / job.key.place
        if Result.read(folder, job.key.entry.label).about.get("code") != code(job.key.entry.architecture):
            stale.append(job.key.name)
    if stale:
        logger.warning(
            "The code of models, layers or training has changed since %d results were made: %s. They are used as they "
            "are; to make one again delete its folder below %s.",
            len(stale),
            ", ".join(stale),
            folder.parents[1],
        )


def _run(jobs: Sequence[Job], workers: int, clock: _Clock) -> Iterator[tuple[Job, Exception | None]]:
    """Each job as it is done, with its error if it has one."""
    if workers == 1:
        for job in jobs:
            clock.starts(job)
            yield job, _error(job.run)
        return
    threads = int(os.environ.get(_THREADS) or max(1, _cores() // workers))
    logger.info("%d processes of %d threads each", workers, threads)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(threads,)) as pool:
        running = {pool.submit(_run_quietly, dataclasses.replace(job, workers=workers)): job for job in jobs}
        try:
            for done in as_completed(running):
                try:
                    done.result()
                    yield running[done], None
                except BrokenProcessPool as error:
                    raise ComparisonError(
                        "A worker process was ended from outside, most likely because memory ran out. What is done is "
                        "kept. Run again with a smaller compare.workers."
                    ) from error
                except Exception as error:
                    yield running[done], error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _error(work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except Exception as error:
        return error
    return None


def _prepare(threads: int) -> None:
    """What a worker process does first: its threads, and an end when the process that started it ends."""
    os.environ[_THREADS] = str(threads)

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _run_quietly(job: Job) -> None:
    """In a worker process: lines that begin with the job's name instead of progress bars."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {job.key.name}: %(message)s", "%H:%M:%S"))
    ours = logging.getLogger("multidomain")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)
    job.run(show_progress=False)


def _cores() -> int:
    from ...training.device import available_cores

    return available_cores()


class _Clock:
    """One line per job, with its number and the time left: that of the same entry, or of all that are known."""

    def __init__(self, jobs: Sequence[Job], missing: Sequence[Job], workers: int) -> None:
        self._total, self._workers = len(missing), workers
        self._left = {job.key.place: job for job in missing}
        self._known: dict[str, list[float]] = {}
        self._number = 0
        for job in jobs:
            if job.key.place not in self._left:
                self._learn(job)

    def starts(self, job: Job) -> None:
        self._number += 1
        logger.info("%s (%d of %d%s)", job.key.name, self._number, self._total, self._remaining())

    def finished(self, job: Job) -> None:
        self._left.pop(job.key.place)
        self._learn(job)
        result = Result.read(job.results / job.key.place, job.key.entry.label)
        overall = {name: value for name, value in result.metrics["overall"].items() if name in ("auc", "logloss")}
        said = ", ".join(f"{name} {'–' if value is None else f'{value:.4f}'}" for name, value in overall.items())
        done = self._total - len(self._left)
        logger.info("%s: %s (%d of %d done%s)", job.key.name, said, done, self._total, self._remaining())

    def failed(self, job: Job) -> None:
        self._left.pop(job.key.place)

    def _learn(self, job: Job) -> None:
        about = Result.read(job.results / job.key.place, job.key.entry.label).about
        self._known.setdefault(job.key.entry.architecture, []).append(float(about["seconds"]))

    def _remaining(self) -> str:
        everything = [seconds for each in self._known.values() for seconds in each]
        if not everything or not self._left:
            return ""
        mean = statistics.fmean(everything)
        seconds = [statistics.fmean(self._known.get(job.key.entry.architecture, [mean])) for job in self._left.values()]
        return f", about {_duration(max(sum(seconds) / self._workers, max(seconds)))} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
