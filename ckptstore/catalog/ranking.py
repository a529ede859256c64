"""The best version by a metric, and what is left out of that choice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Row,
    ScalarSelect,
    Select,
    TextClause,
    and_,
    exists,
    select,
    text,
)

from ckptstore.catalog.queries import Reader, chunks, intact
from ckptstore.catalog.tables import DAMAGED, MetricRow, RunRow, VersionRow
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
    # Each has an index of its own. That they are live is no condition: SQLite might take it for a
    # reason to read all that are.
    conditions: list[TextClause | ColumnElement[bool]] = [text(DAMAGED)]
    conditions += [VersionRow.save_id.in_(also)] if also else []
    found = {
        Damaged(path, version, kind)
        for some in chunks(paths)
        for condition in conditions
        for path, version, kind, retired_at in reader.connection.execute(
            select(
                VersionRow.path, VersionRow.version, VersionRow.kind, VersionRow.retired_at
            ).where(VersionRow.store == reader.store, VersionRow.path.in_(some), condition)
        )
        if retired_at is None
    }
    return sorted(found)


def _best_of(
    reader: Reader,
    paths: Sequence[str],
    metric: str,
    mode: Mode,
    *,
    kind: str | None,
    without: Collection[str],
) -> Best | None:
    # Null, which is NaN, is neither the least nor the greatest, and equals nothing.
    usable = (
        MetricRow.store == RunRow.store,
        MetricRow.path == RunRow.path,
        MetricRow.name == metric,
        MetricRow.value.is_not(None),
        exists()
        .where(SAME_VERSION, VersionRow.kind.in_(_kinds(kind)), *intact(without))
        .correlate(MetricRow),
    )
    # Run by run, as the index has their values: each costs a look at one end of it.
    order = MetricRow.value.asc() if mode == "min" else MetricRow.value.desc()
    extreme = _of_run(select(MetricRow.value).where(*usable).order_by(order))
    values = {path: value for path, value in _by_run(reader, paths, extreme) if value is not None}
    if not values:
        return None
    value = min(values.values()) if mode == "min" else max(values.values())
    earliest = _of_run(
        select(MetricRow.version)
        .where(*usable, MetricRow.value == value)
        .order_by(MetricRow.version)
    )
    created = _of_run(
        select(VersionRow.created_at).where(
            VersionRow.store == RunRow.store,
            VersionRow.path == RunRow.path,
            VersionRow.version == earliest,
        )
    )
    tied = [path for path in values if values[path] == value]
    return min(
        Best(value, created_at or "", path, version)
        for path, created_at, version in _by_run(reader, tied, created, earliest)
    )


def _of_run(wanted: Select[Any]) -> ScalarSelect[Any]:
    return wanted.limit(1).correlate(RunRow).scalar_subquery()


def _by_run(
    reader: Reader, paths: Sequence[str], *wanted: ScalarSelect[Any]
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return each run's path and what these queries find in it."""
    return reader.connection.execute(
        select(RunRow.path, *wanted).where(RunRow.store == reader.store, RunRow.path.in_(paths))
    ).all()


def _kinds(kind: str | None) -> Sequence[str]:
    return KINDS if kind is None else (kind,)


def _measured(reader: Reader, paths: Sequence[str], kind: str | None) -> list[ColumnElement[bool]]:
    return [
        MetricRow.store == reader.store,
        MetricRow.path.in_(paths),
        VersionRow.kind.in_(_kinds(kind)),
    ]
