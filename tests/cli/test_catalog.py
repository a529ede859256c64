from __future__ import annotations

import sqlite3

import pytest

from ckptstore.catalog.revisions import HEAD


def test_migrate_says_from_where_and_to_where(typed, tmp_path):
    url = f"sqlite:///{tmp_path}/catalog.sqlite3"
    assert (
        typed("migrate", url).stdout == f"Migrated the catalog from no tables to revision {HEAD}.\n"
    )
    assert typed("migrate", url).stdout == f"The catalog is up to date: revision {HEAD}.\n"


def test_migrated_database_has_its_tables(typed, tmp_path):
    typed("migrate", f"sqlite:///{tmp_path}/catalog.sqlite3")
    database = sqlite3.connect(tmp_path / "catalog.sqlite3")
    assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    database.close()


def test_migrate_explains_what_it_takes(typed):
    done = typed("migrate")
    assert done.exit_code == 2
    assert "name the database" in done.stderr
    assert "ckptstore migrate postgresql+psycopg://host/database" in done.stderr


def test_failing_database_is_a_message(typed, tmp_path):
    done = typed("migrate", f"sqlite:///{tmp_path}/nowhere/catalog.sqlite3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "cannot be opened" in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://someone:hunter2@127.0.0.1:1/database",
        "postgresql+psycopg://127.0.0.1:1/database?user=someone&password=hunter2",
        "mysql://someone:hunter2@127.0.0.1/database",
        "hunter2",
    ],
)
def test_password_is_not_repeated(typed, url):
    done = typed("migrate", url)
    assert done.exit_code in {1, 2}
    assert done.stderr.startswith("Error: ")
    assert "hunter2" not in done.output
