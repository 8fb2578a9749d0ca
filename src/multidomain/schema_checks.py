"""What the sections of a schema must agree on."""

from __future__ import annotations

from collections.abc import Callable

from .errors import SchemaError, unknown_key
from .schema import RESERVED, Schema, counted

Fail = Callable[[str, str], SchemaError]
LONGEST = 3_650  # days of a window


def check(schema: Schema, fail: Fail) -> None:
    """What no section can see alone.

    Args:
        schema: as read, section by section.
        fail: makes the error from the key and what is wrong with it.

    Raises:
        SchemaError: sections that do not go together.
    """
    roles, declared = schema.roles, {f.name for f in schema.features}
    for name in sorted(declared & set(RESERVED)):
        hint = f"call it something else and name its column: my_{name}: {{column: {name}}}."
        raise fail(f"features.{name}", f"the product keeps this name for itself; {hint}")
    made = {feature.name for key in schema.counts for days in (None, *schema.windows) for feature in counted(key, days)}
    for section, names in (("counts", made), ("request", set(schema.request))):
        for name in sorted(declared & names):
            raise fail(
                f"features.{name}",
                f"'{section}' makes a feature of this name; call the column's feature something else.",
            )
    _check_truths(schema, fail)
    for feature_set in schema.feature_sets:
        for name in feature_set.features:
            if name not in declared:
                raise fail(f"feature_sets.{feature_set.name}.features", unknown_key(name, declared))
    for owner, role in (("user", roles.user), ("item", roles.item)):
        if role is None and schema.owned_by(owner):  # type: ignore[arg-type]
            named = ", ".join(f.name for f in schema.owned_by(owner))  # type: ignore[arg-type]
            raise fail("features", f"{named} belong to the {owner}, but roles.{owner} names no column.")
    _check_splits(schema, fail)
    if roles.timestamp is None and (schema.histories or schema.counts):
        raise fail(
            "history" if schema.histories else "counts", "earlier labels need roles.timestamp; this log has no time."
        )
    _check_windows(schema, fail)
    for minimum in schema.minimums:
        if (roles.user if minimum.owner == "user" else roles.item) is None:
            raise fail(f"minimum.{minimum.owner}", f"this needs roles.{minimum.owner}.")
    needs = {"user": roles.user, "item": roles.item, "user_domain": roles.user, "item_domain": roles.item}
    for key in schema.counts:
        if key in needs and needs[key] is None:
            raise fail("counts", f"counts of '{key}' need roles.{key.split('_')[0]}.")
    items = {f.name for f in schema.owned_by("item") if f.kind == "categorical"}
    for history in schema.histories:
        if roles.user is None or roles.item is None:
            raise fail(f"history.{history.name}", "a history needs roles.user and roles.item.")
        for source, candidate in history.fields:
            for name in (source, candidate):
                if name not in items:
                    raise fail(
                        f"history.{history.name}.fields", "categorical item features only: " + unknown_key(name, items)
                    )


def _check_windows(schema: Schema, fail: Fail) -> None:
    if schema.windows and not schema.counts:
        raise fail("windows", "these are the days of 'counts', which the schema does not have.")
    if list(schema.windows) != sorted(set(schema.windows)) or any(not 1 <= days <= LONGEST for days in schema.windows):
        raise fail("windows", f"expected ascending numbers of days, 1 to {LONGEST}, got {list(schema.windows)}.")
    if len(set(schema.request)) != len(schema.request):
        raise fail("request", f"a name is given twice: {', '.join(schema.request)}.")
    if schema.request and schema.roles.timestamp is None:
        raise fail("request", "what is made of the request's time needs roles.timestamp; this log has no time.")


def _check_splits(schema: Schema, fail: Fail) -> None:
    roles = schema.roles
    for split in schema.splits:
        where = f"splits.{split.name}"
        if split.kind in ("user_time", "time") and roles.timestamp is None:
            raise fail(where, "a split by time needs roles.timestamp; use random, order or official.")
        if split.kind == "user_time" and roles.user is None:
            raise fail(where, "user_time needs roles.user.")
        if split.kind == "order" and roles.impression is not None:
            raise fail(
                where, f"impressions are numbered by '{roles.impression}', not by their place in the files; use random."
            )


def _check_truths(schema: Schema, fail: Fail) -> None:
    """The columns that hold a label's true probability are no input."""
    used = {f.column: f"features.{f.name}" for f in schema.features}
    used |= {column: f"domains.{d.name}" for d in schema.domains for column in d.columns}
    for label in schema.labels:
        if label.blind is not None and label.probability is None:
            raise fail(f"labels.{label.name}.blind", "give 'probability' too: blind is compared with it.")
        for column in label.truths.values():
            if column in used:
                raise fail(used[column], f"column '{column}' holds the truth of label {label.name}: never an input.")
