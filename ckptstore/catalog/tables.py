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

UNSETTLED = "kind IN ('newer', 'void')"
"""Rows that another look may turn into something else: nothing else in a store ever changes."""


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


class VersionRow(Base):
    """A version: one manifest's head."""

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


class MetricRow(Base):
    """A metric of a version. NaN is a null value: SQLite knows no other NaN."""

    __tablename__ = "metrics"
    __table_args__ = (
        ForeignKeyConstraint(
            ["store", "path", "version"],
            ["versions.store", "versions.path", "versions.version"],
        ),
        {"sqlite_with_rowid": False},
    )

    # A run's values of one metric lie side by side: that is what `best` reads.
    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float | None]


class JournalRow(Base):
    """An entry of a run's journal."""

    __tablename__ = "journal"
    __table_args__ = (ForeignKeyConstraint(["store", "path"], ["runs.store", "runs.path"]),)

    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(120), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    """``settings``, ``tag`` or ``void``."""
    time: Mapped[str | None] = mapped_column(String(27))
    entry: Mapped[str | None]
    """The file, byte for byte; null where it is void."""


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
