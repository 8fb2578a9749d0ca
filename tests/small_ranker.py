"""The small log of ``feature_oracle``, registered with Feast, and an untrained model that reads all of its features."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from feature_oracle import Bench, log, one_world, small_schema

from multidomain.encoder import Encoder
from multidomain.features import repository
from multidomain.features.frame import TrainingFrame
from multidomain.features.materialize import materialize
from multidomain.io import connection
from multidomain.models import build
from multidomain.packaging.scorer import Scorer
from multidomain.pipelines.encode.nodes import fit_encoder


@contextlib.contextmanager
def loaded(folder: Path, until: dt.datetime, rows: int = 400) -> Iterator[SmallLog]:
    """The small log, registered with Feast and loaded up to a time, with ``$MULTIDOMAIN_DATA`` set until the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(folder / "data"))
        made = SmallLog(folder, rows=rows)
        materialize(made.variant, until=until)
        yield made


class SmallLog:
    """Everything up to a scorer, below one folder; ``$MULTIDOMAIN_DATA`` must be its ``data``."""

    def __init__(self, folder: Path, rows: int = 400) -> None:
        self.folder, self.frame = folder, folder / "frame.parquet"
        self.bench = Bench(folder, small_schema(folder, request="[hour, weekday]").variant())
        self.variant = self.bench.variant
        impressions = one_world(log(7, rows=rows))
        self.bench.build(impressions)
        repository.apply(self.variant, self.bench.views)
        partitioned, context, _, _ = self.bench.tables(impressions)
        TrainingFrame(self.variant, partitioned, context)(self.frame)
        self.scorer = self._scorer()

    def _scorer(self) -> Scorer:
        names = pd.DataFrame({"domain_id": [0, 1], "domain": ["home", "shop"]})
        domains = connection().create_table("small_domains", names, overwrite=True)
        (self.folder / "encoder").mkdir()
        fit_encoder(self.variant, connection().read_parquet(str(self.frame)), domains)(self.folder / "encoder")
        encoder = Encoder.load(self.folder / "encoder")
        torch.manual_seed(0)
        return Scorer(encoder=encoder, model=build("dnn", encoder.inputs, embedding_dim=4, hidden=[8]).eval())
