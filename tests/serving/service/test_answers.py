"""What the service answers is what the ranker and the package say."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from multidomain.features import repository
from multidomain.serving import Ranker, Request


def ranker(small):
    return Ranker.open(small.variant, "dnn", 1)


def test_an_order_is_the_rankers_with_its_model_and_freshness(small, client, asked):
    answer = client.post("/rank", json=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    at = repository.store(small.variant).get_feature_view("user_counts").most_recent_end_time
    import datetime as dt

    context = {"device": "phone", "price": [0.5, 0.25, 0.5, 0.5]}
    moment = dt.datetime.fromtimestamp(asked["time"], dt.UTC)
    items = ["01", "03", "99", "02"]
    expected = ranker(small).rank(Request(user="ann@", domain="shop", items=items, context=context, at=moment))
    assert found["items"] == list(expected.items)
    np.testing.assert_allclose(found["scores"], expected.scores, rtol=0, atol=1e-9)
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert found["missing"] == dict(expected.missing)
    assert found["model"] == {"name": "multidomain-small-place-user_time-full-click-dnn", "version": "1"}
    assert found["freshness"]["user_counts"] == at.isoformat()
    assert found["degraded"] is False


def test_raw_rows_score_as_in_the_package_whichever_way_json_writes_their_numbers(small, client):
    scorer = ranker(small).scorer
    frame = pq.read_table(small.frame).slice(0, 15)
    rows = frame.select(list(scorer.columns)).to_pylist()
    for row in rows:
        row.update({name: None for name, value in row.items() if isinstance(value, float) and math.isnan(value)})
    answer = client.post("/score", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    expected = scorer.predict(frame.to_pandas())["score"]
    np.testing.assert_allclose(answer.json()["scores"], expected, rtol=0, atol=1e-9)
    rows[0]["price"] = 1
    assert client.post("/score", json={"rows": rows[:1]}).status_code == 200


def test_a_domain_that_training_did_not_know_is_served_as_the_remainder_and_said(client, asked):
    found = client.post("/rank", json={**asked, "domain": "a new page"}).json()
    assert found["missing"]["domain"] == 1
    assert len(found["items"]) == 4


BAD = {
    "missing field": ({"user": ...}, 422, "user"),
    "a number for a text": ({"user": 7}, 422, "user"),
    "an empty user": ({"user": ""}, 422, "user"),
    "a domain that is a list": ({"domain": ["shop"]}, 422, "domain"),
    "no items": ({"items": []}, 422, "items"),
    "an item that is a number": ({"items": ["01", 3]}, 422, "items.1"),
    "an item without a name": ({"items": [{"context": {}}]}, 422, "items.0.item"),
    "context of an item": ({"items": [{"item": "01", "context": {"price": "x"}}]}, 422, "items.0.context.price"),
    "too many items": ({"items": ["01"] * 21}, 422, "items"),
    "a text for a number": ({"context": {"price": "cheap"}}, 422, "context.price"),
    "a whole number for a text": ({"context": {"device": 1}}, 422, "context.device"),
    "too large a number": ({"context": {"price": 1e300}}, 422, "context.price"),
    "unknown context": ({"context": {"prise": 1.0}}, 422, "context.prise"),
    "unknown field": ({"itmes": []}, 422, "itmes"),
    "a time that is none": ({"time": "now"}, 422, "time"),
}


@pytest.mark.parametrize(("changed", "status", "field"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_with_the_name_of_the_field(client, asked, changed, status, field):
    sent = {name: value for name, value in {**asked, **changed}.items() if value is not ...}
    answer = client.post("/rank", json=sent)
    assert answer.status_code == status, answer.text
    assert field in [one["field"] for one in answer.json()["fields"]]


RAW = {
    "NaN": (b'{"user": "a", "domain": "shop", "items": ["01"], "context": {"price": NaN}}', 422, "context.price"),
    "infinity": (
        b'{"user": "a", "domain": "shop", "items": ["01"], "context": {"price": 1e999}}',
        422,
        "context.price",
    ),
    "half a surrogate": (rb'{"user": "\ud800", "domain": "shop", "items": ["01"]}', 422, "body"),
    "no JSON": (b"user=ann", 422, "body"),
    "nothing": (b"", 422, "body"),
    "not an object": (b"[1]", 422, "body"),
    "deep nesting": (b"[" * 5000, 422, "body"),
    "no UTF-8": (b'{"user": "\xff"}', 422, "body"),
    "a huge body": (b'{"user": "' + b"a" * 100_000 + b'"}', 413, "body"),
}


@pytest.mark.parametrize(("sent", "status", "field"), RAW.values(), ids=RAW.keys())
def test_a_body_that_is_no_request_is_refused(client, sent, status, field):
    answer = client.post("/rank", content=sent, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert [one["field"] for one in answer.json()["fields"]] == [field]


def test_another_media_type_is_refused(client, asked):
    assert client.post("/rank", content=json.dumps(asked), headers={"content-type": "text/plain"}).status_code == 415


def test_rows_are_held_to_the_columns_of_the_package(small, client):
    columns = ranker(small).scorer.columns
    row = dict.fromkeys(columns)
    assert client.post("/score", json={"rows": [row]}).status_code == 200
    lacking = {name: value for name, value in row.items() if name != "price"}
    for changed, field in [
        (lacking, "rows.1.price"),
        ({**row, "year": "1990"}, "rows.1.year"),
        ({**row, "tags": "a"}, "rows.1.tags"),
        ({**row, "tags": [1]}, "rows.1.tags.0"),
        ({**row, "other": 1}, "rows.1.other"),
    ]:
        answer = client.post("/score", json={"rows": [row, changed]})
        assert answer.status_code == 422
        assert [one["field"] for one in answer.json()["fields"]] == [field]


def test_a_key_is_asked_for_where_one_is_set(client, asked, monkeypatch):
    monkeypatch.setenv("MULTIDOMAIN_API_KEY", "s3cret")
    for headers in ({}, {"X-API-Key": "other"}, {"X-API-Key": ""}):
        answer = client.post("/rank", json=asked, headers=headers)
        assert answer.status_code == 401
        assert "X-API-Key" in answer.json()["message"]
    assert client.post("/rank", json=asked, headers={"X-API-Key": "s3cret"}).status_code == 200
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    assert client.get("/openapi.json").json()["paths"]["/rank"]["post"]["security"] == [{"key": []}]


def test_answers_are_counted_and_health_tells_nothing_else(client, asked):
    client.post("/rank", json=asked)
    text = client.get("/metrics").text
    assert 'multidomain_requests_total{route="/rank",status="200"}' in text
    assert 'multidomain_model_info{name="multidomain-small-place-user_time-full-click-dnn",version="1"} 1.0' in text
    assert "ann@" not in text
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/nowhere").status_code == 404
    assert client.get("/rank").status_code == 405


def test_the_document_describes_what_the_package_reads(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Context"]["properties"]) == {"device", "price"}
    assert {"year", "tags", "positives_film", "user_count"} <= set(schemas["Row"]["required"])
    assert schemas["RankRequest"]["properties"]["items"]["maxItems"] == 20
