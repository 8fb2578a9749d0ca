"""Object stores, by fsspec: which there are, how one is opened, and what the errors of its driver mean.

How a store is reached (endpoint, credentials) is fsspec's own configuration and the driver's: ``$AWS_…``,
``$FSSPEC_S3_…``, ``~/.config/fsspec/``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, unknown_key

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

AT_ONCE = 8  # objects that are copied at the same time
STORES = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")  # what lists all objects below a prefix, or fails
EXTRAS = {"s3": "s3", "s3a": "s3"}  # scheme -> the extra of this project that brings its driver
_ADDRESS = re.compile(r"([^/:]+)://([^/]*)(/.*)?")


def is_address(place: object) -> bool:
    """Whether something is an address in a store rather than a path."""
    return isinstance(place, str) and "://" in place and not place.startswith(("file://", "local://"))


def scheme_of(address: str) -> str:
    """``s3``"""
    return address.split("://", 1)[0]


def parsed(address: str) -> tuple[str, str, list[str]]:
    """Scheme, bucket and the parts below it.

    Raises:
        ConfigurationError: of a kind that no list of files can be had of.
    """
    found = _ADDRESS.fullmatch(address)
    scheme, bucket, rest = found.groups() if found else (scheme_of(address), "", None)
    if scheme not in STORES:
        raise ConfigurationError(f"{address}: {scheme}:// is no object store: {unknown_key(scheme, STORES)}")
    return scheme, bucket, [part for part in (rest or "").split("/") if part not in ("", ".")]


def opened(address: str, *, meant: str) -> tuple[AbstractFileSystem, str]:
    """The driver, and the address as it names it.

    Args:
        address: ``s3://bucket/prefix``.
        meant: what it is of, for the message.

    Raises:
        ConfigurationError: the driver is missing.
        Exception: whatever the driver says.
    """
    from fsspec.core import url_to_fs

    try:
        fs, top = url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(scheme_of(address))
        install = f"pip install 'multidomain[{extra}]'" if extra else str(error).rstrip(".")
        raise ConfigurationError(f"{meant}: the driver of {scheme_of(address)}:// is missing: {install}.") from error
    return fs, top.rstrip("/")


def refused(error: Exception, scheme: str) -> str | None:
    """What a store that lets nobody in said, and where credentials come from; None where the error is another."""
    first = first_line(error)
    if not (isinstance(error, PermissionError) or "credential" in f"{type(error).__name__} {first}".lower()):
        return None
    keys = "$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, $AWS_PROFILE, or $FSSPEC_S3_ANON=true for a public one"
    keys = keys if scheme in EXTRAS else "those of its fsspec driver"
    return f"{first}. Credentials are taken from the environment: {keys}."


def first_line(error: Exception) -> str:
    """Of what an error says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
