"""The one way from a request to an order: online features, encoder, model, scores.

A request names a user, a domain and candidates. Their features are read from Feast's online store, all of them at once
and each key once however many candidates there are (:mod:`multidomain.serving.reads`), and put into the columns the
packaged model was trained on; its own encoder and weights do the rest, as for a row of the training frame. A user, item
or domain that is not known has no features, which the encoder takes for unknown.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..features import repository
from ..features.request_time import RequestTime
from ..features.views import views
from ..schema import REMAINDER, Variant
from .reads import Key, Names, OnlineReader, RowCache

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from feast import FeatureStore

    from ..packaging.scorer import Scorer

Cells = Sequence[Any]  # of one feature, a value for each key


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who is to see which of some items where.

    Attributes:
        user: as in the log.
        items: the candidates, as in the log.
        domain: its name, for all candidates or one for each.
        context: per context feature its value, for all candidates, or a list with one for each.
        at: when it is made, for what is made of that; now, where none is given. One without a zone is UTC.
    """

    user: str
    items: Sequence[str]
    domain: str | Sequence[str]
    context: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Given:
    """The columns the model reads, for N candidates.

    Attributes:
        candidates: (N, …) the columns in which they may differ.
        shared: (1, …) the others, which are of the user, the request or its one domain.
        names: of all columns, in the order of the model.
    """

    candidates: pa.Table
    shared: pa.Table
    names: Sequence[str]

    def table(self) -> pa.Table:
        """(N, …) all of them."""
        import pyarrow as pa

        once = pa.array([0] * len(self.candidates), pa.int32())
        columns = dict(zip(self.candidates.column_names, self.candidates.columns, strict=True))
        columns |= {name: self.shared[name].combine_chunks().take(once) for name in self.shared.column_names}
        return pa.table({name: columns[name] for name in self.names})


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The answer.

    Attributes:
        items: best first; of equal scores the one asked for first.
        scores: the probability of the label, for each.
        missing: of each view how many keys it knows nothing of, of ``context`` how many features were not given.
    """

    items: tuple[str, ...]
    scores: tuple[float, ...]
    missing: Mapping[str, int]
    _given: Given

    @functools.cached_property
    def features(self) -> pa.Table:
        """What the model was given, in the order of the request."""
        return self._given.table()


class Ranker:
    """Ranks candidates with one packaged model. Threads take one each, with a store of its own; a cache they may share.

    Attributes:
        counted: over all requests: ``requests``, ``candidates``, and what was missing, by the names in
            :attr:`Ranking.missing`.

    Args:
        variant: what the model was trained on.
        store: Feast's, with the variant's project.
        scorer: the model with its encoder.
        cache: keeps rows of items and domains for some seconds. Without one every request reads what the store has now.

    Raises:
        DataError: a view, or a feature of it, is not registered.
    """

    def __init__(self, *, variant: Variant, store: FeatureStore, scorer: Scorer, cache: RowCache | None = None) -> None:
        self.variant, self.scorer, self.counted = variant, scorer, Counter[str]()
        self._store, self._domains = store, frozenset(scorer.encoder.domains)
        read = {view: [c.name for c in view.columns if c.name in scorer.columns] for view in views(variant)}
        planned = [view for view, columns in read.items() if columns]
        self._reader = OnlineReader(store=store, views=planned, features=scorer.columns, cache=cache)
        made = [feature.name for feature in variant.request_features if feature.name in scorer.columns]
        self._time = RequestTime(store=store, features=made)
        online = {column for columns in read.values() for column in columns} | set(made)
        self.context = tuple(name for name in scorer.columns if name not in online and name != "domain")

    @classmethod
    def open(
        cls,
        variant: Variant,
        architecture: str,
        version: int | str | None = None,
        *,
        cache: RowCache | None = None,
    ) -> Ranker:
        """With the registered champion, or another version of it, and the variant's online store.

        Raises:
            ConfigurationError: there is no such model.
            DataError: the variant was never registered with Feast, or a view of it is not.
        """
        from ..packaging import registry

        scorer = registry.scorer(*registry.find(variant.key, architecture, version))
        store, _ = repository.service(variant)
        ranker = cls(variant=variant, store=store, scorer=scorer, cache=cache)
        ranker.warm()
        return ranker

    def warm(self) -> None:
        """Score a row of nothing, so that what is made once, such as the encoder's tables, waits for no request."""
        import pyarrow as pa

        kinds = self.scorer.columns.items()
        row = {name: pa.array([[None] if pa.types.is_list(kind) else None], kind) for name, kind in kinds}
        self.scorer.score(pa.table(row))

    def rank(self, request: Request) -> Ranking:
        """The candidates by score.

        Raises:
            DataError: there are no candidates, or lists of the request are not as long as there are candidates.
        """
        given, missing = self.given(request)
        scores = self._scores(given)
        order = (-scores).argsort(kind="stable")
        self.counted.update({"requests": 1, "candidates": len(scores), **missing})
        return Ranking(
            items=tuple(str(request.items[i]) for i in order),
            scores=tuple(scores[order].tolist()),
            missing=missing,
            _given=given,
        )

    def features(self, request: Request) -> tuple[pa.Table, dict[str, int]]:
        """The columns the model reads, one row per candidate, and what was missing."""
        given, missing = self.given(request)
        return given.table(), missing

    def _scores(self, given: Given) -> npt.NDArray[np.float64]:
        """Probabilities; a package from before ``score_candidates`` is given every column of every candidate."""
        if hasattr(self.scorer, "score_candidates"):
            return self.scorer.score_candidates(given.candidates, given.shared)
        return self.scorer.score(given.table())

    def given(self, request: Request, *, stored: bool = True) -> tuple[Given, dict[str, int]]:
        """What the model reads, and what was missing; a value that all candidates have is there once.

        Without ``stored`` the online store is not asked: every key is one that nothing is known of.
        """
        import pyarrow as pa

        keys = self._keys(request)
        types, candidates = self.scorer.columns, len(keys["item"])
        asked = {names: list(zip(*(keys[name] for name in names), strict=True)) for names in self._reader.columns}
        distinct = {names: list(dict.fromkeys(found)) for names, found in asked.items()}
        values, missing = self._read(distinct, stored)
        told: dict[str, Cells] = {"domain": keys["domain"][:1] if len(set(keys["domain"])) == 1 else keys["domain"]}
        told |= self._context(request, candidates)
        told |= {name: [value] for name, value in self._time.at(request.at).items()}
        arrays = {name: pa.array(cells, types[name]) for name, cells in told.items()}
        for names, found in values.items():
            of_keys = {name: pa.array(cells, types[name]) for name, cells in found.items()}
            if 1 < len(distinct[names]) < candidates:
                place = {key: i for i, key in enumerate(distinct[names])}
                rows = pa.array([place[key] for key in asked[names]])
                of_keys = {name: array.take(rows) for name, array in of_keys.items()}
            arrays |= of_keys
        if all(len(array) < candidates for array in arrays.values()):  # no column tells how many candidates there are
            arrays["domain"] = pa.array(keys["domain"], types["domain"])
        if not_given := sum(name not in request.context for name in self.context):
            missing["context"] = not_given
        shared = {name: array for name, array in arrays.items() if len(array) < candidates}
        own = {name: array for name, array in arrays.items() if name not in shared}
        return Given(candidates=pa.table(own), shared=pa.table(shared), names=tuple(types)), missing

    def _keys(self, request: Request) -> dict[str, list[str]]:
        """User, item and domain of every candidate; a domain that training did not know is in the remainder."""
        items = [str(item) for item in request.items]
        if not items:
            raise DataError(f"The request of user '{request.user}' has no candidates to rank.")
        domains = [request.domain] * len(items) if isinstance(request.domain, str) else list(request.domain)
        if len(domains) != len(items):
            raise DataError(f"The request names {len(domains)} domains for {len(items)} candidates.")
        known = [domain if domain in self._domains else REMAINDER for domain in domains]
        return {"user": [str(request.user)] * len(items), "item": items, "domain": known}

    def _read(
        self, distinct: Mapping[Names, list[Key]], stored: bool
    ) -> tuple[dict[Names, dict[str, Cells]], dict[str, int]]:
        """Of each kind of key the features of these keys, and of each view how many it knows nothing of."""
        values: dict[Names, dict[str, Cells]] = {names: {} for names in distinct}
        missing: dict[str, int] = {}
        for names, rows in (self._reader.rows if stored else self._reader.nothing)(distinct).items():
            cells = list(zip(*rows, strict=True))
            for view, columns in self._reader.columns[names].items():
                held, cells = cells[: len(columns)], cells[len(columns) :]
                values[names] |= zip(columns, held, strict=True)
                if absent := sum(row.count(None) == len(row) for row in zip(*held, strict=True)):
                    missing[view] = absent
        return values, missing

    def _context(self, request: Request, candidates: int) -> dict[str, list[Any]]:
        """Of each context feature the value for all candidates, or one for each."""
        columns: dict[str, list[Any]] = {}
        for name in self.context:
            given = request.context.get(name)
            columns[name] = list(given) if isinstance(given, list | tuple) else [given]
            if isinstance(given, list | tuple) and len(given) != candidates:
                raise DataError(f"context '{name}' has {len(given)} values for {candidates} candidates.")
        return columns
