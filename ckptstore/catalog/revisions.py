"""Which revision of the tables a database has, and bringing it up to ours.

Alembic takes longer to import than a hundred saves take to index, so it is imported only where
tables of another revision were found. A new SQLite database gets the tables as they are now.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from ckptstore.catalog.tables import Base
from ckptstore.errors import CatalogError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The revision of the tables in :mod:`ckptstore.catalog.tables`; a test compares the two."""

PACKAGE = Path(__file__).parents[1]
# Any number that other programs on a shared server don't use: the ASCII codes of "ckpt".
LOCK_NUMBER = 0x636B7074

# Alembic keeps the migration that runs in a module's global.
_one_at_a_time = threading.Lock()


def scripts_folder() -> Path:
    """Return where the migrations are: inside an installed package, beside it in a checkout."""
    inside = PACKAGE / "migrations"
    return inside if inside.is_dir() else PACKAGE.parent / "migrations"


def revision(connection: Connection) -> str | None:
    """Return the revision of a database's tables, None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return found[0] if found else None


def create(connection: Connection) -> None:
    """Create the tables as they are now, in the caller's transaction."""
    Base.metadata.create_all(connection)
    connection.execute(
        text(
            "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def upgrade(connection: Connection, found: str | None, place: str) -> None:
    """Run the migrations from revision *found* to :data:`HEAD`, in the caller's transaction.

    Raises:
        CatalogError: *found* is unknown here: nothing was changed.
    """
    from alembic import command

    check_known(found, place)
    config = _config()
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")


def check_known(found: str | None, place: str) -> None:
    """Refuse tables of a revision that this ckptstore does not know.

    Raises:
        CatalogError: It is unknown.
    """
    from alembic.script import ScriptDirectory

    if found is None:
        return
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found not in known:
        raise CatalogError(
            f"the catalog {place} has tables of revision {found!r}, unknown to this ckptstore: it "
            "was made by a newer ckptstore; upgrade with 'pip install --upgrade ckptstore', or "
            "name another place with catalog=; nothing was changed"
        )


def lock(connection: Connection) -> None:
    """Let one process at a time migrate a PostgreSQL database, until the transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER})


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    # Alembic reads '%' as the start of an interpolation.
    config.set_main_option("script_location", str(scripts_folder()).replace("%", "%%"))
    return config
