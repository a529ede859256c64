"""What retention decides on: a run's live versions, without their heads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, case, select, text
from sqlalchemy.orm import aliased

from ckptstore.catalog.tables import LIVE, MetricRow, TagRow, VersionRow
from ckptstore.format.manifest import KINDS, decode_head

# What the head of a version says that lacks a part. Others may say it too, in their config.
LEFT_OUT = '"left_out":'
AT_ONCE = 500
"""So many versions are named in one query; SQLite takes no more than 999 on older systems."""


@dataclass(frozen=True)
class LiveVersion:
    """A version that is not retired and whose manifest can be read."""

    version: int
    kind: str
    """``checkpoint`` or ``package``."""
    save_id: str
    epoch: int | None
    created_at: datetime
    metrics: Mapping[str, float]
    """Later ones too, in place of the manifest's; NaN where that was recorded."""
    tags: tuple[str, ...]
    """The tags that point at it, sorted."""
    parent: tuple[str, int] | None
    """Path and number of the version it comes from."""
    intact: bool
    """Whether nothing is known to be wrong with its data."""
    complete: bool = True
    """Whether no part was left out of it, as a save on a signal does when time is short."""


def live(
    connection: Connection, store: str, path: str, known_damage: Collection[str]
) -> list[LiveVersion]:
    """Return a run's live versions, ascending, in three queries.

    A head is read only where it seems to say that a part was left out.

    Args:
        connection: A transaction.
        store: The store's key.
        path: The run's path.
        known_damage: Save ids that this process found damaged.
    """
    chosen = (
        VersionRow.store == store,
        VersionRow.path == path,
        text(LIVE),
        VersionRow.kind.in_(KINDS),
    )
    rows = connection.execute(
        select(
            VersionRow.version,
            VersionRow.kind,
            VersionRow.save_id,
            VersionRow.epoch,
            VersionRow.created_at,
            VersionRow.parent_path,
            VersionRow.parent_version,
            VersionRow.damage_found,
            case((VersionRow.head.contains(LEFT_OUT, autoescape=True), VersionRow.head)).label(
                "lean"
            ),
        )
        .where(*chosen)
        .order_by(VersionRow.version)
    ).all()
    metrics: dict[int, dict[str, float]] = {}
    values = connection.execute(
        select(MetricRow.version, MetricRow.name, MetricRow.value)
        .join(
            VersionRow,
            and_(
                VersionRow.store == MetricRow.store,
                VersionRow.path == MetricRow.path,
                VersionRow.version == MetricRow.version,
            ),
        )
        .where(*chosen)
        .order_by(MetricRow.version, MetricRow.name)
    )
    for version, name, value in values:
        metrics.setdefault(version, {})[name] = math.nan if value is None else value
    tags: dict[int, list[str]] = {}
    for version, tag in connection.execute(
        select(TagRow.version, TagRow.tag)
        .where(TagRow.store == store, TagRow.path == path)
        .order_by(TagRow.tag)
    ):
        tags.setdefault(version, []).append(tag)
    return [
        LiveVersion(
            row.version,
            row.kind,
            row.save_id,
            row.epoch,
            datetime.fromisoformat(row.created_at),
            metrics.get(row.version, {}),
            tuple(sorted(tags.get(row.version, ()))),
            None if row.parent_path is None else (row.parent_path, row.parent_version),
            intact=row.damage_found is None and row.save_id not in known_damage,
            complete=row.lean is None
            or not decode_head(row.lean.encode(), f"{path}@{row.version}").left_out,
        )
        for row in rows
    ]


@dataclass(frozen=True)
class SaveState:
    """What became of a save."""

    version: int
    is_live: bool
    """Whether it is not retired."""


def save_state(connection: Connection, store: str, path: str, save_id: str) -> SaveState | None:
    """Return which version of a run a save became, None if none that is indexed."""
    row = connection.execute(
        select(VersionRow.version, VersionRow.retired_at)
        .where(VersionRow.store == store, VersionRow.path == path, VersionRow.save_id == save_id)
        .order_by(VersionRow.version)
    ).first()
    return None if row is None else SaveState(row.version, row.retired_at is None)


@dataclass(frozen=True)
class Descent:
    """What a version comes from, and what it comes after."""

    parent_save: str | None
    """Its parent's save id."""
    previous: int | None
    """The run's version right before it of the same kind, live or not; None if it is the first."""


def descent(
    connection: Connection, store: str, path: str, versions: Sequence[int]
) -> dict[int, Descent]:
    """Return what some of a run's versions come from; their heads are read."""
    earlier = aliased(VersionRow)
    previous = (
        select(earlier.version)
        .where(
            earlier.store == store,
            earlier.path == path,
            earlier.kind == VersionRow.kind,
            earlier.version < VersionRow.version,
        )
        .order_by(earlier.version.desc())
        .limit(1)
        .scalar_subquery()
    )
    found: dict[int, Descent] = {}
    for start in range(0, len(versions), AT_ONCE):
        for version, line, before in connection.execute(
            select(VersionRow.version, VersionRow.head, previous).where(
                VersionRow.store == store,
                VersionRow.path == path,
                VersionRow.version.in_(versions[start : start + AT_ONCE]),
            )
        ):
            parent = decode_head(line.encode(), f"{path}@{version}").parent if line else None
            found[version] = Descent(None if parent is None else str(parent.save_id), before)
    return found
