"""A stream from its first row to its last: scored, then learnt, each once."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_stream
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_stream import arrive, encoder, learnt, log, same, source, stream

from multidomain.errors import ConfigurationError
from multidomain.evaluation import metrics
from multidomain.streaming import stream as stream_module
from multidomain.streaming.options import StreamOptions, check_training
from multidomain.streaming.prequential import OVERALL, windows
from multidomain.training.config import TrainingConfig


def followed(folder, rows, sizes=(), **given):
    """A stream that has ended."""
    made = stream(folder / "kept", **given)
    made.run(source(arrive(folder / "files", rows, list(sizes))))
    return made


def test_every_row_is_scored_and_learnt_once(tmp_path):
    ended = followed(tmp_path, log(600), [7, 150, 300])
    assert ended.progress.rows == ended.progress.learnt == 600
    assert ended.progress.steps == 19  # 18 of 32 rows, and the last 24
    assert sorted(learnt(tmp_path / "kept")) == list(range(600))
    assert ended.batches()["size"] == 0


def test_the_buffer_mixes_rows_and_chronological_order_does_not(tmp_path):
    followed(tmp_path / "a", log(300))
    followed(tmp_path / "b", log(300), order="chronological")
    mixed, plain = learnt(tmp_path / "a/kept"), learnt(tmp_path / "b/kept")
    assert plain == list(range(300))
    assert mixed != plain
    assert max(mixed[:32]) < 90  # of the first 90 rows


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 120), max_size=4), buffer=st.integers(32, 130), rows=st.integers(0, 220))
def test_whatever_the_sizes_every_row_is_learnt_once(tmp_path_factory, sizes, buffer, rows):
    folder = tmp_path_factory.mktemp("any")
    table = log(max(rows, 1)).slice(0, rows)
    made = stream(folder / "kept", buffer_rows=buffer, architecture="dnn")
    made.run(source(arrive(folder / "files", table, sizes)))
    assert sorted(learnt(folder / "kept")) == list(range(rows))
    assert made.progress.learnt == rows


def test_the_pieces_in_which_rows_arrive_change_no_bit(tmp_path):
    one = followed(tmp_path / "a", log(400))
    other = followed(tmp_path / "b", log(400), [1, 33, 64, 99, 100])
    assert same(one, other)
    assert learnt(tmp_path / "a/kept") == learnt(tmp_path / "b/kept")
    assert windows(tmp_path / "a/kept").equals(windows(tmp_path / "b/kept"))


def test_another_seed_draws_other_batches(tmp_path):
    followed(tmp_path / "a", log(300))
    other = stream(tmp_path / "b")
    other._waiting.seed = 4
    other.run(source(tmp_path / "a/files"))
    assert learnt(tmp_path / "a/kept") != learnt(tmp_path / "b")


def test_a_rows_own_label_does_not_reach_its_score_nor_do_later_ones(tmp_path):
    """The scores of a window with the labels of its last tick the other way round are what they were."""
    rows, seen = log(320), {}
    for name, table in (("as it is", rows), ("flipped", small_stream.labels_flipped(rows, slice(256, 288)))):
        made = stream(tmp_path / name, vocabulary={"every": None})
        scores = seen[name] = []
        inner = made._prequential.saw
        made._prequential.saw = lambda label, score, domain, i=inner, s=scores: (
            s.append(score),
            i(label, score, domain),
        )
        made.run(source(arrive(tmp_path / f"files {name}", table, [])))
    assert all(np.array_equal(seen["as it is"][tick], seen["flipped"][tick]) for tick in range(9))  # 8 is flipped
    assert not np.array_equal(seen["as it is"][9], seen["flipped"][9])


def test_windows_hold_the_metrics_of_their_rows(tmp_path):
    made, kept = stream(tmp_path / "kept"), []
    inner = made._prequential.saw
    made._prequential.saw = lambda *given: (kept.append(given), inner(*given))
    made.run(source(arrive(tmp_path / "files", log(300), [])))
    label, score, domain = (np.concatenate(parts).astype(float) for parts in zip(*kept, strict=True))
    table = windows(tmp_path / "kept").to_pandas()
    overall = table[table.domain == OVERALL]
    assert overall["rows"].tolist() == [128, 128, 44]  # ticks of 32 rows, 100 or more in a window, and the rest
    assert overall.first_row.tolist() == [0, 128, 256]
    at = slice(128, 256)
    second = overall.iloc[1]
    assert second.auc == metrics.auc(label[at], score[at])
    assert second.pcoc == pytest.approx(metrics.pcoc(label[at], score[at]), abs=1e-12)
    assert second.logloss == pytest.approx(metrics.logloss(label[at], score[at]), abs=1e-12)
    of_home = table[(table.domain == "home") & (table.window == 2)].iloc[0]
    home = np.flatnonzero(domain[at] == 0)
    assert of_home.auc == metrics.auc(label[at][home], score[at][home])
    assert of_home.positives == label[at][home].sum()


def test_rows_that_cannot_be_learnt_are_kept_apart_and_counted(tmp_path):
    rows = log(200)
    label = rows.column("label").to_pylist()
    label[3], label[40] = None, 7
    price = rows.column("price").to_pylist()
    price[41] = float("inf")
    rows = small_stream.with_column(small_stream.with_column(rows, "label", label), "price", price)
    ended = followed(tmp_path, rows, [150])
    assert (ended.progress.rows, ended.progress.rejected) == (197, 3)
    assert sorted(learnt(tmp_path / "kept")) == [row for row in range(200) if row not in (3, 40, 41)]
    found = pa.concat_tables([pq.read_table(p) for p in sorted((tmp_path / "kept/rejected").glob("*"))]).to_pylist()
    assert [(one["position"], one["reason"]) for one in found] == [
        ('["0000.parquet", 3]', "label is missing"),
        ('["0000.parquet", 40]', "label is neither 0 nor 1"),
        ('["0000.parquet", 41]', "price is infinite"),
    ]
    assert '"impression_id": 40' in found[1]["row"]


def test_rows_that_are_all_bad_are_written_out_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "MOST_BAD", 40)
    rows = small_stream.with_column(log(500), "label", [1] * 50 + [None] * 400 + [1] * 50)
    made, held = stream(tmp_path / "kept"), []
    inner = made._write_parts
    made._write_parts = lambda: (held.append(len(made._bad)), inner())
    made.run(source(arrive(tmp_path / "files", rows, [77, 300])))
    assert held == [40] * 10 + [0, 0, 0]  # at 100 good rows: 64 had come before; 96 are learnt of the buffer; the end
    assert (made.progress.rows, made.progress.rejected) == (100, 400)
    assert sorted(learnt(tmp_path / "kept")) == [*range(50), *range(450, 500)]
    assert rejected(tmp_path / "kept") == list(range(50, 450))


def rejected(kept) -> list[int]:
    """The impressions that could not be learnt, in order."""
    parts = [pq.read_table(path).column("row").to_pylist() for path in sorted((kept / "rejected").glob("*"))]
    return [json.loads(row)["impression_id"] for part in parts for row in part]


def test_new_ids_enter_and_stale_ones_leave_and_the_table_does_not_grow_without_end(tmp_path):
    rule = {"every": 128, "minimum_count": 2, "forget_after": 250}
    ended = followed(tmp_path, log(1200), architecture="dnn", vocabulary=rule)
    known = ended.encoder.vocabularies["item_id"].to_pylist()
    there = [*range(30), *range(40, 60)]  # 0 to 29 are in histories all along; 30 to 39 came last in row 799
    assert sorted(known, key=lambda name: int(name[1:])) == [f"i{number}" for number in there]
    assert (ended.progress.entered, ended.progress.left) == (49, 10)  # 48 items, 12 known; and the genre d
    assert len(ended.model.inputs.embedding.table.weight) == sum(ended.encoder.inputs.vocabularies.values())


def test_a_vocabulary_that_may_not_change_stays(tmp_path):
    ended = followed(tmp_path, log(400), architecture="dnn", vocabulary={"every": None})
    assert ended.encoder.vocabularies["item_id"].equals(encoder().vocabularies["item_id"])
    assert ended.progress.entered == 0


def test_a_stream_that_has_ended_goes_on_when_rows_come(tmp_path):
    ended = followed(tmp_path, log(200))
    again = stream(tmp_path / "kept")
    again.run(source(tmp_path / "files"))  # nothing new
    assert same(ended, again)
    arrive(tmp_path / "files", log(100, first=200), [])
    more = stream(tmp_path / "kept")
    more.run(source(tmp_path / "files"))
    assert more.progress.rows == 300
    assert sorted(learnt(tmp_path / "kept")) == list(range(300))


def test_versions_are_due_every_so_many_rows_and_get_the_latest_rows(tmp_path):
    due = []

    def package(one):
        due.append((one.progress.rows, one.recent.column("impression_id").to_pylist(), one.recent.column_names[-1]))

    made = stream(tmp_path / "kept", package=package, package_rows=200, gate_rows=64)
    made.run(source(arrive(tmp_path / "files", log(600), [])))
    assert [rows for rows, *_ in due] == [224, 416, 600]
    assert due[0][1] == list(range(160, 224))
    assert due[0][2] == "score"
    assert due[2][1] == list(range(536, 600))


def test_a_version_is_compared_on_rows_that_the_one_before_never_met(tmp_path):
    seen = []
    made = stream(tmp_path / "kept", package=lambda one: seen.append(one.recent), package_rows=100, gate_rows=500)
    made.run(source(arrive(tmp_path / "files", log(300), [])))
    ids = [table.column("impression_id").to_pylist() for table in seen]
    assert ids == [list(range(128)), list(range(128, 224)), list(range(224, 300))]


def test_any_rows_can_be_scored_on_the_way_and_change_nothing(tmp_path):
    other, scores = log(40, seed=9), []

    def look(one):
        scores.append(one.score(other))
        np.testing.assert_allclose(one.score(other.slice(7, 5)), scores[-1][7:12], rtol=1e-6)

    looked = stream(tmp_path / "a", package=look, package_rows=200)
    looked.run(source(arrive(tmp_path / "files", log(600), [])))
    plain = stream(tmp_path / "b", package_rows=None)
    plain.run(source(tmp_path / "files"))
    assert same(looked, plain)
    assert len(scores) == 3
    assert all(((score > 0) & (score < 1)).all() for score in scores)
    assert not np.array_equal(scores[0], scores[1])


def test_checkpoints_come_while_the_rest_of_the_buffer_is_learnt(tmp_path):
    """The ledger since the last one, and what a crash makes to be done again, stay as small as before."""
    made, held = stream(tmp_path / "kept", buffer_rows=400), []
    inner = made._write_parts
    made._write_parts = lambda: (held.append(sum(len(ids) for _, ids in made._ledger)), inner())
    made.run(source(arrive(tmp_path / "files", log(450), [])))
    assert sorted(learnt(tmp_path / "kept")) == list(range(450))
    assert held == [0] * 6 + [64] + [64] * 6 + [2]  # two batches when 448 rows have come; the rest after the last


def test_the_buffer_takes_no_more_memory_than_its_rows(tmp_path):
    sizes = []
    made = stream(tmp_path / "kept", architecture="dnn")
    inner = made._learn
    made._learn = lambda: (sizes.append((made.batches()["size"], made.batches()["nbytes"])), inner())
    made.run(source(arrive(tmp_path / "files", log(600), [])))
    assert max(size for size, _ in sizes) == 90
    assert len({nbytes for _, nbytes in sizes}) == 1


def test_settings_that_a_stream_cannot_follow_are_named():
    with pytest.raises(ConfigurationError, match="stream: 'bufer_rows' is not known; did you mean 'buffer_rows'"):
        StreamOptions.read({"bufer_rows": 3})
    with pytest.raises(ConfigurationError, match=r"stream\.source: 'paht' is not known; did you mean 'path'"):
        StreamOptions.read({"source": {"paht": "here"}})
    with pytest.raises(ConfigurationError, match=r"stream\.vocabulary\.every must be a whole number of at least 1 or"):
        StreamOptions.read({"vocabulary": {"every": 0}})
    with pytest.raises(ConfigurationError, match=r"stream\.order must be one of buffer, chronological, got 'random'"):
        StreamOptions.read({"order": "random"})
    with pytest.raises(ConfigurationError, match=r"buffer_rows \(10\) must be at least training\.batch_size"):
        check_training(TrainingConfig(), StreamOptions(buffer_rows=10))
    for name, value in {
        "schedule": "cosine",
        "batching": "domain",
        "negative_rate": 0.1,
        "sample_weight": True,
    }.items():
        with pytest.raises(ConfigurationError, match=f"training.{name} is"):
            check_training(TrainingConfig(**{name: value}), StreamOptions())


def test_a_stream_begins_with_the_weights_it_is_given(tmp_path):
    first = followed(tmp_path / "a", log(300), vocabulary={"every": None})
    weights = {key: value.clone() for key, value in first.model.state_dict().items()}
    other = small_stream.Stream(
        architecture="star",
        config=small_stream.MODEL,
        begin=lambda: small_stream.Beginning(encoder=first.encoder, weights=weights, logit_offset=0.25),
        options=small_stream.options(),
        training=dataclasses.replace(first.training),
        seed=3,
        folder=tmp_path / "b",
        device="cpu",
        show_progress=False,
    )
    state = other.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    assert other.model.logit_offset == 0.25
