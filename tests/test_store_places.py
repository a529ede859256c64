"""Places that hold no store, catalogs in trouble: nothing is lost, and looking makes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import warnings

import pytest

from ckptstore import Store
from ckptstore.errors import (
    CatalogWarning,
    CkptStoreError,
    IntegrityError,
    MissingPackageError,
    NewerFormatError,
    NotAStoreError,
    StorageError,
)
from ckptstore.format.sealed import seal
from ckptstore.storage.local import LocalStorage
from tests.loading.storages import Watched, store_on
from tests.loading.trainings import Net, Training, same

READS = {
    "history": lambda store: store.history(),
    "best": lambda store: store.best(),
    "latest": lambda store: store.latest(),
    "get": lambda store: store.get("digits@1"),
    "load_best": lambda store: store.load_best(Net, device="cpu"),
    "load_latest": lambda store: store.load_latest(Net, run="digits", device="cpu"),
    "load": lambda store: store.load(Net, "digits@1", device="cpu"),
    "load_package": lambda store: store.load_package(Net),
    "runs": lambda store: store.runs(),
}


def everything_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def folder(tmp_path):
    """A store with two versions."""
    with Store(tmp_path / "store") as store:
        for loss in (1.0, 2.0):
            Training().save(store, run="digits", val_loss=loss)
    return tmp_path / "store"


def check_reads(store):
    assert store.best().version == 1
    assert store.latest().version == 2
    assert [each.version for each in store.history()] == [1, 2]
    assert store.load_best(Net, device="cpu") is not None
    assert Training().resume(store, run="digits").checkpoint.version == 2


# ------------------------------------------------------------ no store


@pytest.mark.parametrize("ask", READS.values(), ids=list(READS))
@pytest.mark.parametrize("kind", ["nothing", "empty", "something else"])
def test_a_folder_that_is_no_store_says_so_and_stays_as_it_is(tmp_path, ask, kind):
    place = tmp_path / "place"
    if kind != "nothing":
        place.mkdir()
    if kind == "something else":
        (place / "notes.txt").write_text("mine")
        (place / "runs").mkdir()
    before = everything_below(tmp_path)

    with pytest.raises(NotAStoreError, match=r"place holds no store: .* first save"):
        ask(Store(place))
    assert everything_below(tmp_path) == before
    assert not Training().resume(Store(place))
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("ask", READS.values(), ids=list(READS))
def test_a_file_is_no_place_for_a_store(tmp_path, ask):
    (tmp_path / "file").write_text("mine")

    with pytest.raises(StorageError, match="cannot hold a store: expected a folder"):
        ask(Store(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"cannot hold a store|no folder"):
        Store(tmp_path / "file").save(Net())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("ask", READS.values(), ids=list(READS))
def test_a_bucket_that_is_not_there_says_so_and_is_not_made(s3_client, ask):
    url = "s3://no-such-bucket-anywhere/prefix"

    with pytest.raises(CkptStoreError, match="no-such-bucket-anywhere"):
        ask(Store(url))
    assert "no-such-bucket-anywhere" not in str(s3_client.list_buckets()["Buckets"])


def test_resuming_from_a_bucket_that_is_not_there_is_no_fresh_start(s3_client):
    with pytest.raises(StorageError, match="no-such-bucket-anywhere"):
        Training().resume(Store("s3://no-such-bucket-anywhere/prefix"))
    assert "no-such-bucket-anywhere" not in str(s3_client.list_buckets()["Buckets"])


@pytest.mark.parametrize("ask", READS.values(), ids=list(READS))
def test_an_empty_bucket_says_so_and_stays_empty(s3_url, s3_client, ask):
    with pytest.raises(NotAStoreError, match="holds no store"):
        ask(Store(s3_url))
    assert "Contents" not in s3_client.list_objects_v2(Bucket=s3_url.split("/")[2])


# ------------------------------------------------------------ newer, or damaged


@pytest.mark.parametrize("change", [{"format": 2}, {"requires": ["encryption"]}])
def test_a_newer_store_is_left_alone(folder, change):
    path = folder / "ckptstore.json"
    facts = json.loads(path.read_bytes())
    del facts["blake3"]
    path.write_bytes(seal(facts | change))
    before = everything_below(folder)
    training = Training()

    for ask in (
        *READS.values(),
        lambda store: training.resume(store, run="digits"),
        lambda store: training.save(store, run="digits"),
    ):
        with pytest.raises(NewerFormatError, match="made by a newer ckptstore"):
            ask(Store(folder))
    assert everything_below(folder) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":1}', b"\xff"])
def test_a_damaged_store_file_is_named(folder, content):
    (folder / "ckptstore.json").write_bytes(content)

    for ask in (*READS.values(), lambda store: store.save(Net())):
        with pytest.raises(IntegrityError, match=r"ckptstore\.json"):
            ask(Store(folder))


# ------------------------------------------------------------ the catalog


def test_a_deleted_catalog_comes_back(folder):
    before = list(Store(folder).history())
    (folder / "catalog.sqlite3").unlink()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(Store(folder).history()) == before
        check_reads(Store(folder))
    assert (folder / "catalog.sqlite3").exists()


def test_a_catalog_deleted_under_a_living_store_comes_back(folder):
    store = Store(folder)
    check_reads(store)
    (folder / "catalog.sqlite3").unlink()

    check_reads(store)
    store.run("digits").resume(Net())
    assert store.save(Net(), run="digits").version == 3


@pytest.mark.parametrize("content", [b"no database", b"", b"SQLite format 3\0" + b"\0" * 5000])
def test_a_corrupt_catalog_costs_a_warning_and_nothing_else(folder, content):
    (folder / "catalog.sqlite3").write_bytes(content)
    store = Store(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_reads(store)
        store.resume(Net(), run="digits")
        assert store.save(Net(), run="digits", val_loss=0.5).version == 3
        assert store.best().version == 3

    assert {warning.category for warning in caught} <= {CatalogWarning}
    (folder / "catalog.sqlite3").unlink()
    assert Store(folder).best().version == 3


def test_a_locked_catalog_costs_a_warning_and_nothing_else(folder, monkeypatch):
    monkeypatch.setattr("ckptstore.catalog.index.TIMEOUT_S", 0.05)
    store = Store(folder)
    store._catalog._timeout_s = 0.05
    store.resume(Net(), run="digits")
    lock = sqlite3.connect(folder / "catalog.sqlite3", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.warns(CatalogWarning):
            checkpoint = store.save(Net(), run="digits", val_loss=0.5)
        assert checkpoint.version == 3
        assert store.best().version == 3
    finally:
        lock.execute("ROLLBACK")
        lock.close()

    assert Store(folder).best().version == 3


def test_a_catalog_elsewhere_is_used(folder, tmp_path):
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"
    (folder / "catalog.sqlite3").unlink()
    check_reads(Store(folder, catalog=url))

    assert (tmp_path / "elsewhere.sqlite3").exists()
    assert not (folder / "catalog.sqlite3").exists()


# ------------------------------------------------------------ read-only


@pytest.fixture
def read_only(monkeypatch):
    """Let nothing be written in any folder, as a root that is mounted read-only."""
    connect = sqlite3.connect

    def refusing(database, **options):
        if database == ":memory:":
            return connect(database, **options)
        return connect(f"file:{database}?mode=ro", uri=True, **options)

    def fault(method, key):
        if method in ("create", "open_writer"):
            return StorageError(f"cannot write {key}: the filesystem is read-only (EROFS)")
        return None

    def begin(folder):
        monkeypatch.setattr("sqlite3.dbapi2.connect", refusing)
        monkeypatch.setattr(sqlite3, "connect", refusing)
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        return store_on(Watched(LocalStorage(folder), fault))

    return begin


@pytest.mark.parametrize("catalog", ["there", "gone", "behind"])
def test_a_read_only_root_is_read_without_a_warning(folder, read_only, catalog):
    if catalog != "there":
        (folder / "catalog.sqlite3").unlink()
    if catalog == "behind":
        sqlite3.connect(folder / "catalog.sqlite3").close()
    before = everything_below(folder)
    store = read_only(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_reads(store)

    assert everything_below(folder) == before


def test_a_read_only_root_cannot_be_saved_to(folder, read_only):
    store, training = read_only(folder), Training()
    training.resume(store, run="digits")

    with pytest.raises(StorageError, match="read-only"):
        training.save(store, run="digits")


def test_a_missing_driver_of_the_catalog_is_met_when_the_store_is_opened(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(MissingPackageError, match=r"pip install 'psycopg\[binary\]'") as raised:
        Store(tmp_path / "store", catalog="postgresql+psycopg://me:hunter2@127.0.0.1/db")
    assert "hunter2" not in str(raised.value)
    assert not (tmp_path / "store").exists()


# ------------------------------------------------------------ moved


def test_a_store_can_be_moved_and_copied(folder, tmp_path):
    best = Store(folder).load_best(Net, device="cpu")
    folder.rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved")

    check_reads(moved)
    assert same(moved.load_best(Net, device="cpu"), best)
