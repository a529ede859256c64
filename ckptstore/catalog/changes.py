"""Writing rows. Every function works in the caller's transaction, which nobody else's runs into."""

from __future__ import annotations

from collections.abc import Sequence
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

from ckptstore.catalog.rows import Batch, JournalEntry, Version
from ckptstore.catalog.tables import (
    UNSETTLED,
    Base,
    JournalRow,
    MetricRow,
    RunRow,
    TagRow,
    VersionRow,
    store_key,
)
from ckptstore.format.facts import Facts
from ckptstore.format.fields import format_time
from ckptstore.format.journal import decode_entry, fold

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
RunState = tuple[str | None, int, int]
INSERT_VERSION = insert(VersionRow)
INSERT_METRICS = insert(MetricRow)
VERSION_COLUMNS = tuple(
    column.name
    for column in TABLES["versions"].columns
    if column.name not in ("store", "path", "version", "kind")
)


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
    name, following, _ = state
    if version.number == following:
        _insert_version(connection, store, path, version)
        if name is None:
            _name_run(connection, store, path, [version])
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
    name, following, following_entry = state
    new = [version for version in batch.versions if version.number >= following]
    entries = [entry for entry in batch.entries if entry.number >= following_entry]
    if new and new[0].number > following:
        return False
    if entries and entries[0].number > following_entry:
        return False
    settled = [
        version
        for version in batch.versions
        if version.number < following and _remove_unsettled(connection, store, path, version.number)
    ]
    for version in (*settled, *new):
        _insert_version(connection, store, path, version)
    if name is None:
        _name_run(connection, store, path, (*settled, *new))
    if batch.entries:
        _insert_entries(connection, store, path, batch.entries, following_entry)
    return True


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
    return None if state is None else (state[0], (state[1] or 0) + 1, (state[2] or 0) + 1)


def _insert_version(connection: Connection, store: str, path: str, version: Version) -> None:
    key = {"store": store, "path": path, "version": version.number}
    # Always the same columns, so that the statement is compiled once.
    columns = {name: version.columns.get(name) for name in VERSION_COLUMNS}
    connection.execute(INSERT_VERSION, {**key, "kind": version.kind, **columns})
    if version.metrics:
        connection.execute(
            INSERT_METRICS,
            [{**key, "name": name, "value": value} for name, value in version.metrics.items()],
        )


def _remove_unsettled(connection: Connection, store: str, path: str, number: int) -> bool:
    removed = connection.execute(
        delete(VersionRow).where(
            VersionRow.store == store,
            VersionRow.path == path,
            VersionRow.version == number,
            text(UNSETTLED),
        )
    )
    return removed.rowcount > 0


def _name_run(connection: Connection, store: str, path: str, versions: Sequence[Version]) -> None:
    names = [version.name for version in versions if version.name is not None]
    if names:
        connection.execute(
            update(RunRow).where(RunRow.store == store, RunRow.path == path).values(name=names[0])
        )


def _insert_entries(
    connection: Connection,
    store: str,
    path: str,
    entries: Sequence[JournalEntry],
    following: int,
) -> None:
    """Add journal entries, and what the whole journal adds up to now."""
    for entry in entries:
        where = (
            JournalRow.store == store,
            JournalRow.path == path,
            JournalRow.number == entry.number,
        )
        if entry.number < following:
            void = delete(JournalRow).where(*where, JournalRow.kind == "void")
            if connection.execute(void).rowcount == 0:
                continue
        connection.execute(
            insert(JournalRow),
            {
                "store": store,
                "path": path,
                "number": entry.number,
                "kind": entry.kind,
                "time": None if entry.entry is None else format_time(entry.entry.time),
                "entry": entry.text,
            },
        )
    facts = _fold_journal(connection, store, path)
    settings = facts.settings
    connection.execute(
        update(RunRow)
        .where(RunRow.store == store, RunRow.path == path)
        .values(
            monitor=None if settings is None else settings.monitor,
            mode=None if settings is None else settings.mode,
            config=None if settings is None else settings.config,
        )
    )
    connection.execute(delete(TagRow).where(TagRow.store == store, TagRow.path == path))
    if facts.tags:
        connection.execute(
            insert(TagRow),
            [
                {"store": store, "path": path, "tag": tag, "version": version}
                for tag, version in facts.tags.items()
            ],
        )


def _fold_journal(connection: Connection, store: str, path: str) -> Facts:
    texts = connection.scalars(
        select(JournalRow.entry)
        .where(JournalRow.store == store, JournalRow.path == path, JournalRow.entry.is_not(None))
        .order_by(JournalRow.number)
    )
    where = f"the catalog's journal of run {path!r}"
    return fold(Facts(), ((0, decode_entry(entry.encode(), where)) for entry in texts if entry))


def _insert_or_leave(connection: Connection, table: Table) -> Insert:
    """Return an insert that leaves a row with the same key as it is."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
