"""The best version by a metric, and what is left out of that choice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, TextClause, and_, func, or_, select, text

from ckptstore.catalog.queries import Reader, chunks, intact
from ckptstore.catalog.tables import DAMAGED, LIVE, MetricRow, VersionRow
from ckptstore.format.facts import Mode
from ckptstore.format.manifest import KINDS

SAME_VERSION = and_(
    VersionRow.store == MetricRow.store,
    VersionRow.path == MetricRow.path,
    VersionRow.version == MetricRow.version,
)


class Damaged(NamedTuple):
    """A version that is known to be damaged."""

    path: str
    version: int
    kind: str
    """``damaged`` where its manifest can't be read."""


class Best(NamedTuple):
    """The best version of some runs, by what decides between two."""

    value: float
    created_at: str
    path: str
    version: int


def best(
    reader: Reader,
    paths: Sequence[str],
    metric: str,
    mode: Mode,
    *,
    kind: str | None,
    without: Collection[str] = (),
) -> Best | None:
    """Return the best live version; ties go to the earlier one.

    Within a run the lower number is the earlier; between runs, ``created_at`` decides.

    Args:
        reader: Reads the store's rows.
        paths: The runs.
        metric: The metric's name.
        mode: ``min`` or ``max``.
        kind: Only these; None for all.
        without: Save ids of versions that are left out.
    """
    reader.refuse_newer(paths)
    found = [
        best
        for some in chunks(paths)
        if (best := _best_of(reader, some, metric, mode, kind=kind, without=without)) is not None
    ]
    sign = 1 if mode == "min" else -1
    return min(found, key=lambda best: (sign * best.value, *best[1:]), default=None)


def metric_names(reader: Reader, paths: Sequence[str], kind: str | None) -> list[str]:
    """Return the names of all metrics of live versions of that kind, sorted."""
    names: set[str] = set()
    for some in chunks(paths):
        names.update(
            reader.connection.scalars(
                select(MetricRow.name)
                .join(VersionRow, SAME_VERSION)
                .where(*_measured(reader, some, kind), *intact())
                .distinct()
            )
        )
    return sorted(names)


def damaged(reader: Reader, paths: Sequence[str], also: Collection[str] = ()) -> list[Damaged]:
    """Return the live versions that are known to be damaged, ascending by path and number.

    Args:
        reader: Reads the store's rows.
        paths: The runs.
        also: Save ids of versions that count as damaged too.
    """
    known: TextClause | ColumnElement[bool] = text(DAMAGED)
    if also:
        known = or_(known, VersionRow.save_id.in_(also))
    return [
        Damaged(*row)
        for some in chunks(paths)
        for row in reader.connection.execute(
            select(
                VersionRow.path,
                VersionRow.version,
                VersionRow.kind,
            )
            .where(
                VersionRow.store == reader.store,
                VersionRow.path.in_(some),
                text(LIVE),
                known,
            )
            .order_by(VersionRow.path, VersionRow.version)
        )
    ]


def _best_of(
    reader: Reader,
    paths: Sequence[str],
    metric: str,
    mode: Mode,
    *,
    kind: str | None,
    without: Collection[str],
) -> Best | None:
    usable = (*_measured(reader, paths, kind), *intact(without), MetricRow.name == metric)
    # Null, which is NaN, is neither the least nor the greatest, and equals nothing.
    extreme = func.min(MetricRow.value) if mode == "min" else func.max(MetricRow.value)
    value = reader.connection.scalar(select(extreme).join(VersionRow, SAME_VERSION).where(*usable))
    if value is None:
        return None
    first = (
        select(MetricRow.path, func.min(MetricRow.version).label("version"))
        .join(VersionRow, SAME_VERSION)
        .where(*usable, MetricRow.value == value)
        .group_by(MetricRow.path)
        .subquery()
    )
    row = reader.connection.execute(
        select(VersionRow.created_at, VersionRow.path, VersionRow.version)
        .join(
            first,
            and_(VersionRow.path == first.c.path, VersionRow.version == first.c.version),
        )
        .where(VersionRow.store == reader.store)
        .order_by(VersionRow.created_at, VersionRow.path)
        .limit(1)
    ).one()
    return Best(value, row.created_at or "", row.path, row.version)


def _measured(reader: Reader, paths: Sequence[str], kind: str | None) -> list[ColumnElement[bool]]:
    kinds = KINDS if kind is None else (kind,)
    return [
        MetricRow.store == reader.store,
        MetricRow.path.in_(paths),
        VersionRow.kind.in_(kinds),
    ]
