"""Reads a schema file: plain YAML into the objects of :mod:`multidomain.schema`.

Every complaint names the file, the key, and what is allowed there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from .errors import SchemaError, unknown_key
from .schema import (
    WEB,
    CountKey,
    Domain,
    Feature,
    FeatureSet,
    History,
    Kind,
    Label,
    Minimum,
    Owner,
    RawFile,
    RequestFeature,
    Roles,
    Schema,
    Simulation,
    Split,
    SplitKind,
    Type,
    Validation,
)
from .schema_checks import check
from .simulation.presets import PRESETS

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_CHECKSUM = re.compile(r"md5:[0-9a-fA-F]{32}|sha256:[0-9a-fA-F]{64}")


def read(path: Path) -> Schema:
    """The schema in one file.

    Raises:
        SchemaError: it is not valid YAML, or says something that cannot be.
    """
    text = path.read_text(encoding="utf-8")
    raw = plain_yaml(text, path)
    reader = _Reader(path)
    drawn = isinstance(raw, Mapping) and (raw.get("source") == "simulated" or "simulation" in raw)
    origin = "simulation" if drawn else "files"
    reader.section("", raw, required=("source", origin, "roles", "labels", "domains", "features"), allowed=_SECTIONS)
    schema = reader.schema(raw)
    check(schema, reader.fail)
    return dataclasses.replace(schema, digest=hashlib.sha256(text.encode()).hexdigest()[:16])


def plain_yaml(text: str, path: Path) -> Any:
    """The content of a YAML file in which no key is given twice.

    Raises:
        SchemaError: it is not valid YAML.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise SchemaError(f"{path} is not valid YAML: {error}") from error


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML would keep the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_SECTIONS = [
    "description",
    "homepage",
    "licence",
    "citation",
    "source",
    "files",
    "simulation",
    "roles",
    "labels",
    "domains",
    "splits",
    "features",
    "history",
    "counts",
    "windows",
    "request",
    "feature_sets",
    "minimum",
    "validation",
]


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
            odd = value == "" or (inner in ("float", "int") and isinstance(value, bool))
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
            files=self.files(raw),
            simulation=self.simulation(raw),
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
            windows=self.value("windows", "tuple[int, ...]", raw.get("windows") or ()),
            request=tuple(
                self.value("request", "RequestFeature", name)
                for name in self.value("request", "tuple[str, ...]", raw.get("request") or ())
            ),
            feature_sets=tuple(
                self.build(FeatureSet, f"feature_sets.{n}", s or {}, name=n)
                for n, s in self.named("feature_sets", raw.get("feature_sets") or _FEATURE_SETS).items()
            ),
            minimums=tuple(
                self.build(Minimum, f"minimum.{owner}", least, owner=owner)
                for owner, least in self.section("minimum", raw.get("minimum") or {}, allowed=("user", "item")).items()
            ),
            validation=self.build(Validation, "validation", raw.get("validation") or {}),
            **{key: str(raw.get(key) or "") for key in ("description", "homepage", "licence", "citation")},
        )

    def files(self, raw: Mapping[str, Any]) -> dict[str, RawFile]:
        """The raw files; a simulated log has none."""
        if "simulation" in raw and not raw.get("files"):
            return {}
        return {n: self.file(f"files.{n}", f) for n, f in self.named("files", raw["files"]).items()}

    def simulation(self, raw: Mapping[str, Any]) -> Simulation | None:
        if "simulation" not in raw:
            return None
        if raw["source"] != "simulated":
            raise self.fail("simulation", f"this section is of source simulated, not of {raw['source']}.")
        if raw.get("files"):
            raise self.fail("files", "a simulated log reads no files; leave this section out.")
        simulation = self.build(Simulation, "simulation", raw["simulation"])
        if simulation.preset not in PRESETS:
            raise self.fail("simulation.preset", unknown_key(simulation.preset, PRESETS))
        if simulation.domains is not None and PRESETS[simulation.preset].shares:
            raise self.fail(
                "simulation.domains", f"preset {simulation.preset} has {PRESETS[simulation.preset].domains} domains."
            )
        if simulation.seed < 0:
            raise self.fail("simulation.seed", f"expected at least 0, got {simulation.seed}.")
        return simulation

    def file(self, where: str, raw: Any) -> RawFile:
        file = self.build(RawFile, where, {"path": raw} if isinstance(raw, str) else raw)
        if file.requirement and "://" in file.requirement and "@" not in file.requirement:
            raise self.fail(
                f"{where}.fetch",
                f"expected a pip requirement or an address that begins with {WEB[0]}. That of an object in a store "
                "(s3://bucket/name) is its 'path'.",
            )
        if file.path.startswith((*WEB, "file://")):
            raise self.fail(
                f"{where}.path",
                "expected a path, or the address of an object in a store (s3://bucket/name). An address on the web is "
                "given as 'fetch', a file on this machine by its path alone.",
            )
        if "://" in file.path and file.fetch:
            raise self.fail(f"{where}.fetch", "it has its 'path' in a store already: leave one of both out.")
        if file.checksum is not None and not _CHECKSUM.fullmatch(file.checksum):
            raise self.fail(f"{where}.checksum", f"expected md5: or sha256: and its digits, got {file.checksum!r}.")
        if file.checksum is not None and not file.online:
            raise self.fail(f"{where}.checksum", "it is of what an address in 'fetch' gives; a file has its 'sha256'.")
        return file

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
        if feature.hash is not None and (feature.kind == "numerical" or feature.value_type == "float"):
            raise self.fail(f"features.{name}.hash", "only texts and whole numbers that are categories are hashed.")
        if feature.hash is not None and feature.minimum_count > 1:
            raise self.fail(f"features.{name}.hash", "a hashed feature counts no values: leave out minimum_count.")
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


_DOMAIN = ("column", "cross", "bins", "names", "top", "minimum", "remainder")
_FEATURE_SETS: Mapping[str, Any] = {"full": {}, "profile": {"history": False, "counts": False}}
_LITERALS: Mapping[str, tuple[str, ...]] = {
    "Owner": get_args(Owner),
    "Kind": get_args(Kind),
    "Type | None": get_args(Type),
    "SplitKind": get_args(SplitKind),
    "CountKey": get_args(CountKey),
    "RequestFeature": get_args(RequestFeature),
    "Literal['bucket', 'value']": ("bucket", "value"),
    'Literal["bucket", "value"]': ("bucket", "value"),
}
_MANY = {"str": "texts", "int": "whole numbers", "float": "numbers", "str | float": "texts or numbers"}
_BOUNDS: Mapping[str, tuple[int, int | None]] = {
    **dict.fromkeys(("minimum", "minimum_count", "top", "length", "buckets"), (1, None)),
    "hash": (2, 2**31 - 3),
    "positives": (0, None),
    **dict.fromkeys(("rows", "users", "items", "days", "domains"), (1, None)),
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
