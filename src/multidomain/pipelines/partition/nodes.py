"""The domain of every impression, its split, and the table of domains (the STAR paper's Table 1)."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...draw import digest
from ...errors import DataError
from ...schema import REMAINDER, SPLITS, UNKNOWN_DOMAIN, WEIGHT, Domain, Split, Variant
from ...window import Window

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

logger = logging.getLogger(__name__)


def assign(
    variant: Variant,
    impressions: ir.Table,
    users: ir.Table,
    items: ir.Table,
    window: Mapping[str, Any] | None = None,
) -> ir.Table:
    """One row per impression of the chosen label: ids, time, domain, label and split.

    Columns: ``impression_id, user, item, group`` (text), ``timestamp`` (UTC), ``domain`` (name), ``domain_id``,
    ``label``, ``split``; of a simulated log also ``true_probability`` and ``blind_probability``; where the schema names
    weights ``sample_weight``. Domains below the minimum of training rows, or beyond the top k, join the remainder, or
    are left out. Rows are sorted by split, domain and impression, so that who asks the file for one split or domain
    reads its row groups alone.

    With days in ``window`` the rows of those days are split; the ones before, which features and vocabularies are made
    of beside them, count as training rows.
    """
    import ibis

    rows = _with_domain_columns(variant, impressions, users, items)
    label, roles = variant.label, variant.schema.roles
    carried = {**label.truths, **({} if roles.weight is None else {WEIGHT: roles.weight})}
    if label.where is not None:
        rows = rows.filter(rows[label.where] == 1)
    rows = rows.filter(rows[label.column].notnull())
    rows = rows.mutate(raw_domain=_domain_name(variant.domain, rows))
    rows = rows.select(
        impression_id=rows.impression_id,
        user=_text(rows, roles.user),
        item=_text(rows, roles.item),
        group=_text(rows, roles.group),
        timestamp=rows[roles.timestamp] if roles.timestamp else ibis.literal("2000-01-01").cast("timestamp"),
        raw_domain=rows.raw_domain,
        label=rows[label.column].cast("int8"),
        official=_text(rows, variant.split.column),
        **{name: rows[column] for name, column in carried.items()},
    )
    rows = _held(_with_split(variant.split, rows, Window.read(window)).drop("official"))
    names = _kept_domains(variant.domain, rows)
    if not variant.domain.remainder:
        rows = rows.filter(rows.raw_domain.isin(names))
    _check_splits(variant, rows)
    known = ibis.memtable({"known_domain": names, "known_id": range(len(names))}, schema=_KNOWN)
    rows = rows.left_join(known, rows.raw_domain == known.known_domain)  # there may be thousands of domains
    columns = ("impression_id", "user", "item", "group", "timestamp", "domain", "domain_id", "label", "split")
    return (
        rows.mutate(
            domain=rows.known_domain.fill_null(REMAINDER), domain_id=rows.known_id.fill_null(len(names)).cast("int32")
        )
        .select(*columns, *carried)
        .order_by("split", "domain_id", "impression_id")
    )


_KNOWN = {"known_domain": "string", "known_id": "int32"}


def describe_domains(partitioned: ir.Table) -> pa.Table:
    """One row per domain: rows, share, positive rate, users, items, rows per split and positives among training rows.

    What is odd about their sizes is said in a warning; see :func:`oddities`.
    """
    rows = partitioned
    table = rows.group_by("domain_id", "domain").aggregate(
        rows=rows.count(),
        positive_rate=rows.label.mean(),
        users=rows.user.nunique(),
        items=rows.item.nunique(),
        **{f"{split}_rows": (rows.split == split).sum() for split in SPLITS},
        train_positives=((rows.split == "train") & (rows.label == 1)).sum(),
    )
    described = table.mutate(share=table.rows / table.rows.sum()).order_by("domain_id").to_pyarrow()
    if odd := oddities(described):
        logger.warning("domains: %s", "; ".join(odd))
    return described


def _with_domain_columns(variant: Variant, impressions: ir.Table, users: ir.Table, items: ir.Table) -> ir.Table:
    """The impressions, with the domain's columns fetched from the users' or items' table where they live."""
    roles = variant.schema.roles
    for column in variant.domain.columns:
        if column in impressions.columns:
            continue
        for table, key in ((users, roles.user), (items, roles.item)):
            if key is not None and column in table.columns:
                impressions = impressions.left_join(table.select(key, column), key)
                impressions = impressions.drop(f"{key}_right") if f"{key}_right" in impressions.columns else impressions
                break
        else:
            there = sorted({*impressions.columns, *users.columns, *items.columns})
            raise DataError(
                f"{variant.schema.path}: domains.{variant.domain.name} needs the column '{column}', "
                f"which neither the impressions nor the users and items have. There are: {', '.join(there)}."
            )
    return impressions


def _held(rows: ir.Table) -> ir.Table:
    """Computed once, for the several questions asked of it."""
    return rows.get_backend().create_table("multidomain_partition", rows, temp=True, overwrite=True)


def _text(rows: ir.Table, column: str | None) -> ir.StringValue:
    import ibis

    return rows[column].cast("string") if column else ibis.null("string")


def _domain_name(domain: Domain, rows: ir.Table) -> ir.StringValue:
    """The domain's name as text: the value, the crossed values, or the bin."""
    import ibis

    if domain.bins:
        value, edges = rows[domain.columns[0]], domain.bins
        names = domain.names or _bin_names(edges)
        cases = [(value < edge, name) for edge, name in zip(edges, names, strict=False)]
        return ibis.cases((value.isnull(), UNKNOWN_DOMAIN), *cases, else_=names[-1])
    parts = [rows[column].cast("string").fill_null(UNKNOWN_DOMAIN) for column in domain.columns]
    return parts[0] if len(parts) == 1 else ibis.literal("_").join(parts)


def _bin_names(edges: tuple[float, ...]) -> tuple[str, ...]:
    text = [re.sub(r"\.0$", "", str(edge)) for edge in edges]
    between = [f"{low}_to_{high}" for low, high in itertools.pairwise(text)]
    return (f"below_{text[0]}", *between, f"from_{text[-1]}")


def _with_split(split: Split, rows: ir.Table, window: Window) -> ir.Table:
    """The rows, with their split; those before the window's days are training rows."""
    import ibis

    examples = window.examples(rows)
    examples = examples.mutate(split=_split(split, examples))
    if window.first is None:
        return examples
    return examples.union(window.earlier(rows).mutate(split=ibis.literal(SPLITS[0])))


def _split(split: Split, rows: ir.Table) -> ir.StringValue:
    """``train``, ``validation`` or ``test`` for every row; see the kinds of splits in ``schema.Split``."""
    import ibis

    cuts = (split.train, split.train + split.validation)
    if split.kind == "official":
        return rows.official
    if split.kind == "random":
        drawn = digest(split.seed, rows.impression_id).left(8)
        return _cut(drawn, *(f"{int(share * 16**8):08x}" for share in cuts))  # equal on every engine
    if split.kind != "user_time":
        place = rows.timestamp if split.kind == "time" else rows.impression_id
        return _cut_all(rows, place, *cuts)
    # Rank counts the rows strictly earlier, so a cut never separates what happened in the same instant.
    earlier = ibis.rank().over(ibis.window(order_by=rows.timestamp, group_by=rows.user))
    return _cut(earlier / rows.count().over(ibis.window(group_by=rows.user)), *cuts)


def _cut_all(rows: ir.Table, place: ir.Value, first: float, second: float) -> ir.StringValue:
    """All rows cut at two of their places, found by sorting these alone; equal places are never separated.

    The rows with fewer than ``share · N`` rows strictly before them are those up to the place of number
    ``⌈share · N⌉``. The places are asked for before they are used: within one query both would share a sorted table,
    and an engine keeps no order between parts of a query.
    """
    import ibis

    sorted_places = rows.select(place=place).order_by("place")
    count = int(rows.count().execute())
    if count == 0:
        return ibis.literal("train")  # of no row
    numbers = [max(math.ceil(share * count), 1) - 1 for share in (first, second)]
    found = [sorted_places.limit(1, offset=number).to_pyarrow()["place"].to_pylist() for number in numbers]
    train, validation = (ibis.literal(value, type=place.type()) for [value] in found)
    return ibis.cases((place <= train, "train"), (place <= validation, "validation"), else_="test")


def _cut(place: ir.Value, first: float | str, second: float | str) -> ir.StringValue:
    import ibis

    return ibis.cases((place < first, "train"), (place < second, "validation"), else_="test")


def _kept_domains(domain: Domain, rows: ir.Table) -> list[str]:
    """Domains in order of their names, less those that join the remainder or are left out (said in a warning)."""
    train = rows.filter(rows.split == "train")
    counts = train.group_by("raw_domain").aggregate(n=train.count()).to_pandas()
    present = set(rows.select("raw_domain").distinct().to_pandas().raw_domain)
    ranked = counts.sort_values(["n", "raw_domain"], ascending=[False, True])
    large = ranked[ranked.n >= domain.minimum]
    kept = set(large.raw_domain[: domain.top] if domain.top else large.raw_domain)
    small = sorted(present - kept)
    if small:
        sizes = dict(zip(counts.raw_domain, counts.n, strict=True))
        shown = ", ".join(f"{name} ({sizes.get(name, 0)})" for name in small[:10])
        logger.warning(
            "%d domain(s) of '%s' %s (fewer than %d training rows%s): %s%s",
            len(small),
            domain.name,
            f"join the domain '{REMAINDER}'" if domain.remainder else "are left out",
            domain.minimum,
            f", or not among the top {domain.top}" if domain.top else "",
            shown,
            " …" if len(small) > 10 else "",
        )
    names = list(domain.names or _bin_names(domain.bins)) if domain.bins else sorted(kept, key=_natural)
    return [name for name in names if name in kept] + sorted(kept - set(names))


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sorts 2 before 10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _check_splits(variant: Variant, rows: ir.Table) -> None:
    """Every split must be there, and hold both classes."""
    counts = rows.group_by("split").aggregate(n=rows.count(), positives=rows.label.sum()).to_pandas().set_index("split")
    foreign = sorted(set(counts.index.fillna("null")) - set(SPLITS))
    where = f"data set '{variant.schema.name}', split '{variant.split.name}', label '{variant.label.name}'"
    if foreign:
        raise DataError(
            f"{where}: column '{variant.split.column}' holds {', '.join(foreign)}; allowed: {', '.join(SPLITS)}."
        )
    for split in SPLITS:
        n, positives = (int(counts.n.get(split, 0)), int(counts.positives.get(split, 0)))
        if n == 0:
            raise DataError(
                f"{where}: no {split} rows among {int(counts.n.sum())}. Give it a larger share, or more data."
            )
        if positives in (0, n):
            raise DataError(
                f"{where}: all {n} {split} rows have label {int(positives > 0)}; a model needs both classes "
                "there to be trained and judged. Choose another split (random, or other shares), or check the column."
            )


# Above this share of the training rows what all domains share is mostly that domain's, as where one of KuaiRand's tabs
# outweighs the others; the largest of the 19 domains in STAR's Table 1 has 29 %.
LARGEST_SHARE = 0.6
# At a click rate of 3 % so many rows hold 30 clicks: too few to know the rate itself to better than a third.
FEWEST_ROWS = 1_000
SHOWN_DOMAINS = 10  # of each kind


def oddities(domain_table: pa.Table) -> list[str]:
    """What may surprise in the results of a domain, in words with numbers: it is huge, small or without positives.

    Args:
        domain_table: ``domain``, ``train_rows`` and ``train_positives``, one row per domain.
    """
    columns = (domain_table.column(name).to_pylist() for name in ("domain", "train_rows", "train_positives"))
    domains = sorted(zip(*columns, strict=True), key=lambda domain: domain[1])
    total = sum(rows for _, rows, _ in domains)
    said = [
        f"{name} holds {rows / total:.1%} of the {total:,} training rows, more than {LARGEST_SHARE:.0%}"
        for name, rows, _ in domains
        if rows > LARGEST_SHARE * total and len(domains) > 1
    ]
    small = [f"{name} ({rows:,})" for name, rows, _ in domains if rows < FEWEST_ROWS]
    never = [f"{name} (0 of {rows:,})" for name, rows, positives in domains if rows and not positives]
    for which, words in (
        (small, f"have fewer than {FEWEST_ROWS:,} training rows"),
        (never, "have no positive training row"),
    ):
        if which:
            more = " …" if len(which) > SHOWN_DOMAINS else ""
            said.append(f"{len(which):,} of {len(domains):,} {words}: {', '.join(which[:SHOWN_DOMAINS])}{more}")
    return said
