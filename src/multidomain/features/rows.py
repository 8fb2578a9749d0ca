"""What a request asks of an online store, and the bytes under which the stores keep an entity.

Feast's ``online_read`` takes one view and a message for each entity. The stores of :mod:`multidomain.features.online`
and :mod:`multidomain.features.online_redis` have ``read_rows`` beside it, which takes all that a request asks for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.Value_pb2 import Value

SHORT = 64  # bytes of a value that is remembered
VERSION = 3  # of Feast's serialization of keys, which feature_store.yaml names


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Features of some entities of one kind.

    Attributes:
        names: join keys, which are texts.
        keys: of each entity their values, in the order of ``names``; no entity twice.
        wanted: views with these join keys, and features of each.
    """

    names: tuple[str, ...]
    keys: Sequence[tuple[str, ...]]
    wanted: tuple[tuple[FeatureView, tuple[str, ...]], ...]

    @property
    def width(self) -> int:
        """How many features that is."""
        return sum(len(columns) for _, columns in self.wanted)


def entity_bytes(names: Sequence[str], keys: Sequence[Sequence[str]]) -> list[bytes]:
    """What ``feast.infra.key_encoding_utils.serialize_entity_key`` makes of these entities in its version 3.

    That function takes a message for each and is ten times as slow.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    head = b"".join([pack("<I", len(names)), *(_text(names[i]) for i in order)])
    return [head + b"".join([_text(key[i]) for i in order]) for key in keys]


def held(cell: bytes) -> Any:
    """What a serialized value of Feast's holds: None, a text, a number, or a list of them, not to be written to.

    Short ones are remembered: most values of a request, such as those of items, have been read before, and to take one
    apart lasts longer than to find it.
    """
    return _remembered(cell) if len(cell) <= SHORT else plain(_parsed(cell))


def plain(value: Value | None) -> Any:
    """The same of a value that is parsed."""
    kind = None if value is None else value.WhichOneof("val")
    if kind is None:
        return None
    found = getattr(value, kind)
    return list(found.val) if kind.endswith("_list_val") else found


def _parsed(cell: bytes) -> Value:
    from feast.protos.feast.types.Value_pb2 import Value

    value: Value = Value.FromString(cell)
    return value


@functools.lru_cache(maxsize=50_000)
def _remembered(cell: bytes) -> Any:
    return plain(_parsed(cell))


def _text(value: str) -> bytes:
    encoded = value.encode("utf8")
    return pack("<II", 2, len(encoded)) + encoded  # 2: Feast's ValueType.STRING
