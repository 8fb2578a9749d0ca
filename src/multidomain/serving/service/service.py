"""A request's way: admitted, read, checked, given its features, scored, answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ...schema import Variant
from . import logs, wire
from .batcher import Batcher
from .holder import Holder, Loaded
from .http import Refusal, answer, body, parsed, require_key
from .metrics import Metrics
from .reading import Reading
from .settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request

Way = Callable[[Loaded, Any, dict[str, Any]], Awaitable[Response]]


class Service:
    """Everything behind the routes.

    Attributes:
        draining: whether the service is about to stop.
        held: how many requests are being answered.

    Args:
        variant: what the model was trained on.
        architecture: the model's name.
        settings: the options.
    """

    def __init__(self, *, variant: Variant, architecture: str, settings: Settings) -> None:
        self.settings, self.metrics, self.draining, self.held = settings, Metrics(), False, 0
        self.holder = Holder(variant=variant, architecture=architecture, settings=settings, metrics=self.metrics)
        self.metrics.held.set_function(lambda: self.held)

    @contextlib.asynccontextmanager
    async def running(self, *_: Any) -> Any:
        """From the first request to the last; the model is loaded before."""
        self.reading = Reading(settings=self.settings, metrics=self.metrics)
        self.batcher = Batcher(settings=self.settings, metrics=self.metrics)
        tasks = [asyncio.create_task(self.holder.follow()), asyncio.create_task(self.batcher.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for part in (self.reading, self.batcher, self.holder):
                part.close()

    async def rank(self, request: Request) -> Response:
        """``POST /rank``."""
        return await self._admitted(request, "rank", self._rank)

    async def score(self, request: Request) -> Response:
        """``POST /score``."""
        return await self._admitted(request, "score", self._score)

    async def _admitted(self, request: Request, form: str, way: Way) -> Response:
        facts: dict[str, Any] = request.scope["state"]["facts"]
        try:
            require_key(request)
            if self.held >= self.settings.queue:
                seconds = str(self.settings.retry_after_seconds)
                message = f"{self.settings.queue} requests are held already. Try again in {seconds} s."
                raise Refusal(503, "queue", message, headers={"Retry-After": seconds})
            self.held += 1
            try:
                return await self._answer(request, form, way, facts)
            finally:
                self.held -= 1
        except Refusal as refusal:
            self.metrics.refused.labels(refusal.reason).inc()
            facts["refused"] = refusal.reason
            return refusal.response()
        except Exception as error:
            facts |= logs.told(error)
            message = "The service failed; its log says where, under this answer's X-Request-Id."
            return Refusal(500, "failed", message).response()

    async def _answer(self, request: Request, form: str, way: Way, facts: dict[str, Any]) -> Response:
        stage, settings = "body", self.settings
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                content = await body(request, settings.max_bytes)
                stage = "answer"
                loaded = self.holder.current
                asked = parsed(getattr(loaded.wire, form), content)
                facts["version"] = loaded.version
                return await way(loaded, asked, facts)
        except TimeoutError as error:
            seconds = f"{settings.timeout_seconds:g} s"
            if stage == "body":
                message = f"The body did not come within {seconds}."
                raise Refusal(408, "slow body", message, headers={"Connection": "close"}) from error
            raise Refusal(504, "timeout", f"There was no answer within {seconds}.") from error

    async def _rank(self, loaded: Loaded, asked: Any, facts: dict[str, Any]) -> Response:
        request = wire.request(asked, loaded.spare.context)
        facts["items"] = len(request.items)
        self.metrics.items.labels("/rank").observe(len(request.items))
        found = await self.reading.given(loaded, request)
        missing = found.missing | ({} if asked.domain in loaded.domains else {"domain": 1})
        for view, count in missing.items():
            self.metrics.missing.labels(view).inc(count)
        facts["degraded"] = found.degraded is not None
        scores = await self._scored(loaded, found.given)
        order = (-scores).argsort(kind="stable")
        return answer(
            wire.RankAnswer(
                items=[request.items[i] for i in order],
                scores=scores[order].tolist(),
                model=model(loaded),
                freshness=dict(self.holder.freshness),
                missing=missing,
                degraded=found.degraded is not None,
            )
        )

    async def _score(self, loaded: Loaded, asked: Any, facts: dict[str, Any]) -> Response:
        facts["items"] = len(asked.rows)
        self.metrics.items.labels("/score").observe(len(asked.rows))
        scores = await self._scored(loaded, loaded.wire.table(asked))
        return answer(wire.ScoreAnswer(scores=scores.tolist(), model=model(loaded)))

    async def _scored(self, loaded: Loaded, rows: Any) -> Any:
        import numpy as np

        scores = await self.batcher.score(loaded, rows)
        if not np.isfinite(scores).all():
            raise Refusal(422, "not finite", "The model has no finite score for a row: a number in it is too large.")
        return scores


def model(loaded: Loaded) -> wire.Model:
    """Which scores."""
    return wire.Model(name=loaded.name, version=loaded.version)
