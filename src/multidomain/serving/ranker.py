"""The one way from a request to an order: online features, encoder, model, scores.

A request names a user, a domain and candidates. Their features are read from Feast's online store, with one read for
each kind of key however many candidates there are, and put into the columns the packaged model was trained on; its own
encoder and weights do the rest, as for a row of the training frame. A user, item or domain that is not known has no
features, which the encoder takes for unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..features import repository
from ..features.views import View, views
from ..schema import REMAINDER, Variant

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore

    from ..packaging.scorer import Scorer

Keys = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who is to see which of some items where.

    Attributes:
        user: as in the log.
        items: the candidates, as in the log.
        domain: its name, for all candidates or one for each.
        context: per context feature its value, for all candidates, or a list with one for each.
    """

    user: str
    items: Sequence[str]
    domain: str | Sequence[str]
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The answer.

    Attributes:
        items: best first; of equal scores the one asked for first.
        scores: the probability of the label, for each.
        missing: of each view how many keys it knows nothing of, of ``context`` how many features were not given.
        features: what the model was given, in the order of the request.
    """

    items: tuple[str, ...]
    scores: tuple[float, ...]
    missing: Mapping[str, int]
    features: pa.Table


class Ranker:
    """Ranks candidates with one packaged model.

    Attributes:
        counted: over all requests: ``requests``, ``candidates``, and what was missing, by the names in
            :attr:`Ranking.missing`.

    Args:
        variant: what the model was trained on.
        store: Feast's, with the variant's project.
        scorer: the model with its encoder.
    """

    def __init__(self, *, variant: Variant, store: FeatureStore, scorer: Scorer) -> None:
        self.variant, self.scorer, self.counted = variant, scorer, Counter[str]()
        self._store, self._domains = store, frozenset(scorer.encoder.domains)
        self._reads: dict[Keys, list[View]] = {}
        for view in views(variant):
            if any(column.name in scorer.columns for column in view.columns):
                self._reads.setdefault(view.keys, []).append(view)
        read = {column.name for found in self._reads.values() for view in found for column in view.columns}
        self.context = tuple(name for name in scorer.columns if name not in read and name != "domain")

    @classmethod
    def open(cls, variant: Variant, architecture: str, version: int | str | None = None) -> Ranker:
        """With the registered champion, or another version of it, and the variant's online store.

        Raises:
            ConfigurationError: there is no such model.
            DataError: the variant was never registered with Feast.
        """
        from ..packaging import registry

        scorer = registry.scorer(*registry.find(variant.key, architecture, version))
        store, _ = repository.service(variant)
        return cls(variant=variant, store=store, scorer=scorer)

    def rank(self, request: Request) -> Ranking:
        """The candidates by score.

        Raises:
            DataError: there are no candidates, or lists of the request are not as long as there are candidates.
        """
        features, missing = self.features(request)
        scores = self.scorer.score(features)
        order = (-scores).argsort(kind="stable")
        self.counted.update({"requests": 1, "candidates": len(scores), **missing})
        return Ranking(
            items=tuple(str(request.items[i]) for i in order),
            scores=tuple(scores[order].tolist()),
            missing=missing,
            features=features,
        )

    def features(self, request: Request) -> tuple[pa.Table, dict[str, int]]:
        """The columns the model reads, one row per candidate, and what was missing."""
        import pyarrow as pa

        keys = self._keys(request)
        columns: dict[str, Any] = {"domain": keys["domain"]}
        missing: dict[str, int] = {}
        for names, planned in self._reads.items():
            asked = list(zip(*(keys[name] for name in names), strict=True))
            place = {key: i for i, key in enumerate(dict.fromkeys(asked))}
            rows = pa.array([place[key] for key in asked])
            found, absent = self._read(names, planned, list(place))
            missing |= absent
            columns |= {name: pa.array(values, self.scorer.columns[name]).take(rows) for name, values in found.items()}
        columns |= self._context(request, len(keys["item"]))
        if not_given := sum(name not in request.context for name in self.context):
            missing["context"] = not_given
        types = self.scorer.columns
        return pa.table({name: pa.array(columns[name], types[name]) for name in types}), missing

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
        self, names: Keys, planned: list[View], distinct: list[Keys]
    ) -> tuple[dict[str, list[Any]], dict[str, int]]:
        """Features of these keys, and of each view how many it knows nothing of. One call, whatever their number."""
        wanted = {view.name: [c.name for c in view.columns if c.name in self.scorer.columns] for view in planned}
        found = self._store.get_online_features(
            features=[f"{view}:{column}" for view, columns in wanted.items() for column in columns],
            entity_rows=[dict(zip(names, key, strict=True)) for key in distinct],
        ).to_dict()
        absent = {
            view: sum(all(cell is None for cell in row) for row in zip(*(found[name] for name in columns), strict=True))
            for view, columns in wanted.items()
        }
        values = {name: found[name] for columns in wanted.values() for name in columns}
        return values, {view: count for view, count in absent.items() if count}

    def _context(self, request: Request, candidates: int) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        for name in self.context:
            given = request.context.get(name)
            columns[name] = list(given) if isinstance(given, list | tuple) else [given] * candidates
            if len(columns[name]) != candidates:
                raise DataError(f"context '{name}' has {len(columns[name])} values for {candidates} candidates.")
        return columns
