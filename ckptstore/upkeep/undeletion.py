"""Undeletion: a retired version is live again, while it is certain that nothing of it was deleted.

That is so for half the grace period. A collection deletes what was retired for a whole one, by the
storage's clock; the other half is for all that may be late or wrong. What turns out to have come
too late is taken back. The argument is docs/explanation/clean-up.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ckptstore.catalog.stores import store_facts
from ckptstore.errors import IntegrityError, LateCommitError, RetiredError, StorageError
from ckptstore.format.facts import LATE, Facts, Retired
from ckptstore.format.fields import format_time
from ckptstore.format.journal import Entry, RetireEntry, UndeleteEntry
from ckptstore.format.layout import file_key, pack_key, run_path
from ckptstore.format.manifest import Head
from ckptstore.format.store_facts import StoreFacts
from ckptstore.manifest import open_manifest
from ckptstore.saving.journaling import Append, noting
from ckptstore.saving.moment import Moment
from ckptstore.storage.base import Storage
from ckptstore.upkeep.clock import storage_now
from ckptstore.upkeep.inventory import Noted, read_journal

UNJUDGED = "whether that was in time is unknown: verify() says whether its data are all there"


def undelete(storage: Storage, run: str, version: int, append: Append) -> bool:
    """Make a retired version live again.

    Args:
        storage: Where it is.
        run: Its run.
        version: Its number.
        append: Appends to the run's journal.

    Returns:
        Whether it was retired; a version that is not is left as it is.

    Raises:
        RetiredError: It is too late: the version was retired more than half the grace period ago.
        LateCommitError: It became too late meanwhile; the version is retired again.
        IntegrityError: The version's manifest is damaged, or a pack or file is gone or of another
            size. Nothing was changed.
        JournalDamagedError: The run's journal is damaged; *append* raises it.
        CollectionRefusedError: The run's journal lost an entry that the catalog still knows.
        NotAStoreError: There is no store.
        NewerFormatError: A newer ckptstore made the version, the store or a journal entry.
        StorageError: The storage failed, or doesn't say when something was written.
    """
    begun = Moment.now()
    facts = store_facts(storage)
    attempt = _Attempt(storage, run, version, facts, _now(storage), begun)
    try:
        undeleted = append(attempt.decide)
    except BaseException as error:
        if attempt.is_decided:
            # The entry may have been made, and only what followed it have failed.
            error.add_note(f"ckptstore: {attempt.ref} may be undeleted, and {UNJUDGED}")
        raise
    if undeleted is None:
        return False
    with noting(f"{attempt.ref} is undeleted, and {UNJUDGED}"):
        why = attempt.late()
    if why is not None:
        with noting(f"{attempt.ref} was undeleted too late ({why}) and is not retired again yet"):
            append(attempt.take_back)
        raise LateCommitError(
            f"{attempt.ref}: {why}, so its data may be gone by now: it is retired again"
        )
    return True


class _Attempt:
    """One undeletion, by which it is decided, judged and, if need be, taken back."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        storage: Storage,
        run: str,
        version: int,
        facts: StoreFacts,
        now: datetime,
        begun: Moment,
    ) -> None:
        self.ref = f"{run}@{version}"
        self._storage = storage
        self._run = run
        self._version = version
        self._facts = facts
        self._half_grace = timedelta(seconds=facts.grace_s) / 2
        self._now = now
        self._begun = begun
        self._until = now
        self.is_decided = False
        """Whether an entry was given that undeletes it."""

    def decide(self, facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        """Return the entry that undeletes the version, None if it is not retired.

        Raises:
            RetiredError: It is too late.
            IntegrityError: Something of the version is damaged or gone.
        """
        self.is_decided = False
        known = facts.versions.get(self._version)
        if known is None or known.retired is None:
            return None
        path = run_path(self._run)
        journal = read_journal(self._storage, path, in_place=self._facts.in_place)
        since = retired_since(journal, self._version, self._half_grace)
        if since is None and any(each.number == known.retired.entry for each in journal):
            return None  # somebody undeleted it since the catalog was asked
        if since is None:
            # The catalog is ahead of the listing, or its entry came back from a copy.
            raise StorageError(
                f"{self.ref} is retired by entry {known.retired.entry} of its journal, and the "
                "storage's listing lacks that entry: try again"
            )
        if since.final:
            raise self._too_late(known.retired, "it came too late, so its data may be gone")
        self._until = since.time + self._half_grace
        if self._now > self._until:
            raise self._too_late(
                known.retired, f"it could be undeleted until {format_time(self._until)}"
            )
        _check_data(self._storage, open_manifest(self._storage, self._run, self._version).head)
        self.is_decided = True
        return UndeleteEntry((self._version,), time, writer)

    def late(self) -> str | None:
        """Say why the undeletion came too late, None if it did not.

        The entry is older than the time that is asked for here. So if that is in time, every
        collection that finds the version retired for a grace period finds the entry too.

        Where the storage can't be asked any more, this process's own clocks say how long it took.
        """
        try:
            now = _now(self._storage)
        except StorageError:
            now = self._now
        # The storage's clock may have stood still; so this process's own clocks count as well.
        passed = timedelta(seconds=self._begun.elapsed_s())
        latest = max(now, self._now + passed)
        if latest <= self._until:
            return None
        return (
            f"it could be undeleted until {format_time(self._until)}, and undeleting it ended at "
            f"{format_time(latest)}"
        )

    def take_back(self, facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        """Return the entry that retires the version again, whoever retired it meanwhile."""
        del facts  # that nobody may undelete it must be said even if it is retired already
        return RetireEntry({self._version: f"{LATE}undeleted after its time"}, time, writer)

    def _too_late(self, retired: Retired, advice: str) -> RetiredError:
        return RetiredError(self.ref, format_time(retired.time), retired.reason, advice)


@dataclass(frozen=True)
class Since:
    """Since when a version has been retired."""

    time: datetime
    final: bool
    """Whether an entry says that what it built upon may be gone, so that it can't come back."""


def retired_since(journal: Sequence[Noted], version: int, half_grace: timedelta) -> Since | None:
    """Return since when a version has been retired, None if it is not.

    An undeletion that came after half the grace period doesn't count here, even if whoever wrote
    it died before it was taken back: what the version names was deletable all the while, and a
    later retirement must not make it seem as if it had not been.

    Raises:
        StorageError: The storage doesn't say when one of the entries was written.
    """
    since: Since | None = None
    final = False
    for noted in journal:
        entry = noted.entry
        if isinstance(entry, RetireEntry) and version in entry.reasons:
            final = final or entry.reasons[version].startswith(LATE)
            since = Since(_time(noted) if since is None else since.time, final)
        elif (
            isinstance(entry, UndeleteEntry)
            and version in entry.versions
            and since is not None
            and _time(noted) - since.time <= half_grace
        ):
            since = None
    return since


def _time(noted: Noted) -> datetime:
    if noted.written_at is None:
        raise _no_time(f"entry {noted.number} of the journal")
    return noted.written_at


def _now(storage: Storage) -> datetime:
    now = storage_now(storage)
    if now is None:
        raise _no_time("an object")
    return now


def _no_time(what: str) -> StorageError:
    return StorageError(
        f"the storage does not say when {what} was written, so it can't be told whether a retired "
        "version's data are still safe; open the store at an address whose filesystem gives times "
        "of creation or modification"
    )


def _check_data(storage: Storage, head: Head) -> None:
    """Look whether everything that a version names is there.

    Raises:
        IntegrityError: It is not.
    """
    sizes = {pack_key(pack.save_id, pack.number): pack.size_bytes for pack in head.packs}
    sizes |= {file_key(file.save_id, file.number): file.size_bytes for file in head.files}
    for key, expected in sizes.items():
        try:
            found = storage.size_bytes(key)
        except FileNotFoundError:
            raise IntegrityError(
                f"{head.ref} can't be undeleted: {storage.url}/{key} is gone", ref=head.ref
            ) from None
        if found != expected:
            raise IntegrityError(
                f"{head.ref} can't be undeleted: {storage.url}/{key} should have {expected} bytes, "
                f"and has {found}",
                ref=head.ref,
            )
