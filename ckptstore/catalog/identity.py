"""Which save each version of a run is, or is a copy of: so a copy knows what is there already."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, case, select

from ckptstore.catalog.tables import VersionRow
from ckptstore.format.manifest import KINDS, CopiedFrom, decode_head


@dataclass(frozen=True)
class Identity:
    """A version whose manifest can be read, without what it holds."""

    version: int
    kind: str
    """``checkpoint`` or ``package``."""
    save_id: UUID
    created_at: datetime
    size_bytes: int
    copied_from: CopiedFrom | None
    retired: str | None
    """The reason, None while it is live."""
    damage: str | None
    """What a check found wrong with its data."""

    @property
    def origin(self) -> UUID:
        """The save id of what it is, or is a copy of: as :attr:`Head.origin` says."""
        return self.save_id if self.copied_from is None else self.copied_from.origin


def identities(connection: Connection, store: str, path: str, after: int = 0) -> list[Identity]:
    """Return a run's versions with numbers above *after*, ascending.

    Heads are read of copies alone: a run of ten thousand versions is one query.
    """
    copied = VersionRow.head.contains('"copied_from":{', autoescape=True)
    rows = connection.execute(
        select(
            VersionRow.version,
            VersionRow.kind,
            VersionRow.save_id,
            VersionRow.created_at,
            VersionRow.size_bytes,
            VersionRow.retired_by,
            VersionRow.damage_found,
            case((copied, VersionRow.head)).label("head"),
        )
        .where(
            VersionRow.store == store,
            VersionRow.path == path,
            VersionRow.version > after,
            VersionRow.kind.in_(KINDS),
        )
        .order_by(VersionRow.version)
    )
    return [
        Identity(
            row.version,
            row.kind,
            UUID(row.save_id),
            datetime.fromisoformat(row.created_at),
            row.size_bytes,
            None
            if row.head is None
            else decode_head(row.head.encode(), f"the catalog's {path}@{row.version}").copied_from,
            row.retired_by,
            row.damage_found,
        )
        for row in rows
    ]
