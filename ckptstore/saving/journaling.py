"""Later facts about a run, appended to its journal one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from ckptstore.catalog.index import Catalog
from ckptstore.errors import SecondWriterError, StorageError
from ckptstore.format.facts import Facts, Settings
from ckptstore.format.journal import (
    ChildEntry,
    Entry,
    RetireEntry,
    SettingsEntry,
    TagEntry,
    encode_entry,
)
from ckptstore.format.layout import journal_key
from ckptstore.saving.commit import MAX_LOST_RACES, create_once
from ckptstore.storage.base import Storage

Decide = Callable[[Facts, datetime, UUID], Entry | None]


def append(storage: Storage, catalog: Catalog, path: str, decide: Decide) -> Entry | None:
    """Append what *decide* makes of the journal as it stands.

    Whoever loses the number reads the winner's entry and decides again, so that all entries of a
    run are in one order for every reader.

    Args:
        storage: Where the journal is.
        catalog: Knows what the journal adds up to.
        path: The run's path.
        decide: Gives the entry, or None if none is needed.

    Returns:
        The entry that was created, or None.

    Raises:
        StorageError: It could not be created.
    """
    for _ in range(MAX_LOST_RACES):
        catalog.sync(path)
        # Before the facts: another process may index an entry into the same catalog meanwhile, and
        # this number must not follow one that nothing was decided against.
        _, number = catalog.next_numbers(path)
        entry = decide(catalog.facts(path), datetime.now(UTC), uuid7())
        if entry is None:
            return None
        key = journal_key(path, number)
        if create_once(storage, key, encode_entry(entry), str(entry.writer)):
            catalog.sync(path)
            return entry
        if not storage.exclusive:
            raise SecondWriterError(
                f"{storage.url}/{key} was written by another process, and this storage can't keep "
                "two writers apart: stop the other one; what it wrote is still there"
            )
    raise StorageError(
        f"{storage.url}: lost {MAX_LOST_RACES} races for the journal of run {path!r} in a row; is "
        "another process writing in a loop?"
    )


def set_settings(over: Callable[[Settings | None], Settings]) -> Decide:
    """Return the decision that a run's settings be what *over* makes of the recorded ones."""

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        wanted = over(facts.settings)
        return None if facts.settings == wanted else SettingsEntry(wanted, time, writer)

    return decide


def set_tag(tag: str, version: int | None) -> Decide:
    """Return the decision that a tag point at a version, or be taken away where that is None."""

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        return None if facts.tags.get(tag) == version else TagEntry(tag, version, time, writer)

    return decide


def retire(reasons: Mapping[int, str]) -> Decide:
    """Return the decision that these versions be retired, each for its reason."""

    def decide(_: Facts, time: datetime, writer: UUID) -> Entry | None:
        return RetireEntry(reasons, time, writer)

    return decide


def add_child(version: int, run: str, save_id: UUID) -> Decide:
    """Return the decision that a version have a child in another run, by that one's save id."""

    def decide(_: Facts, time: datetime, writer: UUID) -> Entry | None:
        return ChildEntry(version, run, save_id, time, writer)

    return decide
