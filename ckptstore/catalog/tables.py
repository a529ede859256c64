"""The tables of the catalog.

Every key is natural (the store's key, the run's path, a number), and no column says when or in
which order something was indexed, so an index that is built anew has the same rows.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ckptstore.format.digest import digest

VersionKind = Literal["checkpoint", "package", "damaged", "newer", "void"]
"""What a manifest is.

``damaged`` is not what was saved, ``newer`` was made by a newer ckptstore, and ``void`` is a torn
file on storage that creates in place: no version, but its number is spent.
"""

UNSETTLED = "kind IN ('damaged', 'newer', 'void')"
"""Versions that another look may turn into something else: no other manifest ever changes.

A damaged manifest is no exception: it may be brought back from a copy.
"""

UNSETTLED_ENTRY = "(kind = 'void' OR awaits IS NOT NULL)"
"""Journal entries that were torn, or name a version that is not indexed yet."""

DAMAGED = "(kind = 'damaged' OR damage_found IS NOT NULL)"
"""Versions that are known to be damaged."""

LIVE = "retired_at IS NULL"
"""Versions that are not retired. A run keeps few of them, however long it becomes."""


class Base(DeclarativeBase):
    """What all tables share: named constraints, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy wants a plain class attribute
        str: Text(),
        int: BigInteger(),
        float: Double(),
        Any: JSON(none_as_null=True),
    }


def store_key(url: str, store_id: UUID) -> str:
    """Return the key of the store that has *store_id* and lies at *url*.

    Both count: a folder that was deleted and made anew has another id, and a copy of a store has
    another place.
    """
    return digest(f"{url}\n{store_id}".encode("utf-8", "surrogateescape"))[:32]


class StoreRow(Base):
    """A store."""

    __tablename__ = "stores"

    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    url: Mapped[str]
    store_id: Mapped[str] = mapped_column(String(36))


class RunRow(Base):
    """A run, and the settings its journal adds up to."""

    __tablename__ = "runs"

    store: Mapped[str] = mapped_column(String(32), ForeignKey("stores.store"), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(120))
    """Its spelling; null until it has an intact version."""
    monitor: Mapped[str | None]
    """Null until its settings were recorded."""
    mode: Mapped[str | None] = mapped_column(String(3))
    config: Mapped[Any | None]
    keep: Mapped[Any | None]
    """What retention keeps, as its own JSON."""


class VersionRow(Base):
    """A version: one manifest's head, and what the journal says of it."""

    __tablename__ = "versions"
    __table_args__ = (
        ForeignKeyConstraint(["store", "path"], ["runs.store", "runs.path"]),
        Index(
            "ix_versions_unsettled",
            "store",
            "path",
            "version",
            sqlite_where=text(UNSETTLED),
            postgresql_where=text(UNSETTLED),
        ),
        Index(
            "ix_versions_live",
            "store",
            "path",
            "version",
            sqlite_where=text(LIVE),
            postgresql_where=text(LIVE),
        ),
        Index(
            "ix_versions_damaged",
            "store",
            "path",
            "version",
            sqlite_where=text(DAMAGED),
            postgresql_where=text(DAMAGED),
        ),
        # By what it is asked for first: SQLite takes an index that begins as a partial one does
        # instead of that, or not, by the order in which they were made.
        Index("ix_versions_save_id", "save_id", "store", "path", "version"),
    )

    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    """A :data:`VersionKind`."""
    save_id: Mapped[str | None] = mapped_column(String(36))
    created_at: Mapped[str | None] = mapped_column(String(27))
    """UTC, always with microseconds, so that it sorts as text."""
    epoch: Mapped[int | None]
    step: Mapped[int | None]
    size_bytes: Mapped[int | None]
    """Bytes of its tensors."""
    torch_version: Mapped[str | None]
    parent_path: Mapped[str | None]
    parent_version: Mapped[int | None]
    config: Mapped[Any | None]
    damage: Mapped[str | None]
    """What is wrong with it, where its kind is ``damaged``."""
    head: Mapped[str | None]
    """The manifest's first line, byte for byte, where its digest holds."""
    retired_at: Mapped[str | None] = mapped_column(String(27))
    """The time in the journal entry that retired it; null while it is live."""
    retired_by: Mapped[str | None]
    """The reason."""
    retired_entry: Mapped[int | None]
    """The number of that entry."""
    note: Mapped[str | None]
    damage_found: Mapped[str | None]
    """What a check found wrong with its data, by the journal."""
    late_metrics: Mapped[Any | None]
    """Metrics that came later, encoded and merged; null if there are none."""


class MetricRow(Base):
    """A metric of a live version, a later one in place of the manifest's.

    NaN is a null value: SQLite knows no other NaN.
    """

    __tablename__ = "metrics"
    __table_args__ = (
        ForeignKeyConstraint(
            ["store", "path", "version"],
            ["versions.store", "versions.path", "versions.version"],
        ),
        # A run's values of one metric lie side by side and in order: `best` reads an end of it.
        Index("ix_metrics_value", "store", "path", "name", "value", "version"),
        {"sqlite_with_rowid": False},
    )

    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float | None]


class JournalRow(Base):
    """An entry of a run's journal."""

    __tablename__ = "journal"
    __table_args__ = (
        ForeignKeyConstraint(["store", "path"], ["runs.store", "runs.path"]),
        Index(
            "ix_journal_unsettled",
            "store",
            "path",
            "number",
            sqlite_where=text(UNSETTLED_ENTRY),
            postgresql_where=text(UNSETTLED_ENTRY),
        ),
        # Few entries of a long journal are of a kind that is asked for. That goes first: see above.
        Index("ix_journal_kind", "kind", "store", "path", "number"),
    )

    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    """The kind it says, or ``void`` where it was torn."""
    time: Mapped[str | None] = mapped_column(String(27))
    entry: Mapped[str | None]
    """The file, byte for byte; null where it is void."""
    awaits: Mapped[int | None]
    """The highest version it says something of, while that one is not indexed."""


class TagRow(Base):
    """Where a tag points now; the version need not be indexed yet."""

    __tablename__ = "tags"
    __table_args__ = (
        ForeignKeyConstraint(["store", "path"], ["runs.store", "runs.path"]),
        {"sqlite_with_rowid": False},
    )

    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    tag: Mapped[str] = mapped_column(String(120), primary_key=True)
    version: Mapped[int]


class ChildRow(Base):
    """A version of another run that comes, or was meant to come, from one of this run."""

    __tablename__ = "children"
    __table_args__ = (
        ForeignKeyConstraint(["store", "path"], ["runs.store", "runs.path"]),
        {"sqlite_with_rowid": False},
    )

    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The parent; it need not be indexed yet."""
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The journal entry that says so."""
    run: Mapped[str] = mapped_column(String(120))
    save_id: Mapped[str] = mapped_column(String(36))
