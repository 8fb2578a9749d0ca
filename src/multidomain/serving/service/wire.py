"""What is asked and answered, as pydantic models; those of requests are made from the columns the package reads.

Types are held to strictly: a number in the place of a text is refused by the name of its field, and so are NaN,
fields that are not known, and numbers beyond what a column can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, create_model

from ..ranker import Request

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = 1024  # characters of a text
LEAST, MOST = -(2**63), 2**63 - 1024  # of 64 bits, and floats too: some write and check JSON by floats
SLACK = 512  # half of what floats of that size differ by
LARGEST = 1e12  # a number, either way; what a model of float32 computes with
LISTED = 10_000  # values of a list
TAGS = ("text", "object")  # of the two forms of an item
LAST_TIME = 4_102_444_800  # 2100-01-01

Text = Annotated[str, Field(max_length=LONGEST)]
Key = Annotated[str, Field(min_length=1, max_length=LONGEST)]
Whole = Annotated[int, Field(ge=LEAST, le=MOST), BeforeValidator(lambda given: _whole(given))]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
_STRICT = ConfigDict(strict=True, extra="forbid")


class Model(BaseModel):
    """Which model scored.

    Attributes:
        name: as registered.
        version: of it.
    """

    name: str
    version: str


class RankAnswer(BaseModel):
    """Candidates by score.

    Attributes:
        items: best first; of equal scores the one asked for first.
        scores: the probability of the label, for each.
        model: which scored.
        freshness: of each view of features up to when it was loaded into the online store (null: not known).
        missing: of each view how many keys it knows nothing of; of ``context`` and ``domain`` how many were not known.
        degraded: whether the features could not be read, so that those of unknown keys were taken.
    """

    items: list[str]
    scores: list[float]
    model: Model
    freshness: dict[str, str | None]
    missing: dict[str, int]
    degraded: bool


class ScoreAnswer(BaseModel):
    """A probability of the label for each row, in their order, and which model scored."""

    scores: list[float]
    model: Model


class Wrong(BaseModel):
    """A field, such as ``items.3`` or ``context.price``, and what is wrong with it."""

    field: str
    message: str


class Problem(BaseModel):
    """Why there is no answer; ``fields``: what is wrong with which."""

    error: str
    message: str
    fields: list[Wrong] = []


class State(BaseModel):
    """``status``: ok, ready, draining or loading; ``model``: what scores."""

    status: str
    model: Model | None = None


@dataclass(frozen=True, kw_only=True)
class Wire:
    """The forms of requests to one package.

    Attributes:
        rank: what ``POST /rank`` takes.
        score: what ``POST /score`` takes.
        columns: what the package reads, with their types.
    """

    rank: type[BaseModel]
    score: type[BaseModel]
    columns: Mapping[str, pa.DataType]

    def table(self, asked: Any) -> pa.Table:
        """(N, columns) the rows of a request to ``/score``."""
        import pyarrow as pa

        rows = asked.rows
        return pa.table(
            {name: pa.array([getattr(row, name) for row in rows], kind) for name, kind in self.columns.items()}
        )


def wire(columns: Mapping[str, pa.DataType], context: Sequence[str], *, items: int) -> Wire:
    """The forms for a package that reads ``columns``, of which a request gives ``context`` itself.

    Args:
        columns: names and types.
        context: those that are no online feature.
        items: how many candidates or rows a request may have.
    """
    optional: Any = {name: (_type(columns[name]) | None, None) for name in context}
    contexts = create_model("Context", __config__=_STRICT, __doc__="Of each feature the value.", **optional)
    candidate = create_model(
        "Candidate",
        __config__=_STRICT,
        __doc__="An item with context of its own, in the place of the request's.",
        item=(Key, ...),
        context=(contexts, Field(default_factory=contexts)),
    )
    either: Any = Annotated[
        Union[Annotated[Key, Tag(TAGS[0])], Annotated[candidate, Tag(TAGS[1])]],  # noqa: UP007
        Discriminator(lambda given: TAGS[isinstance(given, dict | BaseModel)]),
    ]
    rank = create_model(
        "RankRequest",
        __config__=_STRICT,
        __doc__="Who is to see which of some items where. `time`: seconds since 1970, UTC; now, where there is none.",
        user=(Key, ...),
        domain=(Key, ...),
        items=(Annotated[list[either], Field(min_length=1, max_length=items)], ...),
        context=(contexts, Field(default_factory=contexts)),
        time=(Annotated[float, Field(ge=0, le=LAST_TIME, allow_inf_nan=False)] | None, None),
    )
    fields: Any = {name: (_type(kind) | None, ...) for name, kind in columns.items()}
    row = create_model("Row", __config__=_STRICT, __doc__="The columns the model reads; null: not known.", **fields)
    score = create_model(
        "ScoreRequest",
        __config__=_STRICT,
        __doc__="Rows as the feature stage delivers them.",
        rows=(Annotated[list[row], Field(min_length=1, max_length=items)], ...),  # type: ignore[valid-type]
    )
    return Wire(rank=rank, score=score, columns=columns)


def request(asked: Any, context: Sequence[str]) -> Request:
    """What the ranker takes, of what ``/rank`` was sent."""
    from datetime import UTC, datetime

    items = [(item, {}) if isinstance(item, str) else (item.item, _given(item.context)) for item in asked.items]
    usual = _given(asked.context)
    own = {name for _, given in items for name in given}
    told: dict[str, Any] = {name: usual[name] for name in usual if name not in own}
    told |= {name: [given.get(name, usual.get(name)) for _, given in items] for name in context if name in own}
    at = None if asked.time is None else datetime.fromtimestamp(asked.time, UTC)
    return Request(user=asked.user, domain=asked.domain, items=[item for item, _ in items], context=told, at=at)


def wrong(error: ValidationError) -> list[Wrong]:
    """Each field and what is wrong with it, without what was given."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [Wrong(field=field(one["loc"]), message=one["msg"]) for one in found[:20]]


def field(place: Sequence[int | str]) -> str:
    """``items.3.context.price``; of the body as a whole ``body``."""
    parts = [str(part) for i, part in enumerate(place) if not (part in TAGS and i == 2 and place[0] == "items")]
    return ".".join(parts) or "body"


def _whole(given: Any) -> Any:
    """JSON has no whole numbers of their own: 3.0 is one, and -9223372036854776000 is how some write the least one."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, int) and not isinstance(given, bool) and LEAST - SLACK <= given <= MOST + SLACK:
        return max(LEAST, min(MOST, given))
    return given


def _given(context: BaseModel) -> dict[str, Any]:
    return {name: getattr(context, name) for name in context.model_fields_set}


def _type(kind: pa.DataType) -> Any:
    import pyarrow as pa

    if pa.types.is_list(kind):
        one: Any = _type(kind.value_type) | None
        return Annotated[list[one], Field(max_length=LISTED)]
    return {pa.string(): Text, pa.int64(): Whole, pa.float64(): Number}[kind]
