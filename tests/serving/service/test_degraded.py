"""A feature store that fails, or does not answer: defaults, a flag, and never a wait without end."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import time

import pytest
import redis_server
from feature_oracle import DAY, START
from served_log import promote, register, served
from small_ranker import SmallLog

from multidomain.features.materialize import materialize
from multidomain.serving.service.reading import Breaker

AT = dt.datetime.fromtimestamp((START + 2.5 * DAY) / 1e6, dt.UTC)


class Store:
    """What the readers of a service ask, until told otherwise."""

    def __init__(self, service, monkeypatch) -> None:
        self.asked, self.does = 0, None
        for ranker in list(service.holder.current.rankers.queue):
            read = ranker._reader._read_rows
            monkeypatch.setattr(ranker._reader, "_read_rows", lambda *given, read=read: self._read(read, *given))

    def _read(self, read, *given):
        self.asked += 1
        if self.does:
            self.does()
        return read(*given)


def fails() -> None:
    raise ConnectionError("nobody there")


@pytest.fixture
def short(small):
    """A service that waits 0.3 s for the store, gives it up after two failures and tries it again after 0.5 s."""
    given = {"store_timeout_seconds": 0.3, "store_failures": 2, "store_retry_seconds": 0.5}
    with served(small, poll_seconds=60, **given) as both:
        yield both


@pytest.mark.parametrize("does", [fails, lambda: time.sleep(3)], ids=["it fails", "it hangs"])
def test_without_the_store_the_answer_is_that_of_unknown_keys_and_says_so(short, asked, monkeypatch, does):
    service, client = short
    store = Store(service, monkeypatch)
    known = client.post("/rank", json=asked).json()
    unknown = {**asked, "user": "nobody", "items": ["x1", {"item": "x2", "context": {"price": 0.25}}]}
    store.does = does
    start = time.monotonic()
    answer = client.post("/rank", json=asked)
    assert time.monotonic() - start < 2
    assert answer.status_code == 200
    found = answer.json()
    assert found["degraded"] is True
    assert sorted(found["items"]) == sorted(known["items"])
    assert found["missing"]["user_profile"] == 1
    assert found["missing"]["item_profile"] == 4
    nobody = client.post("/rank", json=unknown).json()
    by_price = {0.5: found["scores"][found["items"].index("01")], 0.25: found["scores"][found["items"].index("03")]}
    assert by_price[0.5] == pytest.approx(nobody["scores"][nobody["items"].index("x1")], abs=1e-7)
    assert by_price[0.25] == pytest.approx(nobody["scores"][nobody["items"].index("x2")], abs=1e-7)
    assert "multidomain_degraded_total" in client.get("/metrics").text


def test_after_some_failures_the_store_is_left_alone_and_tried_again_later(short, asked, monkeypatch):
    service, client = short
    store = Store(service, monkeypatch)
    store.does = fails
    assert [client.post("/rank", json=asked).json()["degraded"] for _ in range(6)] == [True] * 6
    assert store.asked == 2
    store.does = None
    time.sleep(0.6)
    assert client.post("/rank", json=asked).json()["degraded"] is False
    assert client.post("/rank", json=asked).json()["degraded"] is False


def test_a_breaker_lets_one_try_while_the_store_is_given_up():
    now = [0.0]
    breaker = Breaker(failures=2, seconds=1, clock=lambda: now[0])
    assert [breaker.failed(), breaker.lets(), breaker.failed(), breaker.lets()] == [False, True, True, False]
    now[0] = 1.5
    assert [breaker.lets(), breaker.lets()] == [True, False]
    breaker.succeeded()
    assert [breaker.lets(), breaker.lets()] == [True, True]


def test_a_redis_that_stands_still_or_goes_is_done_without_until_it_is_back(tmp_path, asked):
    with redis_server.running(tmp_path) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIDOMAIN_DATA", str(tmp_path / "data"))
        patch.setenv("MULTIDOMAIN_FEATURE_STORE", "feature_repo/redis/feature_store.yaml")
        patch.setenv("MULTIDOMAIN_REDIS", address)
        small = SmallLog(tmp_path)
        materialize(small.variant, until=AT)
        promote(small, register(small, 1))
        with served(small, store_timeout_seconds=0.5, store_failures=2, store_retry_seconds=0.3) as (_, client):
            first = client.post("/rank", json=asked).json()
            assert first["degraded"] is False
            (process,) = subprocess.run(
                ["pgrep", "-f", f"127.0.0.1:{address.split(':')[1]}"], capture_output=True, text=True
            ).stdout.split()
            subprocess.run(["kill", f"-{signal.SIGSTOP.value}", process], check=True)
            try:
                for _ in range(4):
                    start = time.monotonic()
                    assert client.post("/rank", json=asked).json()["degraded"] is True
                    assert time.monotonic() - start < 2
            finally:
                subprocess.run(["kill", f"-{signal.SIGCONT.value}", process], check=True)
            end = time.monotonic() + 20
            while (again := client.post("/rank", json=asked).json())["degraded"] and time.monotonic() < end:
                time.sleep(0.2)
            assert again["scores"] == pytest.approx(first["scores"], abs=1e-7)
