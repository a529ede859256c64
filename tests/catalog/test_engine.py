from __future__ import annotations

import os
import sqlite3
import threading
import warnings
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy import exc as sql_errors

from ckptstore.catalog import revisions
from ckptstore.catalog.engine import TIMEOUT_S, Database, check_driver, parse_url
from ckptstore.errors import ArgumentError, CatalogError, MissingPackageError

SERVER = "postgresql+psycopg://me:secret@127.0.0.1:5432/team"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.sqlite3"


@pytest.fixture
def database(file):
    opened = Database(parse_url(f"sqlite:///{file}"), timeout_s=0.05)
    yield opened
    opened.close()


def server(url=SERVER):
    return Database(parse_url(url), timeout_s=TIMEOUT_S)


def pragma(connection, name):
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def add_store(connection, name):
    connection.execute(text("INSERT INTO stores VALUES (:name, 'url', 'id')"), {"name": name})


def stores(connection):
    return connection.execute(text("SELECT store FROM stores ORDER BY store")).scalars().all()


# ------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///index.sqlite3", "index.sqlite3"),
        ("sqlite:///./a/../index.sqlite3", "index.sqlite3"),
        ("sqlite:////data/index.sqlite3", "/data/index.sqlite3"),
        ("sqlite+pysqlite:///index.sqlite3", "index.sqlite3"),
    ],
)
def test_a_path_is_taken_from_where_we_are(tmp_path, monkeypatch, url, path):
    monkeypatch.chdir(tmp_path)

    assert parse_url(url).database == str(tmp_path / path)


def test_a_link_stays_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("link.sqlite3").symlink_to("elsewhere.sqlite3")

    assert parse_url("sqlite:///link.sqlite3").database == str(tmp_path / "link.sqlite3")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_has_no_path(url):
    database = Database(parse_url(url), timeout_s=TIMEOUT_S)

    assert database.is_memory
    assert database.path is None


def test_a_servers_database_is_no_path():
    assert parse_url(SERVER).database == "team"
    assert server().path is None
    assert not server().is_memory


@pytest.mark.parametrize(
    "url", ["catalog.sqlite3", "secret", "mysql://me:secret@host/db", ":secret@", ""]
)
def test_a_url_of_no_database_is_refused_without_repeating_it(url):
    with pytest.raises(ArgumentError, match=r"sqlite|SQLite") as caught:
        parse_url(url)

    assert "secret" not in str(caught.value)


# ------------------------------------------------------------ passwords


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (SERVER, "postgresql+psycopg://me:***@127.0.0.1:5432/team"),
        ("postgresql://host/team?password=secret&user=me", "postgresql://host/team"),
        ("postgresql://host/team?sslpassword=secret", "postgresql://host/team"),
    ],
)
def test_a_password_is_not_shown(url, place):
    assert server(url).place == place


def test_a_file_is_shown_as_its_path(database, file):
    assert database.place == str(file)


def refusing_server(monkeypatch, error):
    """Let an engine fail at its first connection as a server's driver does."""

    def no_server(*_, **__):
        engine = create_engine("sqlite://")
        engine.dialect.name = "postgresql"
        engine.dialect.connect = lambda *_, **__: (_ for _ in ()).throw(error)
        return engine

    monkeypatch.setattr("ckptstore.catalog.engine.create_engine", no_server)


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("password 'secret' is wrong"),
        sql_errors.ArgumentError("secret"),
    ],
    ids=["the driver's", "SQLAlchemy's own"],
)
def test_what_a_driver_says_is_not_repeated(monkeypatch, error):
    refusing_server(monkeypatch, error)

    with pytest.raises(CatalogError, match=r"me:\*\*\*@127\.0\.0\.1:5432/team failed") as caught:
        server().migrate()

    assert "secret" not in str(caught.value)


def test_parameters_are_not_shown_in_errors_of_sql(database):
    with pytest.raises(CatalogError) as caught, database.writing() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:it)"), {"it": "secret"})

    assert "has other tables than expected" in str(caught.value)
    assert "secret" not in str(caught.value) + str(caught.value.__cause__)


def test_a_missing_driver_is_named_with_its_install_command(monkeypatch):
    def without_driver(*_, **__):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr("ckptstore.catalog.engine.create_engine", without_driver)
    with pytest.raises(MissingPackageError, match=r"pip install 'psycopg\[binary\]'") as caught:
        server().migrate()

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "error", "package"),
    [
        (SERVER, ModuleNotFoundError("psycopg", name="psycopg"), r"psycopg\[binary\]"),
        (SERVER, ImportError("no pq wrapper available"), r"psycopg\[binary\]"),
        ("postgresql+psycopg2://host/db", ModuleNotFoundError("x"), "psycopg2-binary"),
    ],
)
def test_a_missing_driver_is_met_before_anything_is_opened(monkeypatch, url, error, package):
    def without_driver(*_, **__):
        raise error

    monkeypatch.setattr("ckptstore.catalog.engine.create_engine", without_driver)
    with pytest.raises(MissingPackageError, match=f"pip install '{package}'"):
        check_driver(parse_url(url))


def test_a_driver_that_is_there_is_taken_and_nothing_is_made(file):
    check_driver(parse_url(f"sqlite:///{file}"))

    assert not file.exists()


def test_an_unknown_driver_is_refused():
    with pytest.raises(ArgumentError, match=r"'postgresql\+nosuch'.*postgresql\+psycopg") as caught:
        server("postgresql+nosuch://me:secret@127.0.0.1/db").migrate()

    assert "secret" not in str(caught.value)


# ------------------------------------------------------------ transactions


def test_nothing_is_made_before_it_is_used(database, file):
    assert not database.is_gone()
    assert not file.exists()


def test_the_first_use_makes_the_tables(database, file):
    with database.reading() as connection:
        assert revisions.revision(connection) == revisions.HEAD
        assert stores(connection) == []
    assert file.is_file()


def test_connections_are_set_up_as_sqlite_needs_it(database):
    with database.reading() as connection:
        assert pragma(connection, "foreign_keys") == 1
        assert pragma(connection, "journal_mode") == "persist"
        assert pragma(connection, "synchronous") == 1
        assert pragma(connection, "busy_timeout") == 50


def test_a_transaction_that_writes_begins_as_one(database):
    """A writer that began by reading would lose updates: SQLite can't make it wait any more."""
    with database.reading():
        pass
    began = []
    with database.reading() as connection:
        connection.connection.driver_connection.set_trace_callback(began.append)

    with database.reading():
        pass
    with database.writing():
        pass

    assert [said for said in began if said.startswith("BEGIN")] == ["BEGIN", "BEGIN IMMEDIATE"]


def test_a_second_writer_waits_no_longer_than_told(database, file):
    with database.reading():
        pass
    other = Database(parse_url(f"sqlite:///{file}"), timeout_s=0.05)
    with (
        database.writing(),
        pytest.raises(CatalogError, match=r"stayed locked by another process for 0\.05 s"),
        other.writing(),
    ):
        pass
    with other.writing() as connection:
        add_store(connection, "later")
    other.close()

    with database.reading() as connection:
        assert stores(connection) == ["later"]


@pytest.mark.parametrize("timeout_s", [0.0, 0.05, 60])
def test_how_long_to_wait_may_change_between_transactions(database, timeout_s):
    with database.reading():
        pass
    database.timeout_s = timeout_s
    for use in (database.reading, database.writing):
        with use() as connection:
            told = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
            assert told == 1000 * timeout_s


def test_a_lock_that_was_not_waited_for_is_told_as_one(database, file):
    with database.reading():
        pass
    other = Database(parse_url(f"sqlite:///{file}"), timeout_s=0.0)
    with (
        database.writing(),
        pytest.raises(CatalogError, match="is still locked by another process"),
        other.writing(),
    ):
        pass
    assert other.was_locked
    other.close()


def test_a_lock_given_up_in_time_is_waited_for(database, file):
    with database.reading():
        pass
    patient = Database(parse_url(f"sqlite:///{file}"), timeout_s=60)
    waiting = threading.Event()

    def write():
        with patient.reading():
            pass
        waiting.set()
        with patient.writing() as connection:
            add_store(connection, "patient")

    thread = threading.Thread(target=write)
    with database.writing() as connection:
        thread.start()
        waiting.wait()
        add_store(connection, "first")
    thread.join()
    patient.close()

    with database.reading() as connection:
        assert stores(connection) == ["first", "patient"]


def test_readers_do_not_stop_each_other(database, file):
    other = Database(parse_url(f"sqlite:///{file}"), timeout_s=0.05)
    with database.reading() as one, other.reading() as two:
        assert stores(one) == stores(two) == []
    other.close()


def test_no_transaction_is_left_open(database, file):
    for use in (database.reading, database.writing):
        with use():
            pass
        other = sqlite3.connect(file, timeout=0)
        other.execute("BEGIN EXCLUSIVE")
        other.close()


def test_a_transaction_that_raises_leaves_nothing(database):
    def write_half():
        with database.writing() as connection:
            add_store(connection, "half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()

    with database.reading() as connection:
        assert stores(connection) == []


def test_a_row_without_what_it_belongs_to_is_refused(database):
    with pytest.raises(CatalogError, match="FOREIGN KEY"), database.writing() as connection:
        connection.execute(text("INSERT INTO runs (store, path) VALUES ('none', 'digits')"))


# ------------------------------------------------------------ one a process


def test_a_forked_child_opens_it_anew_and_leaves_the_parents_alone(database):
    with database.reading():
        pass
    engine = database._engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            with database.writing() as connection:
                add_store(connection, "child's")
            is_its_own = database._engine is not engine
            closed = []
            engine.dispose = lambda: closed.append(engine)
            database.close()
            status = 0 if is_its_own and not closed else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    with database.reading() as connection:
        assert stores(connection) == ["child's"]
    assert database._engine is engine


def test_what_a_child_inherited_is_never_closed(database, monkeypatch):
    """Closing a file gives up the locks that the parent has on it."""
    with database.reading() as connection:
        inherited = connection.connection.driver_connection
    monkeypatch.setattr("ckptstore.catalog.engine._inherited", kept := [])
    monkeypatch.setattr(os, "getpid", lambda: -1)

    database.close()

    assert len(kept) == 1
    assert inherited.execute("SELECT 1").fetchone() == (1,)
    kept[0].dispose()


def test_a_closed_database_opens_again(database):
    with database.writing() as connection:
        add_store(connection, "kept")
    database.close()
    database.close()

    with database.reading() as connection:
        assert stores(connection) == ["kept"]


def test_a_file_that_was_deleted_or_replaced_is_noticed(database, file):
    with database.reading():
        pass
    assert not database.is_gone()

    kept = file.read_bytes()
    file.unlink()
    assert database.is_gone()
    (file.parent / "new").write_bytes(kept)
    (file.parent / "new").replace(file)
    assert database.is_gone()

    database.close()
    assert not database.is_gone()
    with database.reading():
        assert not database.is_gone()


def test_the_folder_is_made_only_where_it_is_ours(tmp_path):
    url = parse_url(f"sqlite:///{tmp_path}/data/ckptstore/index.sqlite3")
    theirs = Database(url, timeout_s=TIMEOUT_S)
    with pytest.raises(CatalogError, match="see that its folder exists"), theirs.reading():
        pass
    assert list(tmp_path.iterdir()) == []

    ours = Database(url, timeout_s=TIMEOUT_S, makes_folder=True)
    with ours.reading() as connection:
        assert stores(connection) == []
    ours.close()


def test_tables_that_another_process_made_meanwhile_are_taken_as_they_are(tmp_path, monkeypatch):
    url = parse_url(f"sqlite:///{tmp_path}/catalog.sqlite3")
    slow, fast, begin = (
        Database(url, timeout_s=5),
        Database(url, timeout_s=5),
        Database._transaction,
    )

    def overtaken(self, *, writing):
        if self is slow and writing:
            monkeypatch.undo()
            with fast.writing():
                pass
        return begin(self, writing=writing)

    monkeypatch.setattr(Database, "_transaction", overtaken)
    with slow.writing() as connection:
        assert revisions.revision(connection) == revisions.HEAD
    slow.close()
    fast.close()
