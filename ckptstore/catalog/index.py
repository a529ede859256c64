"""The catalog of one store: an index that lags at worst, and never stands in the way.

Writing to it may fail, and says so. Reading never does on its account: where the database is
locked, damaged or can't be written, an index in memory is filled from the storage instead.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection

from ckptstore.catalog import changes, raw, sync
from ckptstore.catalog.asking import Asking
from ckptstore.catalog.engine import (
    MEMORY,
    TIMEOUT_S,
    Database,
    check_driver,
    parse_url,
    usual_place,
)
from ckptstore.catalog.queries import Reader
from ckptstore.catalog.rows import from_head
from ckptstore.catalog.stores import store_facts
from ckptstore.catalog.sync import Known, RunReader, gathered, listed_end, unchanged, walk
from ckptstore.catalog.tables import store_key
from ckptstore.errors import CatalogError, CatalogWarning, CkptStoreError, JournalDamagedError, warn
from ckptstore.format.layout import journal_key, version_key
from ckptstore.format.manifest import Head
from ckptstore.format.store_facts import StoreFacts
from ckptstore.storage.base import Storage

HURRY_S = 60.0
"""How long no save waits for a lock again that one has waited for in vain."""
RUNS_AT_ONCE = 100
"""Of so many runs the storage is asked at once whether they changed."""

Found = TypeVar("Found")


class Catalog(Asking):
    """What is known of a store's runs without reading the storage again.

    Thread-safe, and usable in forked children. Nothing is opened or made before it is used, and
    nothing is made where there is no store. Runs are named by their paths: lower case.

    Every query answers from what is indexed: call :meth:`sync` first.

    Args:
        url: A database's SQLAlchemy URL (SQLite or PostgreSQL). None for the default place: beside
            a local store, in the user's data folder for a remote one, in memory for one in memory.
        storage: Where the store is.
        timeout_s: How long to wait for another process that is writing to SQLite.

    Raises:
        ArgumentError: The URL is none.
        MissingPackageError: The database's driver is not installed: no save is to meet that.
    """

    def __init__(self, url: str | None, storage: Storage, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__()
        self._storage = storage
        self._timeout_s = timeout_s
        self._given = url
        self._url = None if url is None else parse_url(url)
        if self._url is not None:
            check_driver(self._url)
        self._database: Database | None = None
        self._store: StoreFacts | None = None
        self._is_partial = False
        """Whether the database began empty in our hands: it knows but what we synced since."""
        self._broken: dict[str, JournalDamagedError] = {}
        self.vouched: set[str] = set()
        """Runs whose journals this process found to have no hole."""
        self._listed: set[str] = set()
        """Runs without a first version whose folders were listed, to see whether it was lost."""
        self._filled: set[str] = set()
        """Runs that were synced since."""
        self._hurry_until = -math.inf
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process, as an entry does with a DataLoader's workers, and open anew."""
        return functools.partial(type(self), timeout_s=self._timeout_s), (
            self._given,
            self._storage,
        )

    # ------------------------------------------------------------ keeping up

    def sync(self, path: str) -> None:
        """Index what is new in a run: its next versions and journal entries, until there are none.

        Raises:
            NotAStoreError: There is no store.
            JournalDamagedError: A journal entry is damaged. All versions are indexed by then, and
                the journal up to there.
            IntegrityError: ``ckptstore.json`` is damaged.
            NewerFormatError: A newer ckptstore made the store or a journal entry.
            StorageError: The storage failed.
        """
        with self._alone():
            self._despite_failures(lambda: self._sync(path))

    def discover(self) -> list[str]:
        """Find all runs in the storage and index what is new in each.

        A journal that is damaged holds up no other run; :meth:`broken` tells of it.

        Returns:
            The paths of those that have a version or a journal entry, sorted.

        Raises:
            CkptStoreError: As :meth:`sync`.
        """
        with self._alone():
            return self._despite_failures(self._discover)

    def vouch(self, path: str) -> None:
        """Make sure that a run's journal, which was synced, has no hole; once a process.

        Raises:
            JournalDamagedError: It has one, or an entry is damaged.
            CkptStoreError: As :meth:`sync`.
        """
        if path not in self.vouched:
            self.sync(path)

    def broken(self, path: str) -> JournalDamagedError | None:
        """Return what is wrong with a run's journal, as the last sync of it found."""
        return self._broken.get(path)

    def forget(self) -> None:
        """Look at the storage again: the store may have been deleted or replaced meanwhile."""
        with self._alone():
            self._store = None
            self._filled.clear()
            self._listed.clear()
            self.vouched.clear()

    def reindex(self, paths: Sequence[str] | None = None) -> list[str]:
        """Index runs anew from the storage, damaged versions too; by default all, and no others.

        A run is read first and then replaced in one transaction. One whose journal is damaged keeps
        its rows: they may be the only copy of what its journal said.

        Args:
            paths: The runs; None means the whole store, and forgets what is not there any more.

        Returns:
            The paths of the runs that are in the storage.

        Raises:
            JournalDamagedError: A run's journal is damaged, once all others are indexed.
            CatalogError: The database failed.
            CkptStoreError: As :meth:`sync`.
        """
        with self._alone():
            database = self._current()
            present = walk(self._storage)
            wanted = {*present, *self.indexed_counts()} if paths is None else paths
            with database.writing() as connection:
                for path in wanted:
                    if path not in present:
                        changes.remove_run(connection, self._key(), path)
            broken = [
                error
                for path in present
                if path in wanted and (error := self._reindex(database, path)) is not None
            ]
            if broken:
                raise broken[0]
            return (
                self._discover() if paths is None else [each for each in present if each in wanted]
            )

    def _reindex(self, database: Database, path: str) -> JournalDamagedError | None:
        """Read a run whole and put it in the place of what was indexed of it."""
        reader = RunReader(self._storage, path, in_place=self._facts().in_place)
        _, error = listed_end(self._storage, path)
        if error is not None:
            return error
        try:
            up_to = sync.last_listed(self._storage, path)
            batches = list(gathered(reader.batches(Known(), looks_far=True, up_to=up_to)))
        except JournalDamagedError as error:
            return error
        with database.writing() as connection:
            changes.remove_run(connection, self._key(), path)
            self._add_run(connection, path)
            for batch in batches:
                changes.add_batch(connection, self._key(), path, batch)
            if sum(len(batch.versions) for batch in batches) >= sync.TRANSACTION:
                changes.analyze(connection)
        self._filled.discard(path)
        self.vouched.discard(path)
        return None

    def add(self, head_line: bytes, head: Head) -> None:
        """Index a version that was just committed, and what is missing before it.

        A training is not held up by a database that another process keeps locked: after one wait in
        vain it is tried without waiting, for a minute.

        Args:
            head_line: The manifest's first line, without the line feed.
            head: What it says.

        Raises:
            CatalogError: It is not indexed; the next sync will do it.
        """
        path = head.run.lower()
        key = version_key(path, head.version)
        with self._alone():
            try:
                version = from_head(head, head_line, f"{self._storage.url}/{key}")
                with self._hurrying(self._current()) as database:
                    with database.writing() as connection:
                        if version.number == 1:
                            self._add_run(connection, path)
                        is_indexed = changes.add_version(connection, self._key(), path, version)
                    if not is_indexed:
                        self._sync(path)
            except CatalogError:
                raise
            except CkptStoreError as error:
                raise CatalogError(f"{head.ref} is saved, but not indexed yet: {error}") from error

    def rows(self, path: str) -> dict[str, dict[tuple[Any, ...], raw.Row]]:
        """Return a run's rows as they are, by table and key; nothing is synced or made."""
        return self._as_is(lambda connection: raw.rows_of(connection, self._key(), path)) or {}

    def indexed(self) -> list[str]:
        """Return the paths of the runs that have rows, sorted; nothing is synced or made."""
        return self._as_is(lambda connection: raw.paths_of(connection, self._key())) or []

    def close(self) -> None:
        """Let go of the database; the next use opens it again."""
        with self._alone():
            if self._database is not None:
                self._database.close()
            self._filled.clear()

    # ------------------------------------------------------------ how

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one thread at a time in. A forked child starts anew."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.RLock()
            self._filled.clear()
        with self._lock:
            yield

    @contextmanager
    def _hurrying(self, database: Database) -> Iterator[Database]:
        """Wait for a lock as long as is set, but not again soon after that was in vain."""
        database.was_locked = False
        if monotonic() < self._hurry_until:
            database.timeout_s = 0.0
        try:
            yield database
        finally:
            if database.was_locked and database.timeout_s:
                self._hurry_until = monotonic() + HURRY_S
            database.timeout_s = self._timeout_s

    def _read(self, paths: Sequence[str], query: Callable[[Reader], Found]) -> Found:
        def answer() -> Found:
            database = self._current()
            if self._is_partial or database.is_memory:
                for path in paths:
                    if path not in self._filled:
                        self._sync(path)
            with database.reading() as connection:
                return query(Reader(connection, self._key(), self._storage.url))

        with self._alone():
            return self._despite_failures(answer)

    def _as_is(self, query: Callable[[Connection], Found]) -> Found | None:
        """Ask the database without syncing it first; None where it was not made yet."""
        with self._alone():
            database = self._opened()
            if database.path is not None and not database.path.exists():
                return None
            with database.reading() as connection:
                return query(connection)

    def _despite_failures(self, work: Callable[[], Found]) -> Found:
        """Do *work*, in memory if the database fails."""
        try:
            return work()
        except CatalogError as error:
            database = self._database
            if database is None or database.is_memory:
                raise
            if not database.is_read_only:
                warn(
                    f"{error}. Until this process ends its index is kept in memory and filled from "
                    "the storage; nothing is lost",
                    CatalogWarning,
                )
            database.close()
            self._database = Database(parse_url(MEMORY), timeout_s=self._timeout_s)
            self._filled.clear()
        return work()

    def _sync(self, path: str, *, vouches: bool = True) -> None:
        database = self._current()
        was_broken = self._broken.pop(path, None) is not None
        broken: JournalDamagedError | None = None
        try:
            while not self._is_synced(database, path, looks_far=was_broken):
                pass  # another process began to index this store anew meanwhile
        except JournalDamagedError as error:
            # All versions are indexed, and the journal up to there.
            broken = error
        self._filled.add(path)
        if broken is None and vouches and path not in self.vouched:
            broken = self._hole(database, path)
        if broken is not None:
            self._broken[path] = broken
            self.vouched.discard(path)
            raise broken

    def _hole(self, database: Database, path: str) -> JournalDamagedError | None:
        """Look once a process whether a run's journal has a hole, or lost its end.

        Reading asks for the next number until there is none, so it takes a hole for the end; and an
        entry that was written into one would change what later ones mean.
        """
        last, error = listed_end(self._storage, path)
        with database.reading() as connection:
            known = Reader(connection, self._key(), self._storage.url).next_numbers(path)[1] - 1
        if error is None and known > last:
            # These rows may be the only copy: nobody but the user knows which of the two is right.
            error = JournalDamagedError(
                f"{self._storage.url}/{journal_key(path, known)}, the last journal entry that this "
                f"machine's catalog knows of run {path!r}, is gone: verify(repair=True) writes it "
                "again from there; if older files were put back on purpose, reindex() goes by them"
            )
        if error is None:
            self.vouched.add(path)
        return error

    def _is_synced(self, database: Database, path: str, *, looks_far: bool, up_to: int = 0) -> bool:
        with database.reading() as connection:
            known = Reader(connection, self._key(), self._storage.url).known(path)
        reader = RunReader(self._storage, path, in_place=self._facts().in_place)
        if not reader.is_there(known):
            # Deleted, replaced or rolled back: the storage is right, whatever was indexed.
            self._store = None
            self._facts()
            last = version_key(path, known.next_version - 1)
            warn(
                f"{self._storage.url}/{last}, the last version indexed, is gone, damaged or "
                "replaced; the run is indexed anew from what is there",
                CatalogWarning,
            )
            with database.writing() as connection:
                changes.remove_run(connection, self._key(), path)
            self._listed.discard(path)
            return False
        # The storage is read outside of transactions: it may take long.
        added = 0
        for batch in gathered(reader.batches(known, looks_far=looks_far, up_to=up_to)):
            added += len(batch.versions)
            with database.writing() as connection:
                self._add_run(connection, path)
                if not changes.add_batch(connection, self._key(), path, batch):
                    return False
        if added >= sync.TRANSACTION:
            with database.writing() as connection:
                changes.analyze(connection)
        if known.next_version == 1 and not added and path not in self._listed:
            # A lost first manifest would make the whole run invisible, as numbers are asked for
            # in order: a training would begin anew without a word.
            self._listed.add(path)
            end = sync.last_listed(self._storage, path)
            return not end or self._is_synced(database, path, looks_far=looks_far, up_to=end)
        return True

    def _discover(self) -> list[str]:
        self._current()
        paths = walk(self._storage)
        known = self._unchanged(paths)
        self._filled |= known
        for path in paths:
            if path in known:
                continue
            # A look at each run's folder would make finding a thousand runs take twice as long.
            with suppress(JournalDamagedError):  # broken() tells
                self._sync(path, vouches=False)
        with self._opened().reading() as connection:
            return Reader(connection, self._key(), self._storage.url).present(paths)

    def _unchanged(self, paths: Sequence[str]) -> set[str]:
        """Return the runs whose rows are what a sync of each would leave, as one look tells."""
        found: set[str] = set()
        sound = [path for path in paths if path not in self._broken]
        for at in range(0, len(sound), RUNS_AT_ONCE):
            with self._current().reading() as connection:
                reader = Reader(connection, self._key(), self._storage.url)
                known = reader.settled(sound[at : at + RUNS_AT_ONCE])
            found.update(unchanged(self._storage, known))
        return found

    def _add_run(self, connection: Connection, path: str) -> None:
        changes.add_store(connection, self._storage.url, self._facts().store_id)
        changes.add_run(connection, self._key(), path)

    def _facts(self) -> StoreFacts:
        if self._store is None:
            self._store = store_facts(self._storage)
        return self._store

    def _key(self) -> str:
        return store_key(self._storage.url, self._facts().store_id)

    def _current(self) -> Database:
        """Return the database, opened anew if its file was deleted or replaced meanwhile."""
        database = self._opened()
        if database.is_gone():
            database.close()
            self._is_partial = True
            self._filled.clear()
            # The store may have gone with it, and another one have taken its place.
            self._store = None
            self._facts()
        return database

    def _opened(self) -> Database:
        # Nothing is made where there is no store.
        self._facts()
        if self._database is None:
            given = self._url
            url, makes_folder = (given, False) if given is not None else usual_place(self._storage)
            self._database = Database(url, timeout_s=self._timeout_s, makes_folder=makes_folder)
        return self._database
