"""The simulated days that the benchmark of streams draws, and what it says of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import streaming, streaming_day
from multidomain.encoder import Encoder
from multidomain.streaming.checkpoint import Progress
from multidomain.streaming.rows import typed, wanted


def test_the_days_are_files_in_order_of_time_with_the_columns_of_a_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming_day, "PART", 3000)
    streaming_day.write(tmp_path, rows=8000, days=1)
    files = sorted((tmp_path / "files").glob("*.parquet"))
    assert len(files) == 96
    encoder = Encoder.load(tmp_path / "encoder")
    table = pa.concat_tables([typed(pq.read_table(path), wanted(encoder), path.name) for path in files])
    assert table.column("impression_id").to_pylist() == list(range(8000))
    part = {name: number for number, name in enumerate(streaming_day.DAYPARTS)}
    assert (np.diff([part[name] for name in table.column("daypart").to_pylist()]) >= 0).all()
    assert len(encoder.domains) == 19
    late = set(table.slice(7000).column("item_id").to_pylist())
    assert any(name.endswith("_3") for name in late)  # advertisements of the last quarter of the day
    assert not any(name.endswith("_0") for name in late)
    assert not (tmp_path / "pieces").exists()
    apart = typed(pq.read_table(tmp_path / "held_out.parquet"), wanted(encoder), "held_out.parquet")
    assert 400 < len(apart) < 800  # two thirds of a tenth
    assert not any("_" in name for name in apart.column("item_id").to_pylist())
    assert set(apart.column("daypart").to_pylist()) == set(streaming_day.DAYPARTS)


def test_steadiness_is_of_the_windows_after_a_row():
    table = pd.DataFrame(
        {
            "window": [1, 2, 2, 3, 3],
            "first_row": [0, 100, 100, 200, 200],
            "domain": ["(overall)", "(overall)", "1", "(overall)", "1"],
            "rows": [100, 100, 50, 100, 50],
            "positives": [30, 30, 25, 30, 25],
            "auc": [0.1, 0.6, 0.6, 0.8, 0.7],
            "pcoc": [9.0, 0.9, 0.8, 1.1, 1.2],
            "logloss": [9.0, 0.2, 0.2, 0.4, 0.4],
        }
    )
    found = streaming.steadiness(table, 100)
    assert found["auc"] == pytest.approx(0.7)
    assert found["pcoc_deviation"] == pytest.approx(np.std([0.9, 1.1], ddof=1))
    assert found["pcoc_error_of_domains"] == pytest.approx(0.2)
    assert (found["pcoc_low"], found["pcoc_high"]) == (0.9, 1.1)


def test_a_look_scores_the_same_held_out_rows_after_every_window_and_again_after_a_crash(tmp_path):
    streaming_day.write(tmp_path, rows=6000, days=1)
    encoder = Encoder.load(tmp_path / "encoder")
    scored = []

    class Known:
        """A stream that says one half of every row."""

        def __init__(self, rows: int) -> None:
            self.progress, self.encoder = Progress(rows=rows), encoder

        def score(self, rows: pa.Table) -> np.ndarray:
            scored.append(len(rows))
            return np.full(len(rows), 0.5)

    look = streaming.Looks(tmp_path, tmp_path / "kept", every=1000)
    for rows in (1000, 2050, 2050):
        look(Known(rows))
    found = streaming.windows(tmp_path / "kept" / "held_out")
    overall = found[found["domain"] == "(overall)"]
    held_out = pq.read_table(tmp_path / "held_out.parquet")
    assert overall["window"].tolist() == [1, 2]
    assert overall["first_row"].tolist() == [1000, 2050]
    assert overall["rows"].tolist() == [len(held_out)] * 2
    share = np.mean(held_out.column("label").to_numpy())
    assert overall["pcoc"].tolist() == pytest.approx([0.5 / share] * 2)
    assert sum(scored) == 3 * len(held_out)
