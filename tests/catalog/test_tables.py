from __future__ import annotations

import math
from uuid import UUID

import pytest
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from ckptstore.catalog.tables import (
    UNSETTLED,
    Base,
    ChildRow,
    JournalRow,
    MetricRow,
    RunRow,
    StoreRow,
    TagRow,
    VersionRow,
    store_key,
)

STORE = "0" * 32
TABLES = Base.metadata.sorted_tables


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
    Base.metadata.create_all(engine)
    with engine.begin() as opened:
        opened.execute(insert(StoreRow), {"store": STORE, "url": "here", "store_id": "id"})
        opened.execute(insert(RunRow), {"store": STORE, "path": "digits"})
        yield opened
    engine.dispose()


def add_version(connection, **columns):
    key = {"store": STORE, "path": "digits", "version": 1, "kind": "checkpoint"}
    connection.execute(insert(VersionRow), key | columns)


# ------------------------------------------------------------ keys


def test_a_stores_key_is_the_same_in_every_process():
    assert store_key("s3://bucket/place", UUID(int=1)) == "f261fdbcd57b38f92f3f9de7769871ae"


def test_a_store_at_another_place_or_made_anew_has_another_key():
    keys = {
        store_key(url, UUID(int=number))
        for url in ("s3://bucket/a", "s3://bucket/b", "/home/\udcff")
        for number in (1, 2)
    }

    assert len(keys) == 6
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_every_key_is_natural_and_begins_with_the_store(table):
    """A number that the database gives out would differ in an index that is built anew."""
    assert next(column.name for column in table.primary_key) == "store"
    for column in table.columns:
        assert column.identity is column.server_default is column.default is None, column
        assert column.autoincrement is not True
        assert table.autoincrement_column is None


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_every_constraint_has_a_name_that_migrations_can_use(table):
    names = [constraint.name for constraint in table.constraints]
    names += [index.name for index in table.indexes]

    assert names
    assert all(name is not None and table.name in name for name in names)


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (RunRow, {"store": "1" * 32, "path": "digits"}),
        (VersionRow, {"store": STORE, "path": "other", "version": 1, "kind": "void"}),
        (MetricRow, {"store": STORE, "path": "digits", "version": 2, "name": "m", "value": 1}),
        (JournalRow, {"store": STORE, "path": "other", "number": 1, "kind": "void"}),
        (TagRow, {"store": STORE, "path": "other", "tag": "prod", "version": 1}),
        (
            ChildRow,
            {
                "store": STORE,
                "path": "other",
                "version": 1,
                "number": 1,
                "run": "x",
                "save_id": "y",
            },
        ),
    ],
    ids=["run", "version", "metric", "entry", "tag", "child"],
)
def test_a_row_belongs_to_one_that_is_there(connection, row, columns):
    with pytest.raises(sql_errors.IntegrityError, match="FOREIGN KEY"):
        connection.execute(insert(row), columns)


# ------------------------------------------------------------ values


@pytest.mark.parametrize("value", [0.1, math.inf, -math.inf, 5e-324, None])
def test_metrics_are_doubles_to_the_last_bit(connection, value):
    add_version(connection)
    key = {"store": STORE, "path": "digits", "version": 1, "name": "m"}
    connection.execute(insert(MetricRow), {**key, "value": value})

    found = connection.scalar(select(MetricRow.value))

    assert repr(found) == repr(value)


@pytest.mark.parametrize("size", [2**31, 2**53 + 1, 2**63 - 1])
def test_sizes_are_exact_up_to_64_bits(connection, size):
    add_version(connection, size_bytes=size, epoch=size)

    assert connection.execute(select(VersionRow.size_bytes, VersionRow.epoch)).one() == (size, size)


@pytest.mark.parametrize("config", [{"lr": [1, None, "é"]}, [], "text", 0, False, ""])
def test_a_config_is_any_json(connection, config):
    add_version(connection, config=config)

    found = connection.scalar(select(VersionRow.config))

    assert (found, type(found)) == (config, type(config))


def test_no_config_is_null_and_no_json(connection):
    add_version(connection, config=None)

    assert connection.scalar(select(VersionRow.version).where(VersionRow.config.is_(None))) == 1


@pytest.mark.parametrize(
    ("kind", "is_unsettled"),
    [("checkpoint", 0), ("package", 0), ("damaged", 1), ("newer", 1), ("void", 1)],
)
def test_only_what_may_turn_into_something_else_is_unsettled(connection, kind, is_unsettled):
    add_version(connection, kind=kind)

    assert connection.exec_driver_sql(f"SELECT {UNSETTLED} FROM versions").scalar() == is_unsettled  # noqa: S608 - our own words


def test_looking_for_what_is_unsettled_reads_no_other_versions(connection):
    plan = connection.exec_driver_sql(
        "EXPLAIN QUERY PLAN SELECT version FROM versions "  # noqa: S608 - our own words
        f"WHERE store = '' AND path = '' AND {UNSETTLED}"
    ).all()

    assert "ix_versions_unsettled" in str(plan)


# ------------------------------------------------------------ PostgreSQL, as far as text goes


def test_the_tables_compile_for_postgresql():
    dialect = postgresql.dialect()
    tables = Base.metadata.sorted_tables
    ddl = "".join(str(CreateTable(table).compile(dialect=dialect)) for table in tables)
    indexes = "".join(
        str(CreateIndex(index).compile(dialect=dialect))
        for table in tables
        for index in table.indexes
    )

    assert "ROWID" not in ddl
    assert "DOUBLE PRECISION" in ddl
    assert "BIGSERIAL" not in ddl
    assert "WHERE kind IN ('damaged', 'newer', 'void')" in indexes
