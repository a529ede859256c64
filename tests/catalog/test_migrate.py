"""The migrations, and the tables a new database gets without them."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import subprocess
import sys
from uuid import UUID

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql

from ckptstore.catalog import changes, revisions
from ckptstore.catalog.engine import Database, parse_url
from ckptstore.catalog.index import Catalog
from ckptstore.catalog.migrate import migrate
from ckptstore.catalog.tables import Base
from ckptstore.errors import CatalogError, CatalogWarning
from ckptstore.format.journal import RetireEntry
from tests.catalog.places import START, commit, make_head, note, rows, tag_entry

SPAWN = multiprocessing.get_context("spawn")


def schema(path):
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = connection.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name")).all()
    engine.dispose()
    return {
        name: re.sub(r"\s+", " ", sql or "").replace(" )", ")").replace("( ", "(")
        for name, sql in found
    }


def clauses(statement):
    """Take a CREATE TABLE apart: the order of its columns and constraints means nothing."""
    body, _, options = statement.rpartition(")")
    return sorted(re.split(r", (?=[A-Za-z_]+ )", body.partition("(")[2])), options


def test_migrations_make_the_tables_that_the_models_describe(tmp_path):
    assert migrate(f"sqlite:///{tmp_path}/index.sqlite3") == (None, revisions.HEAD)

    engine = create_engine(f"sqlite:///{tmp_path}/index.sqlite3")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_new_database_is_made_as_the_migrations_would(tmp_path, storage):
    migrate(f"sqlite:///{tmp_path}/migrated.sqlite3")
    catalog = Catalog(f"sqlite:///{tmp_path}/created.sqlite3", storage)
    catalog.sync("digits")
    catalog.close()

    migrated, created = (schema(tmp_path / f"{name}.sqlite3") for name in ("migrated", "created"))
    assert {name: clauses(sql) for name, sql in created.items()} == {
        name: clauses(sql) for name, sql in migrated.items()
    }


def test_migrating_again_changes_nothing(tmp_path, storage):
    url = f"sqlite:///{tmp_path}/index.sqlite3"
    migrate(url)
    commit(storage, make_head("digits", 1))
    catalog = Catalog(url, storage)
    catalog.sync("digits")
    before = rows(catalog)

    assert migrate(url) == (revisions.HEAD, revisions.HEAD)

    assert rows(catalog) == before
    catalog.close()


def test_downgrading_takes_all_tables_away(tmp_path):
    migrate(f"sqlite:///{tmp_path}/index.sqlite3")
    database = Database(parse_url(f"sqlite:///{tmp_path}/index.sqlite3"), timeout_s=5)
    config = revisions._config()
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    database.close()

    assert set(schema(tmp_path / "index.sqlite3")) - {"sqlite_autoindex_alembic_version_1"} == {
        "alembic_version"
    }
    assert migrate(f"sqlite:///{tmp_path}/index.sqlite3") == (None, revisions.HEAD)


def test_a_downgraded_index_is_empty_so_that_the_older_one_fills_it_as_it_knows(tmp_path, storage):
    url = f"sqlite:///{tmp_path}/index.sqlite3"
    catalog = Catalog(url, storage)
    commit(storage, make_head("digits", 1))
    note(storage, "digits", 1, RetireEntry({1: "old"}, START, UUID(int=7)))
    catalog.sync("digits")
    catalog.close()
    database = Database(parse_url(url), timeout_s=5)
    config = revisions._config()
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    with database.reading() as connection:
        left = {
            name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar()  # noqa: S608 - our own tables
            for name in ("stores", "runs", "versions", "metrics", "journal", "tags")
        }
        unsettled = connection.execute(
            text("SELECT sql FROM sqlite_master WHERE name = 'ix_versions_unsettled'")
        ).scalar()
    database.close()

    assert set(left.values()) == {0}
    assert "kind IN ('newer', 'void')" in unsettled


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    folder = tmp_path / "migrations"
    shutil.copytree(revisions.scripts_folder(), folder)
    (folder / "versions" / "0004_broken.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '0004', '0003'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (a TEXT)')\n"
        "    op.execute('no SQL')\n"
    )
    monkeypatch.setattr(revisions, "scripts_folder", lambda: folder)

    with pytest.raises(CatalogError):
        migrate(f"sqlite:///{tmp_path}/index.sqlite3")

    assert schema(tmp_path / "index.sqlite3") == {}


def test_an_older_database_is_migrated_by_itself(tmp_path, storage, monkeypatch):
    """By way of a revision that only this test knows."""
    url = f"sqlite:///{tmp_path}/index.sqlite3"
    migrate(url)
    folder = tmp_path / "migrations"
    shutil.copytree(revisions.scripts_folder(), folder)
    (folder / "versions" / "0004_more.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '0004', '0003'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE more (a TEXT)')\n"
    )
    monkeypatch.setattr(revisions, "scripts_folder", lambda: folder)
    monkeypatch.setattr(revisions, "HEAD", "0004")
    catalog = Catalog(url, storage)
    catalog.sync("digits")
    catalog.close()

    assert "more" in schema(tmp_path / "index.sqlite3")
    assert migrate(url) == ("0004", "0004")


def made_by_a_newer_one(tmp_path):
    url = f"sqlite:///{tmp_path}/index.sqlite3"
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    return url


def test_a_database_of_a_newer_ckptstore_is_left_untouched(tmp_path, storage):
    url = made_by_a_newer_one(tmp_path)
    before = (tmp_path / "index.sqlite3").read_bytes()
    head = make_head("digits", 1)
    line = commit(storage, head)
    catalog = Catalog(url, storage)

    for act in (lambda: migrate(url), lambda: catalog.add(line, head)):
        with pytest.raises(CatalogError, match=r"'9999'.*newer ckptstore.*nothing was changed"):
            act()
    with pytest.warns(CatalogWarning, match="newer ckptstore"):
        catalog.sync("digits")

    assert catalog.latest("digits", None).version == 1
    assert (tmp_path / "index.sqlite3").read_bytes() == before
    catalog.close()


def test_a_shared_database_is_migrated_by_hand(tmp_path, storage):
    """SQLite plays the server."""
    head = make_head("digits", 1)
    line = commit(storage, head)
    catalog = Catalog(f"sqlite:///{tmp_path}/index.sqlite3", storage)
    catalog._opened().is_sqlite = False

    with pytest.raises(CatalogError, match=r"no tables yet.*'ckptstore migrate URL'"):
        catalog.add(line, head)

    catalog.close()


def test_processes_that_migrate_at_once_do_it_once(tmp_path):
    url = f"sqlite:///{tmp_path}/index.sqlite3"
    with SPAWN.Pool(2) as pool:
        found = pool.map(migrate, [url] * 4, chunksize=1)

    assert sorted(found, key=str) == [(revisions.HEAD, revisions.HEAD)] * 3 + [
        (None, revisions.HEAD)
    ]


def test_alembic_is_not_imported_for_a_new_database(tmp_path):
    code = (
        "import sys\n"
        "from ckptstore.catalog.index import Catalog\n"
        "from tests.catalog.places import DictStorage, found_store\n"
        "storage = DictStorage(); found_store(storage)\n"
        f"Catalog('sqlite:///{tmp_path}/index.sqlite3', storage).sync('digits')\n"
        "assert 'torch' not in sys.modules and 'alembic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=revisions.PACKAGE.parent)

    assert (tmp_path / "index.sqlite3").is_file()


# ------------------------------------------------------------ PostgreSQL, as far as text goes


def test_the_statements_compile_for_postgresql(storage, monkeypatch):
    """Every statement that SQLite is asked is also put in PostgreSQL's words."""
    dialect = postgresql.dialect()
    statements = []
    catalog = Catalog("sqlite://", storage)
    for version in (1, 2):
        commit(storage, make_head("digits", version))
    note(storage, "digits", 1, tag_entry("prod", 1))
    with catalog._opened().reading() as connection:
        original = type(connection).execute

    def execute(self, statement, *arguments, **options):
        statements.append(statement)
        return original(self, statement, *arguments, **options)

    monkeypatch.setattr(type(connection), "execute", execute)
    catalog.discover()
    catalog.best(["digits"], "val_loss", "min")
    catalog.metric_names(["digits"], None)
    catalog.history(["digits", "other"], kind="checkpoint", limit=5)
    catalog.latest("digits", "checkpoint")
    catalog.tagged("digits", "prod")
    catalog.reindex()
    catalog.close()
    compiled = [
        str(statement.compile(dialect=dialect))
        for statement in statements
        if "sqlite" not in type(statement).__module__
    ]

    assert len(compiled) > 20
    assert "FOR UPDATE" in str(changes.LOCK_RUN.compile(dialect=dialect))
    assert any("NULLS LAST" in statement for statement in compiled)
