"""Later facts about a run, appended to its journal one at a time."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from ckptstore.catalog.index import Catalog
from ckptstore.entry import check_live
from ckptstore.errors import CkptStoreError, SecondWriterError, StorageError
from ckptstore.format.facts import LATE, Facts, Settings, VersionFacts
from ckptstore.format.journal import (
    ChildEntry,
    Entry,
    LogEntry,
    NoteEntry,
    Place,
    RetireEntry,
    SettingsEntry,
    TagEntry,
    UndeleteEntry,
    encode_entry,
)
from ckptstore.format.layout import journal_key
from ckptstore.saving.commit import MAX_LOST_RACES, create_once
from ckptstore.storage.base import Storage


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Add a note to whatever is raised, Ctrl-C included, so that nobody has to guess."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"ckptstore: {note}")
        raise


Decide = Callable[[Facts, datetime, UUID], Entry | None]
"""Gives the entry that a journal needs, as it stands; None if it needs none."""
Append = Callable[[Decide], Entry | None]
"""Appends what is decided to one run's journal: :func:`append`, once storage and run are known."""


def append(storage: Storage, catalog: Catalog, path: str, decide: Decide) -> Entry | None:
    """Append what *decide* makes of the journal as it stands.

    Whoever loses the number reads the winner's entry and decides again, so that all entries of a
    run are in one order for every reader.

    Args:
        storage: Where the journal is.
        catalog: Knows what the journal adds up to.
        path: The run's path.
        decide: Gives the entry, or None if none is needed. The facts it gets have all that is known
            of each version, its tags too; who wrote the entry is filled in.

    Returns:
        The entry that was created, or None.

    Raises:
        JournalDamagedError: An entry is damaged or missing.
        StorageError: It could not be created.
    """
    for _ in range(MAX_LOST_RACES):
        catalog.sync(path)
        # The number first: what another thread indexes in between is then in the facts as well, or
        # the number is found to be taken.
        _, number = catalog.next_numbers(path)
        facts = replace(catalog.facts(path), versions=_Versions(catalog, path))
        entry = decide(facts, datetime.now(UTC), uuid7())
        if entry is None:
            return None
        # A copy of an entry says who wrote the original.
        entry = replace(entry, by=entry.by or author())
        key = journal_key(path, number)
        if create_once(storage, key, encode_entry(entry, Place(path, number)), str(entry.writer)):
            # What can't be indexed now is indexed by the next sync: the entry is there.
            with noting(f"{storage.url}/{key} is recorded"), suppress(CkptStoreError):
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


def set_tag(tag: str, version: int | None, ref: str = "") -> Decide:
    """Return the decision that a tag point at a version, or be taken away where that is None.

    Args:
        tag: The tag.
        version: The version's number.
        ref: The version as it is named in a message.

    Returns:
        A decision that raises :class:`~ckptstore.errors.RetiredError` if the version is retired: a
        tag keeps what it points at, and that could be gone already.
    """

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        if facts.tags.get(tag) == version:
            return None
        if version is not None and (known := facts.versions.get(version)) is not None:
            check_live(ref or f"version {version}", known)
        return TagEntry(tag, version, time, writer)

    return decide


def log_metrics(version: int, metrics: Mapping[str, Any]) -> Decide:
    """Return the decision that these metrics, encoded, be recorded of a version."""

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        known = facts.versions.get(version, VersionFacts()).metrics
        if all(_same(known.get(name), value) for name, value in metrics.items()):
            return None
        return LogEntry(version, None, None, metrics, time, writer)

    return decide


def log_epoch(epoch: int | None, step: int | None, metrics: Mapping[str, Any]) -> Decide:
    """Return the decision that these metrics, encoded, be recorded of what has no version."""

    def decide(_: Facts, time: datetime, writer: UUID) -> Entry | None:
        return LogEntry(None, epoch, step, metrics, time, writer)

    return decide


def set_note(version: int, text: str | None) -> Decide:
    """Return the decision that a version have this note, or none where that is None."""

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        known = facts.versions.get(version, VersionFacts())
        return None if known.note == text else NoteEntry(version, text, time, writer)

    return decide


def retire_late(version: int) -> Decide:
    """Return the decision that a version committed too late be retired, for good.

    It is recorded even if somebody retired it meanwhile: that it can't be undeleted must be known.
    """

    def decide(_: Facts, time: datetime, writer: UUID) -> Entry | None:
        reason = f"{LATE}committed after half the grace period since it was begun"
        return RetireEntry({version: reason}, time, writer)

    return decide


def make_live(version: int) -> Decide:
    """Return the decision that a version be retired no more, if it is and was not for being late.

    Whoever decides so must know that the version was live less than half the grace period ago.
    """

    def decide(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        known = facts.versions.get(version)
        if known is None or known.retired is None or known.retired.reason.startswith(LATE):
            return None
        return UndeleteEntry((version,), time, writer)

    return decide


def add_child(version: int, run: str, save_id: UUID) -> Decide:
    """Return the decision that a version have a child in another run, by that one's save id."""

    def decide(_: Facts, time: datetime, writer: UUID) -> Entry | None:
        return ChildEntry(version, run, save_id, time, writer)

    return decide


@cache
def author() -> str | None:
    """Return who this process runs as, ``user@host``, None if either is unknown."""
    try:
        name = f"{getpass.getuser()}@{socket.gethostname()}"
    except (ImportError, KeyError, OSError):  # a user that the machine has no entry of
        return None
    return name.encode(errors="replace").decode()


class _Versions(Mapping[int, VersionFacts]):
    """What is known of a run's versions, looked up as it is asked for."""

    def __init__(self, catalog: Catalog, path: str) -> None:
        self._catalog = catalog
        self._path = path

    def __getitem__(self, version: int) -> VersionFacts:
        facts = self._catalog.version_facts(self._path, version)
        if facts is None:
            raise KeyError(version)
        return facts

    def __iter__(self) -> Iterator[int]:
        return (record.version for record in self._catalog.history([self._path]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _same(known: object, value: object) -> bool:
    """Say whether two encoded metrics are written alike: 1 and 1.0 are not."""
    return repr(known) == repr(value)
