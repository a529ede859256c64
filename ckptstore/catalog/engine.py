"""Opening a database, its transactions, and what its failures mean in words.

SQLite's transactions begin themselves: its Python driver otherwise starts them at the first write,
after what they decided on was read, and loses updates between processes.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy import exc as sql_errors
from sqlalchemy.pool import StaticPool

from ckptstore.catalog import revisions
from ckptstore.catalog.forking import transactions
from ckptstore.errors import ArgumentError, CatalogError, MissingPackageError
from ckptstore.storage.base import Storage

DIALECTS = ("sqlite", "postgresql")
LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
FILE_NAME = "catalog.sqlite3"
MEMORY = "sqlite://"
TIMEOUT_S = 5.0

# Connections that a forked child inherited: closing one would touch the parent's files and locks.
_inherited: list[Engine] = []


def parse_url(text: str) -> URL:
    """Return the address of a database; a relative SQLite path is taken from where we are now.

    Raises:
        ArgumentError: It is none. The message does not repeat it, as it may hold a password.
    """
    try:
        url = make_url(text)
    except sql_errors.ArgumentError as error:
        raise ArgumentError(
            "catalog= takes the URL of a database, such as 'sqlite:///catalog.sqlite3' or "
            "'postgresql+psycopg://host/database', and this is none"
        ) from error
    if url.get_backend_name() not in DIALECTS:
        raise ArgumentError(
            f"a catalog lives in SQLite or PostgreSQL, not in {url.get_backend_name()!r}"
        )
    path = url.database or ""
    if url.get_backend_name() == "sqlite" and path not in ("", ":memory:"):
        return url.set(database=os.path.abspath(path))  # noqa: PTH100 - a link stays one
    return url


def check_driver(url: URL) -> None:
    """Refuse a database whose driver is missing, before anything relies on it. Connects nowhere.

    Raises:
        MissingPackageError: The driver is not installed.
        ArgumentError: There is no such driver.
    """
    _create(url, _place(url)).dispose()


def usual_place(storage: Storage) -> tuple[URL, bool]:
    """Return where a store's catalog is by default, and whether its folder may have to be made.

    Beside a local store, in the user's data folder for a remote one, in memory for one in memory.
    """
    if storage.local_folder is not None:
        path = Path(storage.local_folder) / FILE_NAME
        return URL.create("sqlite", database=str(path.absolute())), False
    if storage.url.startswith("memory://"):
        return parse_url(MEMORY), False
    import platformdirs

    path = Path(platformdirs.user_data_dir("ckptstore")) / FILE_NAME
    return URL.create("sqlite", database=str(path)), True


class Database:
    """A database of catalogs, opened at its first use, once in each process.

    Not thread-safe: its one user holds a lock. Every method raises
    :class:`~ckptstore.errors.CatalogError` when the database fails.

    Args:
        url: Where it is.
        timeout_s: How long to wait for another process's lock.
        makes_folder: Whether the folder of its file is ours to make.
    """

    def __init__(self, url: URL, *, timeout_s: float, makes_folder: bool = False) -> None:
        self.place = _place(url)
        """Where it is, for people."""
        self._url = url
        self.timeout_s = timeout_s
        """How long to wait for another process's lock; may be changed between transactions."""
        self._makes_folder = makes_folder
        self._engine: Engine | None = None
        self._pid = 0
        self._identity: tuple[int, int] | None = None
        self._is_current = False
        self.is_read_only = False
        """Whether it was found that it can't be written: normal for who only reads."""
        self.was_locked = False
        """Whether another process's lock was met since this was last set to False."""
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.path: Path | None = None
        """The file, if it is one."""
        if self.is_sqlite and url.database and url.database != ":memory:":
            self.path = Path(url.database)
            self.place = str(self.path)

    @property
    def is_memory(self) -> bool:
        """Whether it is gone when the process is."""
        return self.is_sqlite and self.path is None

    def is_gone(self) -> bool:
        """Say whether its file was deleted or replaced since it was opened."""
        if self._identity is None or self.path is None:
            return False
        return self._identity != _identity(self.path)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads; the tables are there."""
        self._make_current()
        with self._transaction(writing=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that nobody else's can run into; the tables are there."""
        self._make_current()
        with self._transaction(writing=True) as connection:
            yield connection

    def migrate(self) -> tuple[str | None, str]:
        """Bring the tables up to date, in one transaction and under a lock.

        Returns:
            The revision they had, None if there were none, and the one they have.
        """
        with self._transaction(writing=True) as connection:
            if not self.is_sqlite:
                revisions.lock(connection)
            found = revisions.revision(connection)
            if found != revisions.HEAD:
                revisions.upgrade(connection, found, self.place)
        return found, revisions.HEAD

    def close(self) -> None:
        """Let go of it; the next use opens it again."""
        engine, self._engine = self._engine, None
        self._identity, self._is_current = None, False
        if engine is None:
            return
        if self._pid == os.getpid():
            engine.dispose()
        else:
            _inherited.append(engine)

    def _make_current(self) -> None:
        """See once that the tables are those of this ckptstore; in SQLite make them so."""
        if self._is_current and self._pid == os.getpid():
            return
        with self._transaction(writing=False) as connection:
            found = revisions.revision(connection)
        if found != revisions.HEAD:
            if not self.is_sqlite:
                revisions.check_known(found, self.place)
                raise CatalogError(
                    f"the catalog {self.place} has {_tables(found)}, and this ckptstore needs "
                    f"those of revision {revisions.HEAD}: a shared database is migrated by hand, "
                    "with 'ckptstore migrate URL'"
                )
            with self._transaction(writing=True) as connection:
                found = revisions.revision(connection)
                if found is None:
                    revisions.create(connection)
                elif found != revisions.HEAD:
                    revisions.upgrade(connection, found, self.place)
        self._is_current = True

    @contextmanager
    def _transaction(self, *, writing: bool) -> Iterator[Connection]:
        with transactions.inside(), self._translated():
            engine = self._open()
            options: dict[str, Any] = {"ckptstore_writing": writing}
            if engine.dialect.name != "sqlite" and not writing:
                # What two queries of one question see must agree, as it always does in SQLite.
                options["isolation_level"] = "REPEATABLE READ"
            with engine.connect().execution_options(**options) as connection:
                with connection.begin():
                    yield connection
                if self.path is not None and self._identity is None:
                    self._identity = _identity(self.path)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what a database raises into one of our errors."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from error
        except sql_errors.DBAPIError as error:
            raise self._explain(error.orig) from error
        except sql_errors.SQLAlchemyError as error:
            raise CatalogError(
                f"the catalog {self.place} failed: {type(error).__name__}"
            ) from error

    def _open(self) -> Engine:
        if self._engine is not None and self._pid == os.getpid():
            return self._engine
        self.close()
        self._pid = os.getpid()
        if self._makes_folder:
            self._make_folder()
        options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 0}
        if self.is_sqlite:
            arguments = {"timeout": self.timeout_s, "check_same_thread": False}
            options = {"poolclass": StaticPool, "connect_args": arguments}
        engine = _create(self._url, self.place, **options)
        if self.is_sqlite:
            event.listen(engine, "connect", self._prepare_sqlite)
            event.listen(engine, "begin", self._begin_sqlite)
        self._engine = engine
        return engine

    def _prepare_sqlite(self, connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {1000 * self.timeout_s:.0f}")
        # Not WAL: SQLite before 3.51.3 can lose a reset of it, and it never works over NFS.
        # Adding a version takes 1.2 ms so, 1.6 ms with DELETE and FULL, which are the defaults. On
        # some filesystems a power loss could damage the file in this mode: then it is rebuilt.
        connection.execute("PRAGMA journal_mode = PERSIST")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    def _begin_sqlite(self, connection: Connection) -> None:
        writing = connection.get_execution_options().get("ckptstore_writing")
        driver = connection.connection.driver_connection
        if driver is not None:
            # Not through SQLAlchemy, which takes longer over it than SQLite does.
            driver.execute(f"PRAGMA busy_timeout = {1000 * self.timeout_s:.0f}")
            driver.execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    def _make_folder(self) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.is_read_only = error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}
            raise _failure(
                self.place,
                f"has no folder, and it cannot be made ({error.strerror})",
                "name another place with catalog=",
            ) from error

    def _explain(self, error: BaseException | None) -> CatalogError:
        """Return what failed and what to do, without what a driver says: it may name secrets."""
        code = getattr(error, "sqlite_errorcode", None)
        if not self.is_sqlite or code is None:
            found = f"failed ({type(error).__name__})"
            advice = "see that the server runs, is reachable and lets you in"
            return _failure(self.place, found, advice)
        primary = code & 0xFF
        if primary in LOCKED:
            self.was_locked = True
            found = f"stayed locked by another process for {self.timeout_s:g} s"
            if not self.timeout_s:
                found = "is still locked by another process"
            advice = "see which program holds it; it catches up once it is free"
        elif primary in DAMAGED:
            found, advice = f"is damaged ({error})", "delete it: it is rebuilt from the store"
        elif primary == sqlite3.SQLITE_READONLY or (
            primary == sqlite3.SQLITE_CANTOPEN and self._cannot_write()
        ):
            found, advice = "cannot be written here", "name a place that can, with catalog="
            self.is_read_only = True
        elif primary == sqlite3.SQLITE_CANTOPEN:
            found = "cannot be opened"
            advice = "see that its folder exists and that no folder has its name"
        elif primary == sqlite3.SQLITE_ERROR:
            found = f"has other tables than expected ({error})"
            advice = "delete it: it is rebuilt from the store"
        else:
            found, advice = f"failed ({error})", "see that its disk works and has room"
        return _failure(self.place, found, advice)

    def _cannot_write(self) -> bool:
        """Say whether the file can't be written or made, in a folder that exists."""
        if self.path is None or not self.path.parent.is_dir() or self.path.is_dir():
            return False
        target = self.path if self.path.exists() else self.path.parent
        return not os.access(target, os.W_OK)


def _create(url: URL, place: str, **options: Any) -> Engine:
    try:
        # Parameters hold people's configurations: they have no place in a log.
        return create_engine(url, hide_parameters=True, **options)
    except ImportError as error:  # also of a driver that lacks a library of its own
        package = DRIVERS.get(url.get_driver_name(), url.get_driver_name())
        raise MissingPackageError(
            f"the catalog {place} needs a driver that is not installed: pip install '{package}'"
        ) from error
    except sql_errors.NoSuchModuleError as error:
        raise ArgumentError(
            f"SQLAlchemy knows no driver {url.drivername!r}: for PostgreSQL write "
            "'postgresql+psycopg://…'"
        ) from error


def _place(url: URL) -> str:
    # What follows '?' may hold a password too.
    return url.set(query={}).render_as_string(hide_password=True)


def _failure(place: str, found: str, advice: str) -> CatalogError:
    return CatalogError(f"the catalog {place} {found}: {advice}")


def _tables(revision: str | None) -> str:
    return "no tables yet" if revision is None else f"tables of revision {revision}"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
