"""What holds for every catalog, whatever its database."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from ckptstore.catalog import changes, sync
from ckptstore.catalog.index import Catalog
from ckptstore.errors import (
    NewerFormatError,
    NotAStoreError,
    StorageError,
)
from ckptstore.format.facts import Facts, Settings
from ckptstore.format.journal import ChildEntry
from ckptstore.format.layout import STORE_KEY_NEWER, version_key
from ckptstore.format.manifest import Parent
from tests.catalog.places import (
    INF,
    NAN,
    START,
    DictStorage,
    commit,
    commit_many,
    found_store,
    make_head,
    newer,
    note,
    rows,
    settings_entry,
    tag_entry,
    versions_of,
)

# ------------------------------------------------------------ keeping up


def test_sync_indexes_every_version(storage, catalog):
    for version in range(1, 31):
        commit(storage, make_head("Digits", version))

    catalog.sync("digits")

    assert versions_of(catalog.history(["digits"])) == list(range(1, 31))
    assert catalog.run_name("digits") == "Digits"
    assert catalog.next_numbers("digits") == (31, 1)


def test_sync_finds_what_was_committed_since(storage, catalog):
    commit(storage, make_head("digits", 1))
    catalog.sync("digits")
    commit(storage, make_head("digits", 2))
    note(storage, "digits", 1, tag_entry("prod", 2))

    catalog.sync("digits")

    assert catalog.latest("digits", "checkpoint").version == 2
    assert catalog.tagged("digits", "prod").version == 2


def test_a_record_is_what_was_committed(storage, catalog):
    head = make_head(
        "Sweep/lr=0.1",
        1,
        kind="package",
        parent=Parent("Digits", 7, make_head("digits", 7).save_id),
        config={"lr": 0.1, "name": "<script>é\u2028"},
        metrics={"<script>": 1, "größe": 2.5},
        package={"class_names": ["<b>"]},
    )
    commit(storage, head)
    catalog.sync("sweep/lr=0.1")

    record = catalog.version("sweep/lr=0.1", 1)

    assert (record.path, record.version, record.head) == ("sweep/lr=0.1", 1, head)
    assert (record.damage, record.tags) == (None, ())
    assert catalog.metric_names(["sweep/lr=0.1"], "package") == ["<script>", "größe"]


def test_the_columns_say_what_the_head_says(storage, catalog):
    parent = Parent("Base", 7, make_head("base", 7).save_id)
    commit(storage, make_head("digits", 1, parent=parent, step=9, config={"lr": 0.1}))
    catalog.sync("digits")

    row = dict(
        zip(
            (
                "store",
                "path",
                "version",
                "kind",
                "save_id",
                "created_at",
                "epoch",
                "step",
                "size_bytes",
            ),
            rows(catalog)["versions"][0],
            strict=False,
        )
    )
    torch_version, parent_path, parent_version, config = rows(catalog)["versions"][0][9:13]

    assert row["kind"] == "checkpoint"
    assert row["created_at"] == "2026-01-31T12:01:00.000000Z"
    assert (row["epoch"], row["step"], row["size_bytes"]) == (1, 9, 1000)
    assert (torch_version, parent_path, parent_version) == ("2.13.0", "base", 7)
    assert config == {"lr": 0.1}


def test_a_run_that_is_not_there_has_no_rows(catalog):
    catalog.sync("digits")

    assert catalog.run_name("digits") is None
    assert catalog.facts("digits") == Facts()
    assert catalog.next_numbers("digits") == (1, 1)
    assert catalog.latest("digits", None) is None
    assert catalog.version("digits", 1) is None
    assert catalog.tagged("digits", "prod") is None
    assert catalog.best(["digits"], "val_loss", "min") is None
    assert catalog.history(["digits"]) == []
    assert not any(rows(catalog).values())


def test_no_runs_have_no_history_and_no_best(catalog):
    assert catalog.history([]) == []
    assert catalog.best([], "val_loss", "min") is None
    assert catalog.metric_names([], None) == []


def test_add_indexes_without_reading_the_storage(storage, catalog):
    catalog.sync("digits")
    heads = [make_head("Digits", version) for version in (1, 2)]
    lines = [commit(storage, head) for head in heads]
    storage.requests.clear()

    for line, head in zip(lines, heads, strict=True):
        catalog.add(line, head)

    assert storage.requests == []
    assert versions_of(catalog.history(["digits"])) == [1, 2]


def test_add_leaves_the_rows_that_sync_leaves(storage, catalog, tmp_path):
    for version in (1, 2, 3):
        head = make_head("Digits", version, metrics={"a": NAN, "b": 3})
        catalog.add(commit(storage, head), head)
    other = Catalog(f"sqlite:///{tmp_path}/other.sqlite3", storage)
    other.sync("digits")

    assert rows(other) == rows(catalog)
    other.close()


def test_add_indexes_what_is_missing_before_it(storage, catalog):
    for version in range(1, 6):
        commit(storage, make_head("digits", version))
    head = make_head("digits", 6)

    catalog.add(commit(storage, head), head)

    assert versions_of(catalog.history(["digits"])) == [1, 2, 3, 4, 5, 6]


def test_add_indexes_what_others_committed_meanwhile(storage, catalog):
    commit(storage, make_head("digits", 1))
    catalog.sync("digits")
    commit(storage, make_head("digits", 2))
    head = make_head("digits", 3)

    catalog.add(commit(storage, head), head)

    assert versions_of(catalog.history(["digits"])) == [1, 2, 3]


@pytest.mark.parametrize("news", ["version", "entry"])
def test_sync_starts_again_when_another_process_reindexes_meanwhile(storage, tmp_path, news):
    first, second = (Catalog(f"sqlite:///{tmp_path}/index.sqlite3", storage) for _ in range(2))
    for version in (1, 2):
        commit(storage, make_head("digits", version))
    note(storage, "digits", 1, tag_entry("prod", 2))
    first.sync("digits")
    if news == "version":
        commit(storage, make_head("digits", 3))
    else:
        note(storage, "digits", 2, tag_entry("test", 1))
    read_many = storage.read_many

    def racing(keys, length):
        storage.read_many = read_many
        with second._opened().writing() as connection:
            changes.remove_store(connection, second._key())
        return read_many(keys, length)

    storage.read_many = racing
    first.sync("digits")

    assert first.next_numbers("digits") == ((4, 2) if news == "version" else (3, 3))
    assert first.facts("digits").tags["prod"] == 2
    first.close()
    second.close()


def test_adding_twice_changes_nothing(storage, catalog):
    head = make_head("digits", 1)
    line = commit(storage, head)
    catalog.add(line, head)
    before = rows(catalog)

    catalog.add(line, head)
    catalog.sync("digits")

    assert rows(catalog) == before


def test_rebuilding_gives_the_same_rows(storage, catalog, tmp_path):
    fill(storage)
    for path in ("sweep/b", "digits"):
        catalog.sync(path)
    catalog.discover()
    rebuilt = Catalog(f"sqlite:///{tmp_path}/rebuilt.sqlite3", storage)

    assert rebuilt.discover() == ["digits", "sweep", "sweep/b"]

    assert rows(rebuilt) == rows(catalog)
    assert all(rows(rebuilt).values())
    rebuilt.close()


def test_reindex_gives_the_same_rows(storage, catalog):
    fill(storage)
    catalog.discover()
    before = rows(catalog)

    assert catalog.reindex() == ["digits", "sweep", "sweep/b"]

    assert rows(catalog) == before


def fill(storage):
    commit_many(storage, "Digits", {1: {"a": 1}, 2: {"a": NAN, "b": INF}, 3: {}})
    storage.create(version_key("digits", 4), b"torn")
    storage.create(version_key("digits", 5), newer(5))
    note(storage, "digits", 1, settings_entry("a", "max", {"lr": 0.5}))
    note(storage, "digits", 2, tag_entry("prod", 1))
    note(storage, "digits", 3, tag_entry("old", 2))
    note(storage, "digits", 4, tag_entry("prod", 3))
    note(storage, "digits", 5, tag_entry("old", None))
    note(storage, "digits", 6, ChildEntry(1, "sweep/B", UUID(int=1), START, UUID(int=1)))
    commit(storage, make_head("Sweep", 1))
    commit(storage, make_head("sweep/B", 1))


@pytest.mark.parametrize("anew", [False, True])
def test_postgresql_counts_after_many_rows_at_once(storage, postgres_url, monkeypatch, anew):
    monkeypatch.setattr(sync, "TRANSACTION", 8)
    most = 11 if anew else 10  # the server is the same
    for version in range(1, most + 1):
        commit(storage, make_head("digits", version))
    counted = text("SELECT min(reltuples) FROM pg_class WHERE relname IN ('versions', 'metrics')")
    engine = create_engine(postgres_url)
    catalog = Catalog(postgres_url, storage)

    if anew:
        catalog.reindex(["digits"])
    else:
        catalog.sync("digits")

    with engine.connect() as connection:
        assert connection.execute(counted).scalar() == most
    engine.dispose()
    catalog.close()


def test_a_place_without_a_store_is_named_and_left_empty(tmp_path):
    empty = DictStorage("bucket://empty", str(tmp_path))
    catalog = Catalog(None, empty)

    for ask in (
        lambda: catalog.sync("digits"),
        catalog.discover,
        lambda: catalog.latest("digits", None),
        lambda: catalog.history(["digits"]),
    ):
        with pytest.raises(
            NotAStoreError, match=r"bucket://empty holds no store.*ckptstore\.json.*first save"
        ):
            ask()

    assert list(tmp_path.iterdir()) == []
    assert empty.objects == {}


def test_a_store_of_a_later_format_is_no_empty_place(tmp_path):
    newer_one = DictStorage("bucket://newer", str(tmp_path))
    newer_one.objects[STORE_KEY_NEWER] = b"whatever a later ckptstore writes"
    catalog = Catalog(None, newer_one)

    for ask in (lambda: catalog.sync("digits"), catalog.discover, lambda: catalog.history(["a"])):
        with pytest.raises(NewerFormatError, match=r"bucket://newer was made by a newer.*upgrade"):
            ask()

    assert list(tmp_path.iterdir()) == []
    assert list(newer_one.objects) == [STORE_KEY_NEWER]


def test_a_store_founded_later_is_found():
    storage = DictStorage()
    catalog = Catalog("sqlite://", storage)
    with pytest.raises(NotAStoreError):
        catalog.sync("digits")
    found_store(storage)
    head = make_head("digits", 1)
    catalog.add(commit(storage, head), head)

    assert catalog.latest("digits", None).head == head
    catalog.close()


def test_storage_failures_are_raised_as_they_are(storage, catalog):
    catalog.sync("digits")
    storage.is_down = True

    with pytest.raises(StorageError, match="does not answer"):
        catalog.sync("digits")


# ------------------------------------------------------------ the journal


def test_facts_are_what_the_journal_adds_up_to(storage, catalog):
    commit(storage, make_head("digits", 1))
    note(storage, "digits", 1, settings_entry("val_loss", "min"))
    note(storage, "digits", 2, tag_entry("prod", 1))
    catalog.sync("digits")
    assert catalog.facts("digits") == Facts(Settings("val_loss", "min"), {"prod": 1})

    note(storage, "digits", 3, settings_entry("acc", "max", {"lr": 0.1}))
    note(storage, "digits", 4, tag_entry("prod", None))
    note(storage, "digits", 5, tag_entry("b", 1))
    note(storage, "digits", 6, tag_entry("a", 1))
    catalog.sync("digits")

    assert catalog.facts("digits") == Facts(Settings("acc", "max", {"lr": 0.1}), {"a": 1, "b": 1})
    assert catalog.settings("digits") == Settings("acc", "max", {"lr": 0.1})
    assert catalog.version("digits", 1).tags == ("a", "b")
    assert catalog.next_numbers("digits") == (2, 7)


def test_a_tag_may_come_before_its_version(storage, catalog):
    note(storage, "digits", 1, tag_entry("prod", 2))
    catalog.sync("digits")
    assert catalog.tagged("digits", "prod") is None

    commit_many(storage, "digits", {1: {}, 2: {}})
    catalog.sync("digits")

    assert catalog.tagged("digits", "prod").version == 2


# ------------------------------------------------------------ damaged and newer versions


def test_the_latest_version_may_be_damaged_whatever_it_was(storage, catalog):
    commit(storage, make_head("digits", 1))
    storage.create(version_key("digits", 2), b"torn")
    catalog.sync("digits")

    for kind in ("checkpoint", "package", None):
        assert catalog.latest("digits", kind).head is None


def test_a_run_is_named_by_its_first_intact_version(storage, catalog):
    storage.create(version_key("digits", 1), b"torn")
    catalog.sync("digits")
    assert catalog.run_name("digits") is None
    commit(storage, make_head("Digits", 2))
    catalog.sync("digits")

    assert catalog.run_name("digits") == "Digits"


def test_versions_of_a_newer_ckptstore_are_refused_rather_than_skipped(storage, catalog):
    commit(storage, make_head("digits", 1))
    storage.create(version_key("digits", 2), newer(2))
    commit(storage, make_head("digits", 3, kind="package"))
    catalog.sync("digits")

    assert catalog.version("digits", 1).version == 1
    assert catalog.latest("digits", "package").version == 3
    for ask in (
        lambda: catalog.version("digits", 2),
        lambda: catalog.latest("digits", "checkpoint"),
        lambda: list(catalog.newest_first("digits", None)),
        lambda: catalog.best(["digits"], "val_loss", "min"),
        lambda: catalog.history(["digits"]),
        lambda: catalog.history(["digits"], limit=1),
    ):
        with pytest.raises(NewerFormatError, match="newer ckptstore"):
            ask()


def test_an_upgrade_turns_newer_versions_into_versions(storage, catalog, monkeypatch):
    storage.create(version_key("digits", 1), newer(1))
    catalog.sync("digits")
    monkeypatch.setattr("ckptstore.format.fields.KNOWN_FEATURES", frozenset({"warp"}))

    catalog.sync("digits")

    assert catalog.best(["digits"], "val_loss", "min").version == 1
    assert catalog.run_name("digits") == "digits"


# ------------------------------------------------------------ several stores, several threads


def test_two_stores_in_one_database_do_not_mix(tmp_path):
    url = f"sqlite:///{tmp_path}/team.sqlite3"
    stores = [DictStorage("bucket://one"), DictStorage("bucket://two")]
    catalogs = []
    for number, storage in enumerate(stores, 1):
        found_store(storage, number)
        commit(storage, make_head("digits", 1, metrics={"m": number}))
        note(storage, "digits", 1, tag_entry(f"tag{number}", 1))
        catalogs.append(Catalog(url, storage))
        catalogs[-1].discover()

    for number, catalog in enumerate(catalogs, 1):
        assert [record.head.metrics for record in catalog.history(["digits"])] == [{"m": number}]
        assert catalog.facts("digits").tags == {f"tag{number}": 1}
    catalogs[0].reindex()
    assert len(rows(catalogs[1])["versions"]) == 2
    for catalog in catalogs:
        catalog.close()


def test_a_store_made_anew_at_the_same_place_starts_empty(storage, tmp_path):
    url = f"sqlite:///{tmp_path}/index.sqlite3"
    commit(storage, make_head("digits", 1))
    old = Catalog(url, storage)
    old.sync("digits")
    old.close()
    storage.objects.clear()
    found_store(storage, 2)
    new = Catalog(url, storage)
    new.sync("digits")

    assert new.history(["digits"]) == []
    assert new.next_numbers("digits") == (1, 1)
    new.close()


def test_threads_share_a_catalog(storage, catalog):
    heads = [make_head(f"run{number}", version) for version in (1, 2, 3) for number in range(4)]
    lines = {id(head): commit(storage, head) for head in heads}
    errors = []

    def work(number):
        try:
            for head in heads[number::4]:
                catalog.add(lines[id(head)], head)
                catalog.sync(head.run)
                assert catalog.latest(head.run, None).version >= head.version
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(catalog.history([f"run{number}" for number in range(4)])) == 12


def test_a_closed_catalog_opens_again(storage, catalog):
    commit(storage, make_head("digits", 1))
    catalog.sync("digits")
    catalog.close()
    catalog.close()

    assert catalog.latest("digits", None).version == 1
