"""Versions of a model that is trained on a stream, through the quality gate.

† The gate compares on the rows since the last version, at most ``gate_rows``: the scores that the model in training
gave them before it had learnt them, beside those of the champion, which is older than they are. Neither has seen their
labels. What is compared is the model as it came along, which the packaged weights are the end of; there is no later
row yet to measure these on.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ...evaluation.gate import Decision, Gate
from ...io.atomic import replacing
from ..package.nodes import CHECKED, differences

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ...schema import Variant
    from ...streaming.stream import Stream


class Versions:
    """Packages a stream's model.

    Args:
        variant, architecture, config, training, stream, seed: for the record.
        gate: the parameter of that name.
        options: the section ``package``.
        folder: gets a file for every version, by which a version that is there is not made again after a crash.
    """

    def __init__(
        self,
        *,
        variant: Variant,
        architecture: str,
        config: Mapping[str, Any],
        training: Mapping[str, Any],
        stream: Mapping[str, Any],
        seed: int,
        gate: Mapping[str, Any] | str | bool,
        options: Mapping[str, Any] | None,
        folder: Path,
    ) -> None:
        from ...packaging.options import PackageOptions

        self.variant, self.architecture, self.seed, self.folder = variant, architecture, seed, folder
        self.config, self.training, self.stream = dict(config), dict(training), dict(stream)
        self.gate, self.onnx = Gate.read(gate), PackageOptions.of(options).onnx

    def made(self) -> list[dict[str, Any]]:
        """What is known of each version so far, in order."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))]

    def begin_after(self, rows: int) -> None:
        """Versions of later rows are of a stream whose checkpoint was taken away: they do not stand in for new ones."""
        for path in self.folder.glob("*.json"):
            if int(path.stem) > rows:
                path.unlink()

    def package(self, stream: Stream) -> None:
        """Register the model as it is now, champion if the gate lets it."""
        done = self.folder / f"{stream.progress.rows:012d}.json"
        if done.exists():
            return
        recent = stream.recent.to_pandas()
        metrics = _metrics(recent, stream.encoder.domains)
        decision = self._decide(stream.recent, metrics)
        with tempfile.TemporaryDirectory() as scratch:
            made = self._register(Path(scratch), stream, recent, metrics, decision)
        with replacing(done) as temporary:
            temporary.write_text(json.dumps({"rows": stream.progress.rows, **made}, indent=1), encoding="utf-8")

    def _decide(self, latest: pa.Table, metrics: Mapping[str, Any]) -> Decision:
        import ibis

        from ...evaluation.account import Rows
        from ...evaluation.gate import decide, outside
        from ...packaging import champion

        recent = latest.to_pandas()
        if self.gate is None:
            return Decision(True, ("The quality gate is off (--params=gate=off): nothing was compared.",))
        pcoc = metrics["overall"]["pcoc"]
        current = champion.current(self.variant.key, self.architecture)
        if current is None:
            said = outside(self.gate, pcoc)
            return Decision(True, tuple(f"First version: nothing to compare with. {one}" for one in said))
        if not 0 < recent["label"].sum() < len(recent):
            return Decision(False, (f"The latest {len(recent):,} rows have labels of one class only.",))
        try:
            scored = champion.scores(*current, ibis.memtable(latest.drop_columns("score"))).to_pandas()
        except DataError as error:
            return Decision(False, (f"It could not be compared with the champion: {error}",))
        by_id = scored.drop_duplicates("impression_id").set_index("impression_id")["score"]
        nothing = recent["impression_id"].to_numpy() * 0
        rows = Rows(
            label=recent["label"].to_numpy(),
            score=recent["score"].to_numpy(),
            domain=recent["domain"].to_numpy(),
            group=_group(recent),
            user=recent["user"].to_numpy(),
            time=recent["impression_id"],
            user_rows=nothing,
            item_rows=nothing,
            reference=by_id.loc[recent["impression_id"]].to_numpy(),
        )
        return decide(self.gate, pcoc=pcoc, **differences(rows, self.gate.domain_rows))

    def _register(
        self, scratch: Path, stream: Stream, recent: pd.DataFrame, metrics: Mapping[str, Any], decision: Decision
    ) -> dict[str, Any]:
        from ...evaluation.plots import save
        from ...packaging.contents import write_model
        from ...packaging.package import Training
        from ...packaging.package import package as register
        from ...streaming.picture import course
        from ...streaming.prequential import OVERALL, windows

        folders: dict[str, Any] = {name: scratch / name for name in ("encoder", "model", "plots", "insights")}
        for folder in folders.values():
            folder.mkdir()
        stream.encoder.save(folders["encoder"])
        write_model(folders["model"], stream.model, self.architecture, self.config)
        course_so_far = windows(stream.folder).to_pandas()
        if len(course_so_far):
            save(course(course_so_far), folders["plots"] / "course.png")
        overall = course_so_far[course_so_far["domain"] == OVERALL]
        progress = stream.progress
        trained = Training(
            variant=self.variant,
            architecture=self.architecture,
            parameters={
                "architecture": self.architecture,
                "dataset": self.variant.schema.name,
                "domain": self.variant.domain.name,
                "split": self.variant.split.name,
                "features": self.variant.feature_set.name,
                "label": self.variant.label.name,
                "seed": self.seed,
                "model": self.config,
                "training": self.training,
                "stream": self.stream,
            },
            metrics=metrics,
            history=overall.rename(columns={"window": "epoch"})[["epoch", "auc", "pcoc", "logloss"]],
            **folders,
            data=f"the stream up to {json.dumps(progress.position)}",
            rows={"learnt of the stream": progress.learnt},
            onnx=self.onnx,
            measured_on=f"the latest {len(recent):,} rows of the stream, scored before they were learnt",
            tags={"stream_rows": str(progress.rows)},
        )
        checked = recent.tail(CHECKED).reset_index(drop=True)
        return register(trained, checked.drop(columns="score"), _scores(folders, checked), decision)


def _scores(folders: Mapping[str, Path], rows: pd.DataFrame) -> Any:
    """What the model as it is now gives these rows."""
    from ...packaging.scorer import Scorer

    return Scorer.load(folders["encoder"], folders["model"]).predict(rows)["score"].to_numpy()


def _metrics(recent: pd.DataFrame, domains: tuple[str, ...]) -> dict[str, Any]:
    from ...evaluation import report

    label, score = recent["label"].to_numpy(), recent["score"].to_numpy()
    return report.evaluate(label, score, _group(recent), recent["domain"].to_numpy(), domains)


def _group(recent: pd.DataFrame) -> Any:
    """What GAUC groups by; a row without a group is alone in its own."""
    alone = recent["impression_id"].astype(str) + "/alone"
    return recent["group"].where(recent["group"].notna(), alone).to_numpy()
