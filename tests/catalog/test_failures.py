"""A catalog that fails: no save fails with it, and no read loses anything."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import create_engine

from ckptstore.catalog.engine import Database
from ckptstore.catalog.index import Catalog
from ckptstore.errors import (
    CatalogError,
    CatalogWarning,
)
from ckptstore.format.layout import version_key
from ckptstore.storage.local import LocalStorage
from tests.catalog.places import (
    DictStorage,
    commit,
    found_store,
    make_head,
    note,
    rows_of_file,
    tag_entry,
    versions_of,
)
from tests.catalog.processes import add_versions, hold_lock

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def place(tmp_path):
    """A local store with two versions and an index of both."""
    storage = LocalStorage(tmp_path / "store")
    found_store(storage)
    for version in (1, 2):
        commit(storage, make_head("digits", version))
    note(storage, "digits", 1, tag_entry("prod", 1))
    catalog = Catalog(None, storage)
    catalog.sync("digits")
    catalog.close()
    return storage


def database_of(storage: LocalStorage) -> Path:
    assert storage.local_folder is not None
    return Path(storage.local_folder) / "catalog.sqlite3"


@contextmanager
def opened(storage, url=None, **options):
    catalog = Catalog(url, storage, **options)
    yield catalog
    catalog.close()


@contextmanager
def locked(database, tmp_path, seconds=60.0):
    ready = tmp_path / "locked"
    process = SPAWN.Process(target=hold_lock, args=(str(database), str(ready), seconds))
    process.start()
    while not ready.exists():
        assert process.is_alive()
        time.sleep(0.01)
    yield process
    process.terminate()
    process.join()


def check_reads(catalog):
    """Ask everything a reader asks."""
    catalog.sync("digits")
    assert versions_of(catalog.history(["digits"])) == [1, 2]
    assert catalog.latest("digits", "checkpoint").version == 2
    assert catalog.best(["digits"], "val_loss", "min").version == 2
    assert catalog.tagged("digits", "prod").version == 1
    assert catalog.next_numbers("digits") == (3, 2)
    assert catalog.discover() == ["digits"]


# ------------------------------------------------------------ where it is


def test_the_default_place_is_beside_a_local_store(place):
    assert database_of(place).is_file()


def test_the_default_place_of_a_remote_store_is_the_users_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    storage = DictStorage("s3://bucket/prefix")
    catalog = Catalog(None, storage)
    assert list(tmp_path.iterdir()) == []
    found_store(storage)
    catalog.sync("digits")
    catalog.close()

    assert (tmp_path / "data" / "ckptstore" / "catalog.sqlite3").is_file()


def test_a_store_in_memory_has_its_catalog_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    storage = DictStorage("memory://store")
    found_store(storage)
    commit(storage, make_head("digits", 1))
    with opened(storage) as catalog:
        catalog.sync("digits")
        assert catalog.latest("digits", None).version == 1

    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_means_the_folder_of_the_call(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opened(place, "sqlite:///index.sqlite3") as catalog:
        monkeypatch.chdir("/")
        catalog.sync("digits")

    assert (tmp_path / "index.sqlite3").is_file()


def test_opening_makes_nothing(tmp_path):
    storage = LocalStorage(tmp_path / "store")
    with opened(storage), opened(storage, f"sqlite:///{tmp_path}/index.sqlite3"):
        pass

    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------ several processes


def test_eight_processes_add_at_once_and_none_is_lost(tmp_path):
    """They also race to create the database."""
    storage = LocalStorage(tmp_path / "store")
    found_store(storage)
    processes = [
        SPAWN.Process(target=add_versions, args=(storage.local_folder, "digits", 4))
        for _ in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 8
    found = rows_of_file(database_of(storage))
    assert sorted(row[2] for row in found["versions"]) == list(range(1, 33))
    assert len(found["metrics"]) == 32
    database_of(storage).unlink()
    with opened(storage) as fresh:
        fresh.discover()
    assert rows_of_file(database_of(storage)) == found


@pytest.mark.parametrize("url", [None, "sqlite://"])
def test_a_forked_child_has_a_connection_of_its_own(place, url):
    with opened(place, url) as catalog:
        catalog.sync("digits")
        engine = catalog._opened()._engine
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                check_reads(catalog)
                head = make_head("digits", 3)
                catalog.add(commit(place, head), head)
                assert catalog.latest("digits", None).version == 3
                assert catalog._opened()._engine is not engine
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        catalog.sync("digits")
        assert catalog.latest("digits", None).version == 3


# ------------------------------------------------------------ locked


def test_reading_a_locked_catalog_warns_once_and_loses_nothing(place, tmp_path):
    with (
        locked(database_of(place), tmp_path),
        opened(place, timeout_s=0.05) as catalog,
    ):
        with pytest.warns(
            CatalogWarning, match=r"catalog\.sqlite3 stayed locked.*0\.05 s"
        ) as caught:
            check_reads(catalog)
        assert len(caught) == 1
        check_reads(catalog)


def test_adding_to_a_locked_catalog_says_so_and_the_next_sync_catches_up(place, tmp_path):
    with opened(place, timeout_s=0.05) as catalog:
        catalog.sync("digits")
        head = make_head("digits", 3)
        line = commit(place, head)
        with (
            locked(database_of(place), tmp_path),
            pytest.raises(CatalogError, match="stayed locked by another process"),
        ):
            catalog.add(line, head)
        catalog.sync("digits")

        assert catalog.latest("digits", None).version == 3
    assert len(rows_of_file(database_of(place))["versions"]) == 3


def test_a_lock_waited_for_in_vain_holds_no_save_up_again_for_a_minute(
    place, tmp_path, monkeypatch
):
    now, waits, writing = [0.0], [], Database.writing

    def watched(database):
        waits.append(database.timeout_s)
        return writing(database)

    with opened(place, timeout_s=0.05) as catalog:
        catalog.sync("digits")
        monkeypatch.setattr(Database, "writing", watched)
        monkeypatch.setattr("ckptstore.catalog.index.monotonic", lambda: now[0])
        heads = [make_head("digits", number) for number in range(3, 8)]
        lines = [commit(place, head) for head in heads]
        with locked(database_of(place), tmp_path):
            for place_in_time, head, line in zip((0, 1, 59, 61), heads, lines, strict=False):
                now[0] = place_in_time
                with pytest.raises(CatalogError, match=r"stayed locked|is still locked"):
                    catalog.add(line, head)
        assert waits == [0.05, 0.0, 0.0, 0.05]

        now[0] = 62
        catalog.add(lines[4], heads[4])  # tries all the same, and catches up
    assert len(rows_of_file(database_of(place))["versions"]) == 7


def test_who_reads_waits_for_a_lock_that_a_save_waited_for_in_vain(place, tmp_path):
    with opened(place, timeout_s=0.05) as catalog:
        catalog.sync("digits")
        head = make_head("digits", 3)
        line = commit(place, head)
        with locked(database_of(place), tmp_path):
            for _ in range(2):
                with pytest.raises(CatalogError):
                    catalog.add(line, head)
        assert catalog._database.timeout_s == 0.05
        catalog.sync("digits")
        assert not catalog._database.is_memory


def test_a_lock_that_is_soon_given_up_is_waited_for(place, tmp_path):
    with locked(database_of(place), tmp_path, seconds=0.3), opened(place, timeout_s=60) as catalog:
        check_reads(catalog)


# ------------------------------------------------------------ damaged


def overwrite(database, kind):
    data = database.read_bytes()
    database.write_bytes(
        {
            "garbage": b"no database at all " * 400,
            "truncated": data[:5000],
            "scribbled": data[:100] + b"\xff" * (len(data) - 100),
            "empty": b"",
        }[kind]
    )


@pytest.mark.parametrize("kind", ["garbage", "truncated", "scribbled"])
def test_a_damaged_catalog_is_passed_over_with_the_advice_to_delete_it(place, kind):
    overwrite(database_of(place), kind)
    before = database_of(place).read_bytes()
    head = make_head("digits", 3)
    with opened(place) as catalog:
        with pytest.raises(CatalogError, match="damaged"):
            catalog.add(encode := commit(place, head), head)
        place_of_three = Path(place.local_folder, version_key("digits", 3))
        place_of_three.unlink()
        with pytest.warns(CatalogWarning, match=r"is damaged.*delete it: it is rebuilt") as caught:
            check_reads(catalog)
        assert len(caught) == 1
        commit(place, head)
        catalog.add(encode, head)
        assert catalog.latest("digits", None).version == 3
    assert database_of(place).read_bytes() == before


def test_an_empty_file_becomes_a_catalog(place):
    before = rows_of_file(database_of(place))
    overwrite(database_of(place), "empty")
    with opened(place) as catalog:
        check_reads(catalog)

    assert rows_of_file(database_of(place)) == before


def test_a_catalog_damaged_while_open_is_passed_over(place):
    with opened(place) as catalog:
        check_reads(catalog)
        with database_of(place).open("r+b") as file:
            file.seek(24)
            # A new change counter, so that SQLite reads its pages again.
            file.write(b"\xff\xff\xff\xff")
            file.seek(4096)
            file.write(b"\xff" * (database_of(place).stat().st_size - 4096))
        with pytest.warns(CatalogWarning, match="is damaged"):
            check_reads(catalog)


def test_a_query_may_be_the_first_to_meet_the_damage(place):
    overwrite(database_of(place), "garbage")
    with opened(place) as catalog, pytest.warns(CatalogWarning, match="is damaged"):
        assert catalog.latest("digits", None).version == 2


def test_other_tables_by_the_same_names_are_passed_over(place):
    database_of(place).unlink()
    with sqlite3.connect(database_of(place)) as other:
        other.execute("CREATE TABLE versions (title TEXT)")
    other.close()
    with opened(place) as catalog, pytest.warns(CatalogWarning, match="other tables than expected"):
        check_reads(catalog)

    assert (
        "title"
        in sqlite3.connect(database_of(place))
        .execute("SELECT sql FROM sqlite_master")
        .fetchone()[0]
    )


def test_a_folder_in_its_place_is_passed_over(place):
    database_of(place).unlink()
    database_of(place).mkdir()
    with opened(place) as catalog, pytest.warns(CatalogWarning, match="cannot be opened"):
        check_reads(catalog)


def test_a_missing_folder_is_passed_over(place, tmp_path):
    url = f"sqlite:///{tmp_path}/no/such/index.sqlite3"
    with opened(place, url) as catalog, pytest.warns(CatalogWarning, match="its folder exists"):
        check_reads(catalog)


def test_a_data_folder_that_cannot_be_made_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    storage = DictStorage("s3://bucket")
    found_store(storage)
    with opened(storage) as catalog, pytest.warns(CatalogWarning, match="cannot be made"):
        catalog.sync("digits")


def test_a_server_that_is_down_is_passed_over_without_naming_a_secret(place, monkeypatch):
    def no_server(*_, **__):
        engine = create_engine("sqlite:////no/such/folder/file")
        engine.dialect.name = "postgresql"
        return engine

    monkeypatch.setattr("ckptstore.catalog.engine.create_engine", no_server)
    head = make_head("digits", 3)
    line = commit(place, head)
    with (
        opened(place, "postgresql+psycopg://me:secret@127.0.0.1/db") as catalog,
        pytest.raises(CatalogError) as caught,
    ):
        catalog.add(line, head)

    assert "secret" not in str(caught.value)
    assert "me:***@127.0.0.1/db failed (OperationalError)" in str(caught.value)


def test_a_full_disk_delays_the_index(place):
    with opened(place) as catalog:
        catalog.sync("digits")
        with catalog._opened().reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        head = make_head("digits", 3, config={"long": "x" * 100_000})
        line = commit(place, head)
        with pytest.raises(CatalogError, match=r"full.*see that its disk works and has room"):
            catalog.add(line, head)


def test_storage_that_fails_while_catching_up_does_not_fail_the_save(storage):
    with opened(storage, "sqlite://") as catalog:
        catalog.sync("digits")
        for version in (1, 2):
            line = commit(storage, head := make_head("digits", version))
        storage.is_down = True
        with pytest.raises(CatalogError, match="digits@2 is saved, but not indexed yet"):
            catalog.add(line, head)


# ------------------------------------------------------------ gone


def test_a_deleted_catalog_is_rebuilt(place):
    before = rows_of_file(database_of(place))
    database_of(place).unlink()
    with opened(place) as catalog:
        check_reads(catalog)

    assert rows_of_file(database_of(place)) == before


def test_a_catalog_deleted_while_open_is_rebuilt(place):
    with opened(place) as catalog:
        check_reads(catalog)
        before = rows_of_file(database_of(place))
        database_of(place).unlink()
        assert catalog.latest("digits", None).version == 2
        check_reads(catalog)
        assert rows_of_file(database_of(place)) == before

        database_of(place).unlink()
        head = make_head("digits", 3)
        catalog.add(commit(place, head), head)
    assert len(rows_of_file(database_of(place))["versions"]) == 3


def test_a_store_deleted_and_made_anew_while_open_is_another(place):
    with opened(place) as catalog:
        check_reads(catalog)
        database_of(place).unlink()
        for file in sorted(Path(place.local_folder).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        found_store(LocalStorage(place.local_folder), 2)
        commit(place, make_head("other", 1))
        catalog.sync("digits")
        catalog.sync("other")

        assert catalog.history(["digits"]) == []
    found = rows_of_file(database_of(place))
    assert [row[2] for row in found["stores"]] == [str(UUID(int=2))]
    assert [row[1] for row in found["versions"]] == ["other"]


# ------------------------------------------------------------ read-only


@pytest.fixture
def read_only(monkeypatch):
    """Make every file read-only for SQLite; permissions would not stop root."""
    connect = sqlite3.connect

    def refusing(database, **options):
        if database == ":memory:":
            return connect(database, **options)
        return connect(f"file:{database}?mode=ro", uri=True, **options)

    def begin():
        monkeypatch.setattr("sqlite3.dbapi2.connect", refusing)
        monkeypatch.setattr(sqlite3, "connect", refusing)
        monkeypatch.setattr(os, "access", lambda *_, **__: False)

    return begin


@pytest.mark.parametrize("found", ["current", "behind", "none"])
def test_a_read_only_place_is_read_without_a_warning(place, read_only, found):
    database = database_of(place)
    if found == "none":
        database.unlink()
    if found == "behind":
        database.unlink()
        sqlite3.connect(database).execute("CREATE TABLE other (a)").connection.close()
    before = database.read_bytes() if database.exists() else None
    read_only()
    with opened(place) as catalog:
        check_reads(catalog)
        head = make_head("digits", 3)
        if found == "current":
            line = commit(place, head)
            with pytest.raises(CatalogError, match="cannot be written here"):
                catalog.add(line, head)
            catalog.sync("digits")
            assert catalog.latest("digits", None).version == 3

    assert (database.read_bytes() if database.exists() else None) == before
