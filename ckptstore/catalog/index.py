"""The catalog of one store: an index that lags at worst, and never stands in the way.

Writing to it may fail, and says so. Reading never does on its account: where the database is
locked, damaged or can't be written, an index in memory is filled from the storage instead.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import URL, Connection

from ckptstore.catalog import changes, later, live, raw
from ckptstore.catalog.engine import MEMORY, TIMEOUT_S, Database, check_driver, parse_url
from ckptstore.catalog.later import Child, Counts, TagMove
from ckptstore.catalog.live import LiveVersion, SaveState
from ckptstore.catalog.queries import Damaged, Reader
from ckptstore.catalog.rows import from_head
from ckptstore.catalog.stores import missing
from ckptstore.catalog.sync import RunReader, walk
from ckptstore.catalog.tables import store_key
from ckptstore.entry import Record
from ckptstore.errors import CatalogError, CatalogWarning, CkptStoreError, warn
from ckptstore.format.facts import Facts, Mode, Settings, VersionFacts
from ckptstore.format.journal import LogEntry
from ckptstore.format.layout import STORE_KEY, version_key
from ckptstore.format.manifest import Head
from ckptstore.format.store_facts import StoreFacts, decode_store
from ckptstore.storage.base import Storage

FILE_NAME = "catalog.sqlite3"
PAGE = 16
HURRY_S = 60.0
"""How long no save waits for a lock again that one has waited for in vain."""

Found = TypeVar("Found")


class Catalog:
    """What is known of a store's runs without reading the storage again.

    Thread-safe, and usable in forked children. Nothing is opened or made before it is used, and
    nothing is made where there is no store. Runs are named by their paths: lower case.

    Every query answers from what is indexed: call :meth:`sync` first. Queries raise
    :class:`~ckptstore.errors.NewerFormatError` when a version that a newer ckptstore made could be
    part of the answer.

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
        self._storage = storage
        self._timeout_s = timeout_s
        self._url = None if url is None else parse_url(url)
        if self._url is not None:
            check_driver(self._url)
        self._database: Database | None = None
        self._store: StoreFacts | None = None
        self._is_partial = False
        """Whether the database began empty in our hands: it knows but what we synced since."""
        self._filled: set[str] = set()
        """Runs that were synced since."""
        self._found_damaged: set[str] = set()
        """Save ids of versions that this process found damaged."""
        self._hurry_until = -math.inf
        self._pid = os.getpid()
        self._lock = threading.RLock()

    # ------------------------------------------------------------ keeping up

    def sync(self, path: str) -> None:
        """Index what is new in a run: its next versions and journal entries, until there are none.

        Raises:
            NotAStoreError: There is no store.
            IntegrityError: A journal entry or ``ckptstore.json`` is damaged.
            NewerFormatError: A newer ckptstore made the store or a journal entry.
            StorageError: The storage failed.
        """
        with self._alone():
            self._despite_failures(lambda: self._sync(path))

    def discover(self) -> list[str]:
        """Find all runs in the storage and index what is new in each.

        Returns:
            The paths of those that have a version or a journal entry, sorted.

        Raises:
            CkptStoreError: As :meth:`sync`.
        """
        with self._alone():
            return self._despite_failures(self._discover)

    def forget(self) -> None:
        """Look at the storage again: the store may have been deleted or replaced meanwhile."""
        with self._alone():
            self._store = None
            self._filled.clear()

    def reindex(self) -> list[str]:
        """Forget all that is indexed of this store and index it again, damaged versions too.

        Returns:
            The paths of its runs.

        Raises:
            CatalogError: The database failed.
            CkptStoreError: As :meth:`sync`.
        """
        with self._alone():
            database = self._current()
            with database.writing() as connection:
                changes.remove_store(connection, self._key())
            self._filled.clear()
            return self._discover()

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

    # ------------------------------------------------------------ asking

    def run_name(self, path: str) -> str | None:
        """Return a run's spelling, None if it has no intact version."""
        return self._read([path], lambda reader: reader.run_name(path))

    def settings(self, path: str) -> Settings | None:
        """Return a run's recorded settings, None if there are none."""
        return self.facts(path).settings

    def facts(self, path: str, versions: Sequence[int] = ()) -> Facts:
        """Return what a run's journal adds up to; of its versions only what these have.

        Unlike a :func:`~ckptstore.format.journal.fold`, versions that are not there are left out,
        and those that are have their tags.
        """
        return self._read([path], lambda reader: reader.facts(path, versions))

    def version_facts(self, path: str, number: int) -> VersionFacts | None:
        """Return what was recorded later about a version, None if there is no such version."""
        return self._read([path], lambda reader: reader.about(path, number))

    def next_numbers(self, path: str) -> tuple[int, int]:
        """Return the next version and the next journal entry of a run."""
        return self._read([path], lambda reader: reader.next_numbers(path))

    def version(self, path: str, number: int) -> Record | None:
        """Return a version, retired or damaged or not."""
        return self._read([path], lambda reader: reader.version(path, number))

    def tagged(self, path: str, tag: str) -> Record | None:
        """Return the version that a tag points at, damaged or not."""
        return self._read([path], lambda reader: reader.tagged(path, tag))

    def latest(self, path: str, kind: str | None) -> Record | None:
        """Return the live version of that kind (None: any) with the highest number.

        Versions whose data are known to be damaged are passed over. One whose manifest can't be
        read is not, and counts as any kind, since nobody knows what it was.
        """
        return next(self.newest_first(path, kind), None)

    def newest_first(self, path: str, kind: str | None) -> Iterator[Record]:
        """Yield versions as :meth:`latest` would name them if the newer ones were not there."""
        before, size = 2**63 - 1, 1
        while page := self._page(path, kind, before, size):
            yield from page
            before, size = page[-1].version, PAGE

    def best(
        self, paths: Sequence[str], metric: str, mode: Mode, kind: str | None = "checkpoint"
    ) -> Record | None:
        """Return the live version with the best value of a metric, None if none has a usable one.

        NaN and damaged versions are passed over. Ties go to the earlier version: within a run the
        lower number, between runs the earlier ``created_at``, then the path.
        """
        return next(self.best_first(paths, metric, mode, kind), None)

    def best_first(
        self, paths: Sequence[str], metric: str, mode: Mode, kind: str | None = "checkpoint"
    ) -> Iterator[Record]:
        """Yield versions as :meth:`best` would name them if the better ones were not there."""
        passed: list[str] = []

        def find(reader: Reader) -> Record | None:
            without = [*passed, *self._found_damaged]
            best = reader.best(paths, metric, mode, kind, without)
            return None if best is None else reader.version(best.path, best.version)

        while (found := self._read(paths, find)) is not None:
            yield found
            if found.head is None:
                return
            passed.append(str(found.head.save_id))

    def metric_names(self, paths: Sequence[str], kind: str | None) -> list[str]:
        """Return the names of all metrics of these runs' live versions, sorted."""
        return self._read(paths, lambda reader: reader.metric_names(paths, kind))

    def damaged(self, paths: Sequence[str]) -> list[Damaged]:
        """Return the live versions that are known to be damaged, ascending by path and number.

        Their manifests can't be read, a check found it, or this process did.
        """
        return self._read(paths, lambda reader: reader.damaged(paths, self._found_damaged))

    def pass_over(self, save_id: UUID) -> None:
        """Leave a version that was found damaged out of :meth:`best` and :meth:`latest`.

        In this process only; it is recorded for all by a
        :class:`~ckptstore.format.journal.DamageEntry`.
        """
        with self._alone():
            self._found_damaged.add(str(save_id))

    def is_passed_over(self, save_id: UUID) -> bool:
        """Say whether this process found a version damaged."""
        return str(save_id) in self._found_damaged

    def history(
        self, paths: Sequence[str], *, kind: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """Return versions ascending by path and number, retired and damaged ones too.

        With *limit* only the newest: by number in one run, by ``created_at`` in several.
        """
        return self._read(paths, lambda reader: reader.history(paths, kind=kind, limit=limit))

    def live(self, path: str) -> list[LiveVersion]:
        """Return what retention decides on: a run's live versions, ascending.

        Those whose manifests can't be read are left out.
        """

        def find(reader: Reader) -> list[LiveVersion]:
            reader.refuse_newer([path])
            return live.live(reader.connection, reader.store, path, self._found_damaged)

        return self._read([path], find)

    def save_state(self, path: str, save_id: UUID) -> SaveState | None:
        """Return which version of a run a save became, None if none that is indexed."""
        return self._read(
            [path],
            lambda reader: live.save_state(reader.connection, reader.store, path, str(save_id)),
        )

    def children(self, path: str) -> dict[int, list[Child]]:
        """Return the versions of other runs that come from this run's, by its versions."""
        return self._read(
            [path], lambda reader: later.children(reader.connection, reader.store, path)
        )

    def tag_history(self, path: str, tag: str | None = None) -> list[TagMove]:
        """Return how a run's tags (or one of them) moved, in the journal's order."""
        return self._read(
            [path], lambda reader: later.tag_history(reader.connection, reader.store, path, tag)
        )

    def logged(self, path: str) -> list[LogEntry]:
        """Return what was logged of epochs and steps without weights, in the journal's order."""
        return self._read(
            [path], lambda reader: later.logged(reader.connection, reader.store, path)
        )

    def indexed_counts(self) -> dict[str, Counts]:
        """Return how much is indexed of each run of this store, by path."""
        return self._read([], lambda reader: later.indexed_counts(reader.connection, reader.store))

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

    def _page(self, path: str, kind: str | None, before: int, size: int) -> list[Record]:
        return self._read(
            [path],
            lambda reader: reader.newest(
                path, kind, before=before, limit=size, without=self._found_damaged
            ),
        )

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

    def _sync(self, path: str) -> None:
        database = self._current()
        while not self._is_synced(database, path):
            pass  # another process began to index this store anew meanwhile
        self._filled.add(path)

    def _is_synced(self, database: Database, path: str) -> bool:
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
            return False
        # The storage is read outside of transactions: it may take long.
        for batch in reader.batches(known):
            with database.writing() as connection:
                self._add_run(connection, path)
                if not changes.add_batch(connection, self._key(), path, batch):
                    return False
        return True

    def _discover(self) -> list[str]:
        self._current()
        paths = walk(self._storage)
        for path in paths:
            self._sync(path)
        with self._opened().reading() as connection:
            return Reader(connection, self._key(), self._storage.url).present(paths)

    def _add_run(self, connection: Connection, path: str) -> None:
        changes.add_store(connection, self._storage.url, self._facts().store_id)
        changes.add_run(connection, self._key(), path)

    def _facts(self) -> StoreFacts:
        if self._store is None:
            where = f"{self._storage.url}/{STORE_KEY}"
            try:
                data = self._storage.read(STORE_KEY)
            except FileNotFoundError as error:
                raise missing(self._storage) from error
            self._store = decode_store(data, where)
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
            url, makes_folder = self._place()
            self._database = Database(url, timeout_s=self._timeout_s, makes_folder=makes_folder)
        return self._database

    def _place(self) -> tuple[URL, bool]:
        """Return where the database is, and whether its folder may have to be made."""
        if self._url is not None:
            return self._url, False
        if self._storage.local_folder is not None:
            path = Path(self._storage.local_folder) / FILE_NAME
            return URL.create("sqlite", database=str(path.absolute())), False
        if self._storage.url.startswith("memory://"):
            return parse_url(MEMORY), False
        import platformdirs

        path = Path(platformdirs.user_data_dir("ckptstore")) / FILE_NAME
        return URL.create("sqlite", database=str(path)), True
