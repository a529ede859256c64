"""What a run's journal says beside its versions' rows: where tags were, epochs without weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, func, select

from ckptstore.catalog.tables import ChildRow, JournalRow, VersionRow
from ckptstore.format.journal import Entry, LogEntry, TagEntry, decode_entry

PAGE = 200


@dataclass(frozen=True)
class TagMove:
    """A tag set, moved or taken away."""

    tag: str
    version: int | None
    """Where it pointed from then on, None if nowhere."""
    previous: int | None
    """Where it pointed before, None if nowhere."""
    time: datetime
    """By the clock of whoever did it."""
    by: str | None
    """Who, as ``user@host``; None if that is not known."""


class Child(NamedTuple):
    """A version of another run that comes, or was meant to come, from one of this run."""

    run: str
    save_id: UUID
    entry: int
    """The number of the journal entry that says so."""


class Counts(NamedTuple):
    """How much of a run is indexed."""

    versions: int
    """The last version's number."""
    entries: int
    """The last journal entry's number."""


def tag_history(connection: Connection, store: str, path: str, tag: str | None) -> list[TagMove]:
    """Return how the tags of a run moved, in the journal's order.

    Args:
        connection: A transaction.
        store: The store's key.
        path: The run's path.
        tag: Only this one; None for all.
    """
    moves: list[TagMove] = []
    where: dict[str, int | None] = {}
    for entry in _entries(connection, store, path, "tag"):
        if isinstance(entry, TagEntry) and tag in (None, entry.tag):
            previous, where[entry.tag] = where.get(entry.tag), entry.version
            moves.append(TagMove(entry.tag, entry.version, previous, entry.time, entry.by))
    return moves


def logged(
    connection: Connection, store: str, path: str, limit: int | None = None
) -> list[LogEntry]:
    """Return what was logged of epochs and steps without weights, in the journal's order.

    Args:
        connection: A transaction.
        store: The store's key.
        path: The run's path.
        limit: At most so many, the last ones.
    """
    found = (
        entry
        for entry in _entries_backwards(connection, store, path, "log")
        if isinstance(entry, LogEntry) and entry.version is None
    )
    return [*islice(found, limit)][::-1]


def children(connection: Connection, store: str, path: str) -> dict[int, list[Child]]:
    """Return the versions of other runs that come from this run's, by its versions' numbers."""
    found: dict[int, list[Child]] = {}
    for version, number, run, save_id in connection.execute(
        select(ChildRow.version, ChildRow.number, ChildRow.run, ChildRow.save_id)
        .where(ChildRow.store == store, ChildRow.path == path)
        .order_by(ChildRow.version, ChildRow.number)
    ):
        found.setdefault(version, []).append(Child(run, UUID(save_id), number))
    return found


def indexed_counts(connection: Connection, store: str) -> dict[str, Counts]:
    """Return how much is indexed of each run of a store, by path."""
    versions: dict[str, int] = {}
    entries: dict[str, int] = {}
    for column, table, found in (
        (VersionRow.version, VersionRow, versions),
        (JournalRow.number, JournalRow, entries),
    ):
        for path, last in connection.execute(
            select(table.path, func.max(column)).where(table.store == store).group_by(table.path)
        ):
            found[path] = last
    return {
        path: Counts(versions.get(path, 0), entries.get(path, 0))
        for path in sorted(versions.keys() | entries.keys())
    }


def entries(
    connection: Connection, store: str, path: str, kinds: Collection[str], after: int = 0
) -> list[tuple[int, Entry]]:
    """Return a run's journal entries of these kinds above a number, with their own, in order."""
    rows = connection.execute(
        select(JournalRow.number, JournalRow.entry)
        .where(
            JournalRow.store == store,
            JournalRow.path == path,
            JournalRow.number > after,
            JournalRow.kind.in_(kinds),
        )
        .order_by(JournalRow.number)
    )
    where = f"the catalog's journal of run {path!r}"
    return [
        (number, decode_entry(text.encode(), where)) for number, text in rows if text is not None
    ]


def _entries_backwards(connection: Connection, store: str, path: str, kind: str) -> Iterator[Entry]:
    """Yield a run's journal entries of a kind, the last first, a page at a time."""
    where = f"the catalog's journal of run {path!r}"
    before = 2**63 - 1
    while page := connection.execute(
        select(JournalRow.number, JournalRow.entry)
        .where(
            JournalRow.store == store,
            JournalRow.path == path,
            JournalRow.kind == kind,
            JournalRow.number < before,
        )
        .order_by(JournalRow.number.desc())
        .limit(PAGE)
    ).all():
        before = page[-1].number
        for _, entry in page:
            if entry is not None:
                yield decode_entry(entry.encode(), where)


def _entries(connection: Connection, store: str, path: str, kind: str) -> Iterator[Entry]:
    return (entry for _, entry in entries(connection, store, path, (kind,)))
