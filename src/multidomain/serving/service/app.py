"""The routes, and the OpenAPI document of the package that is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .http import HEADER, KEY, STATUSES, Refusal, Watch, answer
from .service import Service, model
from .wire import Problem, RankAnswer, ScoreAnswer, State

FORMS = {"/rank": "rank", "/score": "score"}
PLACE = "#/components/schemas/{model}"
ABOUT = "Ranks candidates by the probability of a click, with the features of an online store and a registered model."


def create(service: Service) -> FastAPI:
    """The application around a service whose model is loaded."""
    app = FastAPI(title="Multidomain ranker", version="1", description=ABOUT, lifespan=service.running, redoc_url=None)
    _routes(app, service)
    app.exception_handler(HTTPException)(_http)
    app.add_middleware(Watch, metrics=service.metrics, state=service)
    app.openapi = lambda: document(app, service)  # type: ignore[method-assign]
    return app


def _routes(app: FastAPI, service: Service) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": text} for status, text in STATUSES.items()
    }

    @app.post("/rank", response_model=RankAnswer, responses=problems, summary="Candidates, best first")
    async def rank(request: Request) -> Response:
        """Features come from the online store; `degraded` says that they could not be read."""
        return await service.rank(request)

    @app.post("/score", response_model=ScoreAnswer, responses=problems, summary="Rows as the model takes them")
    async def score(request: Request) -> Response:
        """A score for each row, in their order; nothing is read from the online store."""
        return await service.score(request)

    @app.get("/health", response_model=State, summary="The process runs")
    async def health() -> Response:
        return answer(State(status="ok"))

    @app.get("/ready", response_model=State, responses={503: {"model": State}}, summary="Requests are welcome")
    async def ready() -> Response:
        status = "draining" if service.draining else "ready"
        return answer(State(status=status, model=model(service.holder.current)), 503 if service.draining else 200)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}, summary="Counters")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def document(app: FastAPI, service: Service) -> dict[str, Any]:
    """OpenAPI; made anew each time, for requests are what the loaded package reads."""
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    forms = service.holder.current.wire
    for path, name in FORMS.items():
        form: type[BaseModel] = getattr(forms, name)
        schemas |= _schemas(form)
        content = {"application/json": {"schema": {"$ref": PLACE.format(model=form.__name__)}}}
        made["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
        if os.environ.get(KEY):
            made["paths"][path]["post"]["security"] = [{"key": []}]
    if os.environ.get(KEY):
        made["components"]["securitySchemes"] = {"key": {"type": "apiKey", "in": "header", "name": HEADER}}
    return made


def _schemas(form: type[BaseModel]) -> Mapping[str, Any]:
    described = form.model_json_schema(ref_template=PLACE)
    return {**described.pop("$defs", {}), form.__name__: described}


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Refusal(error.status_code, "http", str(error.detail), headers=error.headers).response()
