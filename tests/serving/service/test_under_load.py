"""Many callers at once: nothing is dropped while the alias moves or the service stops; too many are told so."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served_log import Process, promote, served


class Callers:
    """Threads that ask without pause, each over a connection of its own, until told to stop.

    As behind a load balancer: one whose connection was closed looks at ``/ready``, and goes where that says no.
    """

    def __init__(self, address: str, asked: dict, count: int = 4) -> None:
        self.address, self.asked, self.answers, self.errors = address, asked, [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.address, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/rank", json=self.asked)
                except httpx.ConnectError:  # nobody takes requests any more: none was dropped
                    return
                except httpx.HTTPError as error:
                    self.errors.append(repr(error))
                    return
                self.answers.append((answer.status_code, answer.json()))
                if answer.headers.get("Connection") == "close" and client.get("/ready").status_code == 503:
                    return

    def versions(self) -> list[str]:
        return [found["model"]["version"] for status, found in list(self.answers) if status == 200]

    def until(self, condition, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        assert condition()


def test_the_alias_moves_and_the_service_ends_under_load_and_no_request_fails(small, asked, tmp_path):
    try:
        with Process(small, tmp_path) as process, Callers(process.address, asked) as callers:
            callers.until(lambda: len(callers.versions()) > 20)
            promote(small, "2")
            callers.until(lambda: "2" in callers.versions())
            promote(small, "1")
            callers.until(lambda: callers.versions()[-1] == "1" and "2" in callers.versions())
            before = len(callers.answers)
            process.terminate()
            assert process.process.wait(timeout=30) == 0, process.log.read_text()
            assert len(callers.answers) > before  # those that came while it drained
        assert callers.errors == []
        assert {status for status, _ in callers.answers} == {200}
        by_version = {found["model"]["version"]: tuple(found["scores"]) for _, found in callers.answers}
        assert len(set(by_version.values())) == 2
    finally:
        promote(small, "1")
    log = process.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["version"] for line in lines if line["event"] == "model loaded"] == ["1", "2", "1"]
    assert "draining" in {line["event"] for line in lines}
    one = next(line for line in lines if line["event"] == "request")
    assert {"id", "route", "status", "ms", "items", "version", "degraded"} <= set(one)
    assert "ann@" not in log


@pytest.fixture
def slow(small):
    """A service that joins what comes within 300 ms and holds at most four requests."""
    with served(small, batch_wait_ms=300, queue=4) as both:
        yield both


def together(client: httpx.Client, asked: dict, count: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: client.post("/rank", json=asked), range(count)))


def test_requests_that_come_together_are_scored_in_one_forward_and_as_if_alone(slow, asked, monkeypatch):
    service, client = slow
    alone = client.post("/rank", json=asked).json()
    scorer, calls = service.holder.current.scorer, []
    score = scorer.score
    monkeypatch.setattr(scorer, "score", lambda table: calls.append(len(table)) or score(table))
    answers = [answer.json() for answer in together(client, asked, 3)]
    assert calls == [12]
    for found in answers:
        assert found["items"] == alone["items"]
        assert found["scores"] == pytest.approx(alone["scores"], abs=1e-6)


def test_beyond_the_queue_callers_are_told_when_to_try_again(slow, asked):
    service, client = slow
    answers = together(client, asked, 12)
    assert {answer.status_code for answer in answers} == {200, 503}
    assert sum(answer.status_code == 200 for answer in answers) >= 4
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 503} == {"1"}
    assert client.post("/rank", json=asked).status_code == 200
    assert service.held == 0


def test_what_takes_too_long_is_answered_and_its_place_is_free_again(small, asked):
    with served(small, batch_wait_ms=600, timeout_seconds=0.2) as (service, client):
        answer = client.post("/rank", json=asked)
        assert answer.status_code == 504
        assert answer.json()["error"] == "timeout"
        assert service.held == 0


def test_a_model_that_cannot_be_loaded_changes_nothing(small, running, asked, monkeypatch):
    service, client = running
    from multidomain.packaging import registry

    def failing(*_: object) -> None:
        raise OSError("the registry is away")

    before = service.metrics.failures._value.get()
    monkeypatch.setattr(registry, "find", failing)
    end = time.monotonic() + 20
    while service.metrics.failures._value.get() == before and time.monotonic() < end:
        time.sleep(0.05)
    assert service.metrics.failures._value.get() > before
    assert client.post("/rank", json=asked).json()["model"]["version"] == "1"


def test_one_that_cannot_be_scored_does_not_take_the_others_with_it(slow, asked, monkeypatch):
    service, client = slow
    scorer = service.holder.current.scorer
    monkeypatch.setattr(scorer, "score", lambda table: (_ for _ in ()).throw(RuntimeError("ann@ cannot be")))
    answers = together(client, asked, 2)  # each alone goes by score_candidates
    assert [answer.status_code for answer in answers] == [200, 200]
    answer = client.post("/score", json={"rows": [dict.fromkeys(scorer.columns)]})
    assert answer.status_code == 500
    assert "ann@" not in answer.text
    assert answer.headers["X-Request-Id"]
