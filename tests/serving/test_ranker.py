"""A request is answered with what an impression at that time would have been scored with."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feature_oracle import DAY, START
from small_ranker import loaded

from multidomain.errors import DataError
from multidomain.features import repository
from multidomain.features.request_time import TIME
from multidomain.serving import Ranker, Request

AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)
CANDIDATES = ["01", "03", "99", "02"]
CONTEXT = {"device": "phone", "price": [0.1, 0.2, 0.3, 0.4]}


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    """An untrained model over the small log, registered with Feast and loaded up to noon of its third day."""
    with loaded(tmp_path_factory.mktemp("ranker"), AT) as small:
        store, _ = repository.service(small.variant)
        yield Ranker(variant=small.variant, store=store, scorer=small.scorer)


def request(**changed: Any) -> Request:
    usual = {"user": "ann@", "domain": "shop", "items": CANDIDATES, "context": CONTEXT, "at": AT}
    return Request(**{**usual, **changed})


def joined(ranker: Ranker, asked: Request) -> pa.Table:
    """The rows of a training frame for the request, joined by time from the view tables."""
    store, service = repository.service(ranker.variant)
    row = {"user": asked.user, "domain": asked.domain, "event_timestamp": AT, TIME: int(AT.timestamp()) * 1_000_000}
    rows = [{**row, "item": item} for item in asked.items]
    found = store.get_historical_features(features=service, entity_df=pa.Table.from_pylist(rows)).to_arrow()
    context = {name: v if isinstance(v, list) else [v] * len(rows) for name, v in asked.context.items()}
    for name, values in context.items():
        found = found.append_column(name, pa.array(values))
    types = ranker.scorer.columns
    return found.select(list(types)).cast(pa.schema(list(types.items())))


@pytest.mark.parametrize(("user", "domain"), [("ann@", "shop"), ("bob@", "home"), ("dan@", "shop"), ("nobody", "home")])
def test_features_and_scores_are_those_of_the_training_frame_at_that_time(ranker, user, domain):
    asked = request(user=user, domain=domain)
    expected = joined(ranker, asked)
    answer = ranker.rank(asked)
    assert answer.features.to_pylist() == expected.to_pylist()
    scores = dict(zip(CANDIDATES, ranker.scorer.score(expected), strict=True))
    assert list(answer.scores) == sorted(scores.values(), reverse=True)
    assert dict(zip(answer.items, answer.scores, strict=True)) == scores


@pytest.mark.parametrize(
    ("at", "hour", "weekday"),
    [
        (dt.datetime(2026, 11, 22, 23, 59), 23, 6),
        (dt.datetime(2026, 11, 23, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), 23, 6),
    ],
    ids=["no zone is UTC", "Monday two hours east of it"],
)
def test_the_requests_time_makes_its_hour_and_weekday(ranker, at, hour, weekday):
    features = ranker.rank(request(at=at)).features
    assert set(features["hour"].to_pylist()) == {hour}
    assert set(features["weekday"].to_pylist()) == {weekday}


def test_a_request_without_a_time_is_made_now(ranker):
    before = dt.datetime.now(dt.UTC)
    (hour,) = set(ranker.rank(request(at=None)).features["hour"].to_pylist())
    assert hour in {before.hour, dt.datetime.now(dt.UTC).hour}


def test_everything_is_read_at_once_and_each_key_once_however_many_candidates_there_are(ranker, monkeypatch):
    calls: list[Any] = []
    read = ranker._reader._read_rows

    def counting(config: Any, asked: Any) -> Any:
        calls.append(asked)
        return read(config, asked)

    monkeypatch.setattr(ranker._reader, "_read_rows", counting)
    ranker.rank(request(items=CANDIDATES * 25, context={"device": "phone"}))
    assert len(calls) == 1
    assert {one.names: len(one.keys) for one in calls[0]} == {
        ("user",): 1, ("item",): 4, ("domain",): 1, ("user", "domain"): 1, ("item", "domain"): 4,
    }  # fmt: skip


def test_a_candidate_scores_the_same_whatever_is_asked_for_beside_it(ranker):
    together = ranker.rank(request(context={"device": "phone", "price": 0.5}))
    for item, score in zip(together.items, together.scores, strict=True):
        alone = ranker.rank(request(items=[item], context={"device": "phone", "price": 0.5}))
        np.testing.assert_allclose(alone.scores[0], score, rtol=0, atol=1e-7)


def test_what_nothing_is_known_of_is_unknown_to_the_model_said_and_counted(ranker):
    before = ranker.counted.copy()
    answer = ranker.rank(request(user="nobody", items=["none such", "01"], context={"price": 1.0}))
    assert answer.missing["user_profile"] == answer.missing["user_history"] == answer.missing["user_counts"] == 1
    assert answer.missing["item_profile"] == answer.missing["item_counts"] == 1
    assert answer.missing["context"] == 1
    assert "domain_counts" not in answer.missing
    batch = ranker.scorer.encoder.batch(answer.features)
    person = [f.name for f in ranker.scorer.encoder.fields if f.kind in ("categorical", "bucket")].index("person")
    assert batch.categorical[:, person].tolist() == [1, 1]
    counted = ranker.counted - before
    assert counted["requests"] == 1
    assert counted["candidates"] == 2
    assert counted["user_profile"] == 1


def test_a_domain_that_training_did_not_know_is_in_the_remainder(ranker):
    answer = ranker.rank(request(domain="a new page"))
    assert answer.features["domain"].to_pylist() == ["remainder"] * 4
    assert ranker.scorer.encoder.batch(answer.features).domain.tolist() == [2] * 4  # of home and shop: unknown


def test_once_warm_the_encoder_has_its_tables(ranker):
    encoder = ranker.scorer.encoder
    encoder._tables.clear()
    ranker.warm()
    assert set(encoder._tables) == {*encoder.vocabularies, "domain"}


def test_each_candidate_may_have_a_domain_of_its_own(ranker):
    domains = ["home", "shop", "home", "shop"]
    mixed = ranker.rank(request(domain=domains))
    assert mixed.features["domain"].to_pylist() == domains
    for i in (0, 1):
        alone = ranker.rank(request(domain=domains[i]))
        assert alone.features.to_pylist()[i] == mixed.features.to_pylist()[i]


def test_what_all_candidates_share_is_given_to_the_model_once(ranker):
    given, _ = ranker.given(request())
    own = {"item_id", "price", *(name for name in ranker.scorer.columns if name.startswith("item_"))}
    assert own & set(ranker.scorer.columns) <= set(given.candidates.column_names)
    assert {"domain", "device", "hour", "weekday"} <= set(given.shared.column_names)
    assert any(name.startswith("user_") for name in given.shared.column_names)
    assert (len(given.candidates), len(given.shared)) == (4, 1)
    assert sorted([*given.candidates.column_names, *given.shared.column_names]) == sorted(ranker.scorer.columns)
    batch = ranker.scorer.encoder.batch(given.candidates, given.shared)
    assert batch.repeated == set(given.shared.column_names)
    assert all(ids.stride(0) == 0 for ids in batch.history.values())  # one row in memory


@pytest.mark.parametrize(
    "changed",
    [
        {"items": ["01"], "context": {"device": "phone", "price": [0.1]}},
        {"items": ["01", "01"], "context": {"device": "phone", "price": 0.1}},
        {"domain": ["home", "shop", "home", "shop"]},
        {"user": "nobody", "domain": "a new page"},
        {"context": {}},
    ],
    ids=["one candidate", "the same one twice", "a domain each", "an unknown user", "no context"],
)
def test_scores_are_those_of_the_whole_rows(ranker, changed):
    answer = ranker.rank(request(**changed))
    scores = ranker.scorer.score(answer.features)
    np.testing.assert_allclose(sorted(scores, reverse=True), answer.scores, rtol=0, atol=1e-6)
    assert len(answer.items) == len(answer.features) == len(request(**changed).items)


def test_a_package_from_before_candidates_were_scored_together_is_given_whole_rows(ranker, monkeypatch):
    class Older:
        """A scorer that knows whole rows alone."""

        def __init__(self, scorer: Any) -> None:
            self.encoder, self.columns, self.score = scorer.encoder, scorer.columns, scorer.score

    newer = ranker.rank(request())
    monkeypatch.setattr(ranker, "scorer", Older(ranker.scorer))
    assert ranker.rank(request()).items == newer.items
    np.testing.assert_allclose(ranker.rank(request()).scores, newer.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"items": []}, "no candidates"),
        ({"domain": ["home"]}, "1 domains for 4 candidates"),
        ({"context": {"price": [1.0, 2.0]}}, "context 'price' has 2 values for 4 candidates"),
    ],
)
def test_a_request_that_does_not_add_up_is_refused(ranker, changed, words):
    with pytest.raises(DataError, match=words):
        ranker.rank(request(**changed))
