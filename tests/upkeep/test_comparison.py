from __future__ import annotations

import sqlite3

import pytest

from ckptstore import Store
from ckptstore.catalog.index import Catalog
from ckptstore.errors import IntegrityError
from ckptstore.format.journal import LogEntry
from ckptstore.format.layout import journal_key, version_key
from ckptstore.storage.base import Listing
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep.comparison import Until, compare
from tests.catalog.places import START, commit, found_store, make_head, newer, note, tag_entry
from tests.upkeep.checking import check, filled, kinds, only


@pytest.fixture
def storage(tmp_path):
    storage = LocalStorage(tmp_path)
    found_store(storage)
    for number in (1, 2, 3):
        commit(storage, make_head("digits", number))
    note(storage, "digits", 1, tag_entry("prod", 2))
    return storage


@pytest.fixture
def catalog(storage):
    catalog = Catalog(None, storage)
    catalog.sync("digits")
    yield catalog
    catalog.close()


def compared(storage, catalog):
    """Return the one difference there is."""
    (finding,) = compare(storage, catalog, "digits")
    return finding


def change(storage, statement):
    with sqlite3.connect(f"{storage.local_folder}/catalog.sqlite3") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(statement)
    connection.close()


def test_an_index_of_what_is_there_differs_in_nothing(storage, catalog):
    assert compare(storage, catalog, "digits") == []


def test_a_run_that_is_not_indexed_yet_is_no_difference(storage, tmp_path):
    catalog = Catalog(None, storage)

    assert compare(storage, catalog, "digits") == []
    assert not (tmp_path / "catalog.sqlite3").exists()


def test_an_index_that_is_behind_is_no_difference_and_stays_behind(storage, catalog):
    commit(storage, make_head("digits", 4))
    note(storage, "digits", 2, tag_entry("prod", 4))
    note(
        storage,
        "digits",
        3,
        LogEntry(1, None, None, {"acc": 0.5}, START, make_head("x", 1).save_id),
    )
    before = catalog.rows("digits")

    assert compare(storage, catalog, "digits") == []
    assert catalog.rows("digits") == before


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE versions SET epoch = 9 WHERE version = 1", "versions 1 has other values of epoch"),
        ("UPDATE versions SET head = 'x' WHERE version = 3", "versions 3 has other values of head"),
        ("UPDATE metrics SET value = 0 WHERE version = 2", "metrics val_loss 2 has other values"),
        ("DELETE FROM metrics", "metrics val_loss 1 is missing; metrics val_loss 2 is missing"),
        ("DELETE FROM versions WHERE version = 2", "versions 2 is missing"),
        ("UPDATE tags SET version = 1", "tags prod has other values of version"),
        ("UPDATE runs SET name = 'Digits'", "runs has other values of name"),
        ("UPDATE journal SET entry = 'x'", "journal 1 has other values of entry"),
    ],
)
def test_rows_changed_by_hand_are_named(storage, catalog, statement, said):
    catalog.close()
    change(storage, statement)

    message = compared(storage, catalog).message

    assert message.startswith("the catalog's index of runs/digits differs from the storage: ")
    assert said in message


def test_many_differences_are_counted(storage, catalog):
    for number in range(4, 14):
        commit(storage, make_head("digits", number))
    catalog.sync("digits")
    catalog.close()
    change(storage, "UPDATE versions SET epoch = 77")

    assert compared(storage, catalog).message.endswith("; and 8 more")


def test_a_row_of_nothing_is_named(storage, catalog):
    catalog.close()
    change(storage, "INSERT INTO tags SELECT store, path, 'ghost', 1 FROM runs")

    assert "tags ghost should not be there" in compared(storage, catalog).message


@pytest.mark.parametrize(
    ("lost", "kind", "last"),
    [
        (version_key("digits", 3), "catalog", "2"),
        (journal_key("digits", 1), "hole", "none"),
    ],
)
def test_a_catalog_that_knows_more_than_there_is_tells_of_a_loss(
    storage, catalog, lost, kind, last
):
    storage.delete([lost])

    finding = compared(storage, catalog)

    assert (finding.kind, finding.severity) == (kind, "damage")
    assert f", and the last one in the storage is {last}" in finding.message


def test_what_is_there_by_its_name_is_not_lost_though_a_listing_lacks_it(storage, catalog):
    class Short(LocalStorage):
        def list_folder(self, key):
            return Listing((), ()) if key.endswith("_versions") else super().list_folder(key)

    assert compare(Short(storage.local_folder), catalog, "digits") == []


def test_an_entry_that_differs_is_the_journals_damage_where_both_can_be_read(
    storage, catalog, tmp_path
):
    (tmp_path / journal_key("digits", 1)).unlink()
    note(storage, "digits", 1, tag_entry("prod", 1))

    finding = compared(storage, catalog)

    assert (finding.kind, finding.key) == ("journal", journal_key("digits", 1))
    assert "is not the one that this catalog indexed" in finding.message


def test_what_is_remembered_of_a_damaged_version_is_no_mistake(storage, catalog, tmp_path):
    path = tmp_path / version_key("digits", 2)
    path.write_bytes(path.read_bytes()[:-100])

    assert compare(storage, catalog, "digits", [2]) == []
    assert "versions 2" in compared(storage, catalog).message


def test_a_version_that_became_readable_since_is_no_mistake(storage, catalog, tmp_path):
    path = tmp_path / version_key("digits", 4)
    path.write_bytes(newer(4))
    catalog.sync("digits")
    path.unlink()
    commit(storage, make_head("digits", 4))

    assert compare(storage, catalog, "digits") == []


def test_no_index_is_made_of_a_damaged_journal(storage, catalog, tmp_path):
    path = tmp_path / journal_key("digits", 1)
    path.write_bytes(path.read_bytes().replace(b"prod", b"evil"))

    with pytest.raises(IntegrityError):
        compare(storage, catalog, "digits")


def test_a_storage_as_it_was_shows_nothing_later(storage):
    view = Until(storage, "digits", 2, 0)
    keys = [version_key("digits", number) for number in (1, 2, 3)]

    shown = view.read_many([*keys, journal_key("digits", 1), "ckptstore.json"], 8)

    assert [start is not None for start in shown] == [True, True, False, False, True]
    assert view.url == storage.url


# ---------------------------------------------------------------- as a whole check has it


def test_a_run_that_is_gone_is_noticed_by_who_remembers_it(tmp_path):
    store = filled(tmp_path, 1)
    store.save({"w": 1}, run="digits2", rng=False)
    for path in (tmp_path / "runs" / "digits2" / "_versions").iterdir():
        path.unlink()

    report = check(store)

    assert kinds(report)[0] == ("damage", "catalog", "digits2")
    assert "knows version 1, and the last one in the storage is none" in report.findings[0].message


def test_a_catalog_that_can_not_be_read_misleads_nobody(tmp_path):
    filled(tmp_path, 1).close()
    (tmp_path / "catalog.sqlite3").write_bytes(b"no database" * 1000)

    report = check(Store(tmp_path))

    assert report.ok
    assert only(report).message.startswith("could not be compared: the catalog ")
