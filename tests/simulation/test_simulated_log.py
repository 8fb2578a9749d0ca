"""A simulated log on its way through the stages: the truth arrives at the test rows, and is what the features say."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import PROJECT
from prepared import prepare

from multidomain import schema, sources
from multidomain.errors import DataError
from multidomain.evaluation.metrics import auc
from multidomain.io import connection
from multidomain.pipelines.evaluate.nodes import evaluate
from multidomain.pipelines.validate.nodes import validate as validate_tables
from multidomain.simulation.generate import generate
from multidomain.sources.simulated import tables

pytestmark = pytest.mark.slow
NO_LINES = (sources.nothing("rejected"), {"files": []})


@dataclass
class Prepared:
    """A small simulated log after every stage up to the tensors."""

    variant: schema.Variant
    frame: pd.DataFrame
    domains: pd.DataFrame
    quarantined: int
    encoded: Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("simulated")
    text = (PROJECT / "conf/base/datasets/simulated_interest.yml").read_text()
    (folder / "small.yml").write_text(text.replace("rows: 400000, users: 2000", "rows: 6000, users: 40"))
    variant = schema.parse(folder / "small.yml").variant()
    catalog = prepare(variant.schema, folder / "nowhere", folder)
    return Prepared(
        variant=variant,
        frame=catalog["training_frame"].load().to_pandas().sort_values("impression_id", ignore_index=True),
        domains=catalog["domain_table"].load().to_pandas(),
        quarantined=int(catalog["quarantine"].load().count().execute()),
        encoded=folder / "encoded",
    )


def test_every_row_arrives_with_its_truth_and_none_is_set_apart(prepared):
    assert len(prepared.frame) == 6000
    assert prepared.quarantined == 0
    assert prepared.domains.domain.tolist() == [str(number) for number in range(1, 9)]
    assert prepared.domains.rows.sum() == 6000
    assert prepared.frame.true_probability.between(0, 1, inclusive="neither").all()
    assert prepared.frame.true_probability.mean() == pytest.approx(prepared.frame.label.mean(), abs=0.02)


def test_the_truth_of_every_row_follows_from_the_history_that_the_feature_stage_delivers(prepared):
    simulation = prepared.variant.schema.simulation
    assert simulation is not None
    log = generate(simulation)
    order = np.argsort(log.rows.time, kind="stable")
    base = sum(weight * table(log.rows) for weight, table in log.base)[order] + log.preset.intercept
    weights = log.effect.weights[log.rows["domain"]][order]
    assert (prepared.frame.user_id.str[1:].astype(int) == log.rows["user"][order]).all()
    for row, delivered in enumerate(prepared.frame.itertuples()):
        effect = 0.0
        for number, (start, stop, name) in enumerate(
            [(0, 4, "category"), (0, 4, "brand"), (4, 20, "category"), (4, 20, "brand")]
        ):
            earlier = getattr(delivered, f"positives_{name}")
            earlier = [] if earlier is None else list(earlier)[::-1][start:stop]
            q = 1 / {"category": 10, "brand": 12}[name]
            likes = sum(value == getattr(delivered, name) for value in earlier) - q * len(earlier)
            effect += weights[row, number] * likes / math.sqrt((stop - start) * q * (1 - q))
        assert delivered.true_probability == pytest.approx(1 / (1 + math.exp(-base[row] - effect)), rel=1e-9)


def test_the_truth_is_never_an_input(prepared):
    inputs = json.loads((prepared.encoded / "inputs.json").read_text())
    assert "probability" not in json.dumps(inputs)
    assert not any("probability" in feature.name for feature in prepared.variant.features)


def test_scores_are_compared_with_the_truth_of_the_test_rows(prepared):
    rows = pq.read_table(prepared.encoded / "test/rows.parquet").to_pandas()
    label = np.load(prepared.encoded / "test/label.npy").astype(np.int8)
    wanted = prepared.frame.set_index("impression_id").loc[rows.impression_id]
    np.testing.assert_array_equal(rows.true_probability, wanted.true_probability)
    np.testing.assert_array_equal(rows.blind_probability, wanted.blind_probability)
    shuffled = np.random.default_rng(3).permutation(len(rows))
    for scores, closed in ((rows.true_probability, 1.0), (rows.blind_probability, 0.0)):
        scored = pd.DataFrame(
            {"impression_id": rows.impression_id, "domain": rows.domain, "label": label, "score": scores}
        )
        metrics = evaluate(ibis.memtable(scored.iloc[shuffled]), prepared.encoded)
        overall = metrics["overall"]
        assert overall["oracle_auc"] == pytest.approx(auc(label, rows.true_probability.to_numpy()))
        assert overall["blind_auc"] == pytest.approx(auc(label, rows.blind_probability.to_numpy()))
        assert overall["share_of_gap_closed"] == pytest.approx(closed)
        assert all("oracle_auc" in values for values in metrics["domains"].values())


def test_a_probability_that_is_none_is_set_apart_like_any_other_broken_value(prepared):
    made = tables(prepared.variant.schema)
    truth = made["impressions"]["true_probability"].to_numpy().copy()
    truth[5] = 1.5
    at = made["impressions"].column_names.index("true_probability")
    made["impressions"] = made["impressions"].set_column(at, "true_probability", pa.array(truth))
    given = [
        connection().create_table(ibis.util.gen_name("t"), made[name]) for name in ("impressions", "users", "items")
    ]
    kept, _, _, quarantine, _, _ = validate_tables(
        prepared.variant.schema, *given, sources.nothing("rejected"), {"files": []}
    )
    assert kept.count().execute() == 5999
    assert "true_probability is no probability" in quarantine.reason.execute()[0]


def test_a_log_that_lost_its_truth_is_refused(prepared):
    made = tables(prepared.variant.schema)
    made["impressions"] = made["impressions"].drop_columns("blind_probability")
    given = [
        connection().create_table(ibis.util.gen_name("t"), made[name]) for name in ("impressions", "users", "items")
    ]
    with pytest.raises(DataError, match="blind_probability"):
        validate_tables(prepared.variant.schema, *given, *NO_LINES)
