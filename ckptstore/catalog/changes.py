"""Writing rows. Every function works in the caller's transaction, which nobody else's runs into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    Connection,
    Insert,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from ckptstore.catalog.applying import FACT_COLUMNS, add_entries, catch_up
from ckptstore.catalog.rows import Batch, Version
from ckptstore.catalog.tables import (
    UNSETTLED,
    UNSETTLED_ENTRY,
    Base,
    JournalRow,
    MetricRow,
    RunRow,
    VersionRow,
    store_key,
)
from ckptstore.format.manifest import KINDS, decode_head

TABLES = Base.metadata.tables

# Built once: a statement's text is compiled at its first use and kept.
RUN_STATE = select(
    RunRow.name,
    select(func.max(VersionRow.version))
    .where(VersionRow.store == RunRow.store, VersionRow.path == RunRow.path)
    .scalar_subquery(),
    select(func.max(JournalRow.number))
    .where(JournalRow.store == RunRow.store, JournalRow.path == RunRow.path)
    .scalar_subquery(),
    select(func.max(JournalRow.awaits))
    .where(JournalRow.store == RunRow.store, JournalRow.path == RunRow.path, text(UNSETTLED_ENTRY))
    .scalar_subquery(),
).where(RunRow.store == bindparam("store"), RunRow.path == bindparam("path"))
LOCK_RUN = (
    select(RunRow.path)
    .where(RunRow.store == bindparam("store"), RunRow.path == bindparam("path"))
    .with_for_update()
)
SAVE_ID = select(VersionRow.save_id).where(
    VersionRow.store == bindparam("store"),
    VersionRow.path == bindparam("path"),
    VersionRow.version == bindparam("version"),
)
INSERT_VERSION = insert(VersionRow)
INSERT_METRICS = insert(MetricRow)
# What a manifest decides; the other columns are the journal's.
VERSION_COLUMNS = tuple(
    column.name
    for column in TABLES["versions"].columns
    if column.name not in ("store", "path", "version", "kind", *FACT_COLUMNS)
)


class RunState(NamedTuple):
    """What is indexed of a run."""

    name: str | None
    """Its spelling."""
    next_version: int
    next_entry: int
    awaited: int
    """The highest version that an entry says something of before it is indexed, 0 if none is."""


def add_store(connection: Connection, url: str, store_id: UUID) -> None:
    """Make sure that a store has its row."""
    values = {"store": store_key(url, store_id), "url": url, "store_id": str(store_id)}
    connection.execute(_insert_or_leave(connection, TABLES["stores"]), values)


def add_run(connection: Connection, store: str, path: str) -> None:
    """Make sure that a run has its row."""
    values = {"store": store, "path": path}
    connection.execute(_insert_or_leave(connection, TABLES["runs"]), values)


def add_version(connection: Connection, store: str, path: str, version: Version) -> bool:
    """Add the version that follows those indexed, to a run that is indexed already.

    Returns:
        Whether it is indexed now: not if the run is unknown, versions before it are missing, or
        its number is indexed as another save's, which then is no longer in the storage.
    """
    state = _run_state(connection, store, path)
    if state is None:
        return False
    following = state.next_version
    if version.number == following:
        _insert_versions(connection, store, path, [version])
        if state.name is None:
            _name_run(connection, store, path, [version])
        if state.awaited >= following:
            catch_up(connection, store, path, [following], following)
    elif version.number < following:
        key = {"store": store, "path": path, "version": version.number}
        return connection.execute(SAVE_ID, key).scalar() == version.columns["save_id"]
    return version.number == following


def add_batch(connection: Connection, store: str, path: str, batch: Batch) -> bool:
    """Add what was found in the storage, to a run that has its row.

    Rows that are there already are left: another process was faster, and nothing ever changes.

    Returns:
        False, with nothing added, if what comes before the batch is not there any more.
    """
    state = _run_state(connection, store, path)
    if state is None:
        return False
    following = state.next_version
    new = [version for version in batch.versions if version.number >= following]
    entries = [entry for entry in batch.entries if entry.number >= state.next_entry]
    if new and new[0].number > following:
        return False
    if entries and entries[0].number > state.next_entry:
        return False
    settled = [
        version
        for version in batch.versions
        if version.number < following and _settle_version(connection, store, path, version)
    ]
    _insert_versions(connection, store, path, new)
    if settled:
        _name_run_again(connection, store, path)
    elif state.name is None:
        _name_run(connection, store, path, new)
    last = following - 1 + len(new)
    if new and state.awaited >= following:
        catch_up(connection, store, path, [version.number for version in new], last)
    if batch.entries:
        add_entries(
            connection, store, path, batch.entries, following=state.next_entry, last_version=last
        )
    return True


def analyze(connection: Connection) -> None:
    """Have PostgreSQL count anew, after many rows at once: until it has, it reads whole runs.

    Its own service would do so within a minute or so. SQLite's plans need no statistics.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text("ANALYZE versions, metrics, journal, runs"))


def remove_run(connection: Connection, store: str, path: str) -> None:
    """Remove all rows of a run."""
    for table in reversed(Base.metadata.sorted_tables):
        if "path" in table.c:
            rows = (table.c.store == store) & (table.c.path == path)
            connection.execute(delete(table).where(rows))


def remove_store(connection: Connection, store: str) -> None:
    """Remove all rows of a store."""
    for table in reversed(Base.metadata.sorted_tables):
        connection.execute(delete(table).where(table.c.store == store))


def _run_state(connection: Connection, store: str, path: str) -> RunState | None:
    """Return a run's spelling, and the version and journal entry that follow those indexed."""
    key = {"store": store, "path": path}
    if connection.dialect.name != "sqlite":
        # In a statement of its own: one that had to wait for the lock would see what was there
        # before it waited.
        connection.execute(LOCK_RUN, key)
    state = connection.execute(RUN_STATE, key).one_or_none()
    if state is None:
        return None
    name, version, entry, awaited = state
    return RunState(name, (version or 0) + 1, (entry or 0) + 1, awaited or 0)


def _insert_versions(
    connection: Connection, store: str, path: str, versions: Sequence[Version]
) -> None:
    run = {"store": store, "path": path}
    # Always the same columns, so that the statement is compiled once.
    rows = [
        {
            **run,
            "version": version.number,
            "kind": version.kind,
            **{name: version.columns.get(name) for name in VERSION_COLUMNS},
        }
        for version in versions
    ]
    metrics = [
        {**run, "version": version.number, "name": name, "value": value}
        for version in versions
        for name, value in version.metrics.items()
    ]
    if rows:
        connection.execute(INSERT_VERSION, rows)
    if metrics:
        connection.execute(INSERT_METRICS, metrics)


def _settle_version(connection: Connection, store: str, path: str, version: Version) -> bool:
    """Put a version in the place of what was not settled; what the journal says of it stays."""
    where = (
        VersionRow.store == store,
        VersionRow.path == path,
        VersionRow.version == version.number,
    )
    columns = {name: version.columns.get(name) for name in VERSION_COLUMNS}
    settled = connection.execute(
        update(VersionRow).where(*where, text(UNSETTLED)).values(kind=version.kind, **columns)
    )
    if settled.rowcount == 0:
        return False
    retired_at, later = connection.execute(
        select(VersionRow.retired_at, VersionRow.late_metrics).where(*where)
    ).one()
    if retired_at is not None:
        return True
    key = {"store": store, "path": path, "version": version.number}
    metrics = [
        {**key, "name": name, "value": value}
        for name, value in version.metrics.items()
        if name not in (later or {})
    ]
    if metrics:
        connection.execute(INSERT_METRICS, metrics)
    return True


def _name_run(connection: Connection, store: str, path: str, versions: Sequence[Version]) -> None:
    names = [version.name for version in versions if version.name is not None]
    if names:
        connection.execute(
            update(RunRow).where(RunRow.store == store, RunRow.path == path).values(name=names[0])
        )


def _name_run_again(connection: Connection, store: str, path: str) -> None:
    """Name a run by its first intact version, which may have become so after later ones."""
    first = connection.execute(
        select(VersionRow.version, VersionRow.head)
        .where(VersionRow.store == store, VersionRow.path == path, VersionRow.kind.in_(KINDS))
        .order_by(VersionRow.version)
        .limit(1)
    ).one_or_none()
    if first is not None:
        head = decode_head(first.head.encode(), f"{path}@{first.version}")
        connection.execute(
            update(RunRow).where(RunRow.store == store, RunRow.path == path).values(name=head.run)
        )


def _insert_or_leave(connection: Connection, table: Table) -> Insert:
    """Return an insert that leaves a row with the same key as it is."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
