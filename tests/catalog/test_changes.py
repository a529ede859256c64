from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.dialects import postgresql

from ckptstore.catalog import changes
from ckptstore.catalog.engine import MEMORY, Database, parse_url
from ckptstore.catalog.rows import Batch, JournalEntry, Version, damaged, from_head, read_head
from ckptstore.catalog.tables import Base, store_key
from ckptstore.format.journal import ChildEntry, encode_entry
from ckptstore.format.manifest import encode_head
from tests.catalog.places import NAN, START, make_head, newer, settings_entry, tag_entry

URL = "bucket://place"
ID = UUID(int=1)
STORE = store_key(URL, ID)


@pytest.fixture
def connection():
    database = Database(parse_url(MEMORY), timeout_s=5)
    with database.writing() as opened:
        yield opened
    database.close()


@pytest.fixture
def run(connection):
    """A run that has its row."""
    changes.add_store(connection, URL, ID)
    changes.add_run(connection, STORE, "digits")
    return connection, STORE, "digits"


def version(number, run="Digits", **changed) -> Version:
    head = make_head(run, number, **changed)
    return from_head(head, encode_head(head), f"{URL}/{number}")


def entry(number, content) -> JournalEntry:
    return JournalEntry(number, content, encode_entry(content).decode())


def rows(connection, name, *columns):
    table = Base.metadata.tables[name]
    chosen = [table.c[column] for column in columns]
    query = table.select().with_only_columns(*chosen).order_by(*table.primary_key)
    return [tuple(row) for row in connection.execute(query)]


def versions(connection):
    return rows(connection, "versions", "version", "kind")


# ------------------------------------------------------------ stores and runs


def test_a_store_and_a_run_that_are_there_are_left(run):
    connection, *_ = run
    changes.add_version(*run, version(1))

    changes.add_store(connection, URL, ID)
    changes.add_run(connection, STORE, "digits")

    assert rows(connection, "stores", "store", "url", "store_id") == [(STORE, URL, str(ID))]
    assert rows(connection, "runs", "path", "name") == [("digits", "Digits")]


def test_rows_that_are_there_are_left_on_postgresql_too():
    class Connection:
        dialect = postgresql.dialect()

    statement = changes._insert_or_leave(Connection(), Base.metadata.tables["stores"])

    assert "ON CONFLICT DO NOTHING" in str(statement.compile(dialect=Connection.dialect))


def test_removing_a_store_leaves_the_others(run):
    connection, *_ = run
    other = store_key("bucket://other", ID)
    changes.add_store(connection, "bucket://other", ID)
    changes.add_run(connection, other, "digits")
    child = ChildEntry(1, "other", ID, START, ID)
    batch = Batch([version(1)], [entry(1, tag_entry("prod", 1)), entry(2, child)])
    for store in (STORE, other):
        assert changes.add_batch(connection, store, "digits", batch)

    changes.remove_store(connection, STORE)

    for name in Base.metadata.tables:
        assert set(rows(connection, name, "store")) == {(other,)}, name


# ------------------------------------------------------------ one version


def test_the_next_version_is_added_with_its_metrics(run):
    connection, *_ = run

    assert changes.add_version(*run, version(1, metrics={"a": NAN, "b": 2}))
    assert changes.add_version(*run, version(2, kind="package", metrics={}))

    assert versions(connection) == [(1, "checkpoint"), (2, "package")]
    assert rows(connection, "metrics", "name", "version", "value") == [
        ("a", 1, None),
        ("b", 1, 2.0),
    ]
    assert rows(connection, "runs", "name") == [("Digits",)]


def test_a_version_that_is_there_is_indexed_and_left(run):
    connection, *_ = run
    changes.add_version(*run, version(1, metrics={"m": 1}))

    assert changes.add_version(*run, version(1, metrics={"m": 2}))

    assert rows(connection, "metrics", "value") == [(1.0,)]


def test_another_save_under_a_number_that_is_there_is_not_indexed(run):
    changes.add_version(*run, version(1))

    assert not changes.add_version(*run, version(1, save_id=UUID(int=99)))


def test_a_version_after_a_hole_is_not_added(run):
    connection, *_ = run

    assert not changes.add_version(*run, version(2))
    assert versions(connection) == []


def test_a_version_of_an_unknown_run_is_not_added(connection):
    assert not changes.add_version(connection, STORE, "digits", version(1))
    assert versions(connection) == []


def test_a_run_keeps_the_spelling_of_its_first_version(run):
    connection, *_ = run
    changes.add_version(*run, damaged(1, "torn"))
    assert rows(connection, "runs", "name") == [(None,)]

    changes.add_version(*run, version(2, "Digits"))
    changes.add_version(*run, version(3, "DIGITS"))
    changes.add_batch(*run, Batch([version(4, "DIGITS")]))

    assert rows(connection, "runs", "name") == [("Digits",)]


# ------------------------------------------------------------ batches


def test_a_batch_adds_what_is_new_and_leaves_the_rest(run):
    connection, *_ = run
    changes.add_batch(*run, Batch([version(1, metrics={"m": 1})], [entry(1, tag_entry("a", 1))]))

    assert changes.add_batch(
        *run,
        Batch(
            [version(1, metrics={"m": 2}), version(2, metrics={"m": 3})],
            [entry(1, tag_entry("other", 1)), entry(2, tag_entry("b", 2))],
        ),
    )

    assert rows(connection, "metrics", "version", "value") == [(1, 1.0), (2, 3.0)]
    assert rows(connection, "tags", "tag", "version") == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    "batch",
    [
        Batch([version(3)]),
        Batch([], [entry(3, tag_entry("prod", 1))]),
        Batch([version(2)], [entry(3, tag_entry("prod", 1))]),
        Batch([version(3)], [entry(2, tag_entry("prod", 1))]),
    ],
    ids=[
        "versions",
        "entries",
        "entries beside the next version",
        "versions beside the next entry",
    ],
)
def test_a_batch_whose_beginning_was_removed_meanwhile_adds_nothing(run, batch):
    connection, *_ = run
    changes.add_batch(*run, Batch([version(1)], [entry(1, tag_entry("a", 1))]))

    assert not changes.add_batch(*run, batch)

    assert versions(connection) == [(1, "checkpoint")]
    assert rows(connection, "tags", "tag") == [("a",)]


def test_a_batch_for_a_run_without_a_row_adds_nothing(connection):
    assert not changes.add_batch(connection, STORE, "digits", Batch([version(1)]))


@pytest.mark.parametrize(
    "before",
    [
        Version(1, "void"),
        read_head(newer(1).partition(b"\n")[0], "digits", 1, URL),
    ],
    ids=lambda version: version.kind,
)
def test_what_was_not_settled_is_replaced_once_it_is(run, before):
    connection, *_ = run
    changes.add_version(*run, before)
    changes.add_version(*run, version(2))

    assert changes.add_batch(*run, Batch([version(1, metrics={"m": 1})]))

    assert versions(connection) == [(1, "checkpoint"), (2, "checkpoint")]
    assert rows(connection, "metrics", "version", "value")[0] == (1, 1.0)


def test_a_run_is_named_when_its_first_version_settles(run):
    connection, *_ = run
    changes.add_version(*run, Version(1, "void"))

    changes.add_batch(*run, Batch([version(1)]))

    assert rows(connection, "runs", "name") == [("Digits",)]


def test_damage_gives_way_to_what_was_brought_back_and_that_stays(run):
    connection, *_ = run
    changes.add_version(*run, damaged(1, "torn"))

    assert changes.add_batch(*run, Batch([version(1)]))
    assert changes.add_batch(*run, Batch([damaged(1, "flipped")]))

    assert rows(connection, "versions", "kind", "damage") == [("checkpoint", None)]


# ------------------------------------------------------------ the journal


def test_a_run_has_the_settings_and_tags_its_journal_adds_up_to(run):
    connection, *_ = run
    content = [
        settings_entry("acc", "max", {"lr": 1}),
        tag_entry("prod", 1),
        tag_entry("old", 1),
        tag_entry("prod", 2),
        tag_entry("old", None),
        settings_entry("loss", "min"),
    ]
    for number, each in enumerate(content, 1):
        changes.add_batch(*run, Batch([], [entry(number, each)]))

    assert rows(connection, "runs", "monitor", "mode", "config") == [("loss", "min", None)]
    assert rows(connection, "tags", "tag", "version") == [("prod", 2)]
    assert rows(connection, "journal", "number", "kind") == [
        (number, "settings" if number in (1, 6) else "tag") for number in range(1, 7)
    ]
    assert [text for (text,) in rows(connection, "journal", "entry")] == [
        encode_entry(each).decode() for each in content
    ]


def test_a_void_entry_counts_once_it_is_whole_and_in_its_own_place(run):
    connection, *_ = run
    changes.add_batch(*run, Batch([], [JournalEntry(1), entry(2, tag_entry("prod", 2))]))
    assert rows(connection, "journal", "number", "kind") == [(1, "void"), (2, "tag")]
    assert rows(connection, "tags", "tag", "version") == [("prod", 2)]

    changes.add_batch(*run, Batch([], [entry(1, tag_entry("prod", 1))]))

    assert rows(connection, "journal", "number", "kind") == [(1, "tag"), (2, "tag")]
    assert rows(connection, "tags", "tag", "version") == [("prod", 2)]
