"""The schema: one plain YAML file says everything the product knows of one log.

Tables and their types, validation rules, Feast entities and views, encoders, embedding tables, the
packaged model's signature and the serving request all come from the objects of this module.
:func:`load` is the only reader. A mistake in the file is a :class:`~multidomain.errors.SchemaError`
that names the file, the key and what is allowed there.

In every section with named choices (``labels``, ``domains``, ``splits``, ``feature_sets``) the first one
is the default, and ``--params=domain=genre`` picks another. The choices together are a
:class:`Variant`, named ``<domain>-<split>-<features>-<label>``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .errors import ConfigurationError, SchemaError, unknown_key
from .inputs import InputSchema as InputSchema  # the models' view of an encoded variant
from .schema_parts import REMAINDER as REMAINDER
from .schema_parts import RESERVED as RESERVED
from .schema_parts import SPLITS as SPLITS
from .schema_parts import TRUTHS as TRUTHS
from .schema_parts import UNKNOWN_DOMAIN as UNKNOWN_DOMAIN
from .schema_parts import WEB as WEB
from .schema_parts import WEIGHT as WEIGHT
from .schema_parts import CountKey as CountKey
from .schema_parts import Domain as Domain
from .schema_parts import Feature as Feature
from .schema_parts import FeatureSet as FeatureSet
from .schema_parts import History as History
from .schema_parts import Kind as Kind
from .schema_parts import Label as Label
from .schema_parts import Minimum as Minimum
from .schema_parts import Owner as Owner
from .schema_parts import RawFile as RawFile
from .schema_parts import RequestFeature as RequestFeature
from .schema_parts import Roles as Roles
from .schema_parts import Simulation as Simulation
from .schema_parts import Split as Split
from .schema_parts import SplitKind as SplitKind
from .schema_parts import Type as Type
from .schema_parts import Validation as Validation


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Everything known of one log. See ``conf/base/datasets/movielens.yml`` for the form of the file."""

    name: str
    path: Path
    source: str
    files: Mapping[str, RawFile]
    roles: Roles
    labels: tuple[Label, ...]
    domains: tuple[Domain, ...]
    splits: tuple[Split, ...]
    features: tuple[Feature, ...]
    histories: tuple[History, ...] = ()
    counts: tuple[CountKey, ...] = ()
    windows: tuple[int, ...] = ()  # days before the impression's own over which these are counted, too
    request: tuple[RequestFeature, ...] = ()  # made of the impression's time, when it is asked for
    feature_sets: tuple[FeatureSet, ...] = ()
    minimums: tuple[Minimum, ...] = ()
    validation: Validation = field(default_factory=Validation)
    simulation: Simulation | None = None
    description: str = ""
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    digest: str = ""

    def feature(self, name: str) -> Feature:
        """The declared feature of that name."""
        for candidate in self.features:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def owned_by(self, owner: Owner) -> tuple[Feature, ...]:
        """The declared features that are stored in the table of ``owner``."""
        return tuple(f for f in self.features if f.owner == owner)

    def variant(
        self,
        *,
        domain: str | None = None,
        split: str | None = None,
        features: str | None = None,
        label: str | None = None,
    ) -> Variant:
        """Pick one choice of each section; what is not given is the section's first.

        Raises:
            ConfigurationError: a choice that the schema does not have, or a combination that would leak labels.
        """
        chosen = Variant(
            schema=self,
            domain=_choose(self, "domain", self.domains, domain),
            split=_choose(self, "split", self.splits, split),
            feature_set=_choose(self, "features", self.feature_sets, features),
            label=_choose(self, "label", self.labels, label),
        )
        carried = chosen.carries_labels
        if carried and chosen.split.kind in ("random", "order"):
            raise ConfigurationError(
                f"split={chosen.split.name} cannot go with features={chosen.feature_set.name} of data set "
                f"'{self.name}': {', '.join(carried)} carry earlier labels, so with a split that is not by time "
                "training rows would see the labels of test rows. Choose features=profile, or a split by time."
            )
        return chosen


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One log with one choice of domain, split, feature set and label: what a model is trained on."""

    schema: Schema
    domain: Domain
    split: Split
    feature_set: FeatureSet
    label: Label

    @property
    def name(self) -> str:
        """``age-user_time-full-click``"""
        return f"{self.domain.name}-{self.split.name}-{self.feature_set.name}-{self.label.name}"

    @property
    def key(self) -> str:
        """``movielens/age-user_time-full-click``: the folder of everything prepared for this variant."""
        return f"{self.schema.name}/{self.name}"

    @property
    def project(self) -> str:
        """The Feast project of this variant (letters, digits and underscores only)."""
        return f"{self.schema.name}__{self.name}".replace("-", "__")

    @property
    def histories(self) -> tuple[History, ...]:
        """The histories this variant feeds; none where its feature set leaves them out."""
        return self.schema.histories if self.feature_set.history else ()

    @property
    def counts(self) -> tuple[CountKey, ...]:
        """The keys whose earlier impressions this variant counts; none where its feature set leaves them out."""
        return self.schema.counts if self.feature_set.counts else ()

    @property
    def windows(self) -> tuple[int, ...]:
        """Over how many days counts are taken beside those of all time; none where the feature set leaves them out."""
        return self.schema.windows if self.feature_set.counts and self.feature_set.windows else ()

    @property
    def carries_labels(self) -> tuple[str, ...]:
        """The inputs that are made of earlier labels."""
        return tuple(f"history '{h.name}'" for h in self.histories) + tuple(f"counts of '{c}'" for c in self.counts)

    @property
    def base_features(self) -> tuple[Feature, ...]:
        """The declared features this variant feeds: those of its set, less the columns its domain is made of."""
        names = self.feature_set.features
        chosen = [f for f in self.schema.features if not names or f.name in names]
        return tuple(f for f in chosen if f.column not in self.domain.columns)

    @property
    def count_features(self) -> tuple[Feature, ...]:
        """What is counted of each key: of all time, then over each window; see :func:`counted`."""
        return tuple(feature for key in self.counts for days in (None, *self.windows) for feature in counted(key, days))

    @property
    def request_features(self) -> tuple[Feature, ...]:
        """What is made of the time of the request: ``hour`` (0 to 23) and ``weekday`` (0: Monday), UTC."""
        names = self.schema.request if self.feature_set.request else ()
        return tuple(
            Feature(name=name, column=name, owner="request", type="int", description=REQUEST[name]) for name in names
        )

    @property
    def features(self) -> tuple[Feature, ...]:
        """Every input but the histories, in the order models see them."""
        return self.base_features + self.count_features + self.request_features


REQUEST: Mapping[RequestFeature, str] = {
    "hour": "hour of the day of the request, 0 to 23 (UTC)",
    "weekday": "day of the week of the request, 0 is Monday (UTC)",
}


def counted(key: CountKey, days: int | None = None) -> tuple[Feature, Feature]:
    """``user_count`` (impressions before) and ``user_rate`` (smoothed share of positives among them).

    With ``days``, ``user_count_7d`` and ``user_rate_7d``: of the seven days before the impression's own (UTC).
    """
    suffix, when = ("", "") if days is None else (f"_{days}d", f", of the {days} days before its day (UTC)")
    count, rate = f"{key}_count{suffix}", f"{key}_rate{suffix}"
    texts = (
        f"impressions of this key before the impression{when}",
        f"smoothed share of positives among the key's earlier impressions{when}",
    )
    return (
        Feature(name=count, column=count, owner=key, kind="numerical", type="int", description=texts[0]),
        Feature(name=rate, column=rate, owner=key, kind="numerical", type="float", description=texts[1]),
    )


def folders() -> list[Path]:
    """Where schemas are looked for, in order: ``$MULTIDOMAIN_SCHEMAS``, the project's local and its base folder."""
    root = project_root()
    first = [Path(p) for p in os.environ.get("MULTIDOMAIN_SCHEMAS", "").split(os.pathsep) if p]
    return [*first, root / "conf/local/datasets", root / "conf/base/datasets"]


def project_root() -> Path:
    """The Kedro project's folder: ``$MULTIDOMAIN_ROOT``, or the checkout this package is installed from."""
    return Path(os.environ.get("MULTIDOMAIN_ROOT") or Path(__file__).parents[2])


def names() -> list[str]:
    """Every data set that has a schema."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yml")})


def load(name: str) -> Schema:
    """Read the schema of the data set ``name``.

    Raises:
        SchemaError: no such file, or a mistake in it.
    """
    for folder in folders():
        path = folder / f"{name}.yml"
        if path.is_file():
            return parse(path)
    looked = ", ".join(str(folder) for folder in folders())
    raise SchemaError(
        f"No schema for data set '{name}': {name}.yml is in none of {looked}. There are: {', '.join(names())}."
    )


def parse(path: Path) -> Schema:
    """Read one schema file; see :func:`load`."""
    from .schema_reader import read

    return read(path)


Named = TypeVar("Named", Domain, Split, FeatureSet, Label)


def _choose(schema: Schema, what: str, choices: Sequence[Named], name: str | None) -> Named:
    if name is None:
        return choices[0]
    for choice in choices:
        if choice.name == name:
            return choice
    raise ConfigurationError(
        f"{what}={name} of data set '{schema.name}': {unknown_key(name, [c.name for c in choices])}"
    )
