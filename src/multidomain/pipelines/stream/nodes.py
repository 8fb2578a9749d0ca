"""Follow a stream with one architecture; package what it has become every so many rows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

    from ...encoder import Encoder
    from ...schema import Variant
    from ...streaming.options import SourceOptions
    from ...streaming.source import Source
    from ...streaming.stream import Beginning

logger = logging.getLogger(__name__)
Writer = Callable[[Path], None]


def stream(
    variant: Variant,
    encoder: Path,
    kept: Path,
    architecture: str,
    model: dict[str, Any],
    training: dict[str, Any],
    stream: Mapping[str, Any],
    seed: int,
    device: str | None,
    warm_start: str | int | None = None,
    gate: Mapping[str, Any] | str | bool = MappingProxyType({}),
    options: dict[str, Any] | None = None,
    show_progress: bool = True,
) -> tuple[Writer, pa.Table, dict[str, Any]]:
    """Follow the stream until it ends; go on after the last checkpoint where there is one.

    Args:
        variant: names the registered model.
        encoder: of the variant: what to begin with when there is no ``warm_start``.
        kept: checkpoints, prequential windows, rejected rows, versions.
        architecture: what is trained.
        model, training: as configured.
        stream: the section of that name, see :class:`~multidomain.streaming.options.StreamOptions`.
        seed: decides every draw.
        device: to train on.
        warm_start: a version or alias of the registered model, or a package's folder, to begin with.
        gate, options: of packaging.
        show_progress: draw a progress bar.

    Returns:
        what writes the model as it is at the end and its encoder, the table of prequential windows, and a report.

    Raises:
        ConfigurationError: a setting that is not allowed, or no model to begin with.
        DataError: rows that cannot be read.
    """
    from ...packaging.contents import write_model
    from ...streaming.options import StreamOptions
    from ...streaming.prequential import windows
    from ...streaming.stream import Stream
    from ...training.config import TrainingConfig
    from .versions import Versions

    chosen = StreamOptions.read(stream)
    versions = Versions(
        variant=variant,
        architecture=architecture,
        config=model,
        training=training,
        stream=stream,
        seed=seed,
        gate=gate,
        options=options,
        folder=kept / "versions",
    )
    follower = Stream(
        architecture=architecture,
        config=model,
        begin=lambda: beginning(variant, encoder, architecture, model, warm_start),
        options=chosen,
        training=TrainingConfig(**training),
        seed=seed,
        folder=kept,
        identity={"variant": variant.key, "warm_start": warm_start},
        device=device,
        package=versions.package,
        show_progress=show_progress,
    )
    versions.begin_after(follower.progress.rows)
    progress = follower.run(open_source(chosen.source, follower.encoder))
    report = {**dataclasses.asdict(progress), "versions": versions.made()}
    logger.info(
        "The stream has ended: %s rows learnt in %s steps, %s rejected, %d versions",
        f"{progress.learnt:,}",
        f"{progress.steps:,}",
        f"{progress.rejected:,}",
        len(report["versions"]),
    )

    def write(folder: Path) -> None:
        for name in ("model", "encoder"):
            (folder / name).mkdir()
        write_model(folder / "model", follower.model, architecture, model)
        follower.encoder.save(folder / "encoder")

    return write, windows(kept), report


def draw(prequential: ir.Table) -> Writer:
    """Prequential AUC and PCOC of the largest domains over the rows, as a PNG file."""
    windows = prequential.to_pandas()

    def write(folder: Path) -> None:
        from ...evaluation.plots import save
        from ...streaming.picture import course

        save(course(windows), folder / "course.png")

    return write


def open_source(options: SourceOptions, encoder: Encoder) -> Source:
    """The source that is configured.

    Raises:
        ConfigurationError: it lacks an address or a folder.
    """
    from ...streaming.folder import FolderSource
    from ...streaming.redis_stream import RedisSource
    from ...streaming.rows import wanted

    if options.kind == "redis":
        return RedisSource(
            address=options.address,
            key=options.key,
            group=options.group,
            consumer=options.consumer,
            schema=wanted(encoder),
            idle_seconds=options.idle_seconds,
            retry_seconds=options.retry_seconds,
        )
    if options.path is None:
        raise ConfigurationError(
            "stream.source.path is not set: the folder in which Parquet files arrive, such as "
            "--params=stream.source.path=arriving."
        )
    timing = {"poll_seconds": options.poll_seconds, "idle_seconds": options.idle_seconds}
    return FolderSource(Path(options.path), wanted(encoder), **timing)  # type: ignore[arg-type]


def beginning(
    variant: Variant, encoder: Path, architecture: str, config: Mapping[str, Any], warm_start: str | int | None
) -> Beginning:
    """A package's weights and encoder, or random weights and the variant's encoder."""
    from ...encoder import Encoder
    from ...packaging.warm_start import check_same_model, find
    from ...streaming.stream import Beginning

    if warm_start is None:
        return Beginning(encoder=Encoder.load(encoder))
    start = find(variant.key, architecture, warm_start)
    assert start is not None  # there are no days
    check_same_model(start, architecture, config)
    return Beginning(
        encoder=start.encoder, weights=start.weights, logit_offset=start.offset, source=f"the weights of {start.source}"
    )
