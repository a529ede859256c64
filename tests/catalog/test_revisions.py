from __future__ import annotations

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from ckptstore.catalog import revisions
from ckptstore.catalog.tables import Base
from ckptstore.errors import CatalogError


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def tables(connection):
    return set(inspect(connection).get_table_names())


def test_the_head_constant_is_the_last_migration():
    script = ScriptDirectory.from_config(revisions._config())

    assert script.get_current_head() == revisions.HEAD


def test_no_tables_have_no_revision(connection):
    assert revisions.revision(connection) is None


def test_a_stamp_without_a_revision_is_none(connection):
    connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))

    assert revisions.revision(connection) is None


def test_new_tables_are_stamped_with_our_revision(connection):
    revisions.create(connection)

    assert revisions.revision(connection) == revisions.HEAD
    assert tables(connection) == {*Base.metadata.tables, "alembic_version"}


def test_tables_are_made_where_a_downgrade_left_the_stamps_table(connection):
    connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))

    revisions.create(connection)

    assert revisions.revision(connection) == revisions.HEAD


def test_an_upgrade_from_nothing_runs_every_migration(connection):
    revisions.upgrade(connection, None, "here")

    assert revisions.revision(connection) == revisions.HEAD
    assert set(Base.metadata.tables) < tables(connection)


def test_an_upgrade_from_an_unknown_revision_is_refused_before_anything_changes(connection):
    connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
    connection.execute(text("INSERT INTO alembic_version VALUES ('9999')"))

    with pytest.raises(
        CatalogError,
        match=r"catalog here has tables of revision '9999'.*newer ckptstore.*nothing was changed",
    ):
        revisions.upgrade(connection, "9999", "here")

    assert tables(connection) == {"alembic_version"}
    assert revisions.revision(connection) == "9999"


@pytest.mark.parametrize("found", [None, "0001", "0002", "0003"])
def test_revisions_up_to_ours_are_known(found):
    revisions.check_known(found, "here")


@pytest.mark.parametrize("found", ["0000", "1", "", "head", "9999"])
def test_other_revisions_are_not_known(found):
    with pytest.raises(CatalogError, match="unknown to this ckptstore"):
        revisions.check_known(found, "here")


# ------------------------------------------------------------ where the migrations are


def test_migrations_are_inside_an_installed_package_and_beside_a_checkout(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "ckptstore"
    package.mkdir(parents=True)
    monkeypatch.setattr(revisions, "PACKAGE", package)
    assert revisions.scripts_folder() == tmp_path / "site-packages" / "migrations"

    (package / "migrations").mkdir()
    assert revisions.scripts_folder() == package / "migrations"


def test_a_folder_with_a_percent_sign_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "100%(here)s"
    folder.symlink_to(revisions.scripts_folder())
    monkeypatch.setattr(revisions, "scripts_folder", lambda: folder)

    assert ScriptDirectory.from_config(revisions._config()).get_current_head() == revisions.HEAD


# ------------------------------------------------------------ PostgreSQL, as far as text goes


def test_a_server_is_locked_while_it_is_migrated():
    said = []

    class Connection:
        def execute(self, statement, values):
            said.append((str(statement), values))

    revisions.lock(Connection())

    assert said == [("SELECT pg_advisory_xact_lock(:number)", {"number": revisions.LOCK_NUMBER})]
