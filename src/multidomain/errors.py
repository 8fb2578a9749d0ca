"""Errors that speak to the user: one message that says what, where, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import click


class UserError(click.ClickException):
    """Something the user can put right. The command line prints its message without a traceback."""

    def __str__(self) -> str:
        return self.message


class SchemaError(UserError):
    """A data set's YAML file says something that cannot be."""


class ConfigurationError(UserError):
    """A parameter or a configuration file says something that cannot be."""


class DataError(UserError):
    """The data itself breaks a rule of its schema."""


def unknown_key(key: object, allowed: Iterable[object]) -> str:
    """``'colum' is not known; did you mean 'column'? Allowed: column, cross.``"""
    names = sorted(str(name) for name in allowed)
    near = difflib.get_close_matches(str(key), names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"'{key}' is not known{hint} Allowed: {', '.join(names)}."
