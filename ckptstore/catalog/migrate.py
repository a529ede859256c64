"""``ckptstore migrate``: bringing a database up to this ckptstore's tables."""

from __future__ import annotations

from ckptstore.catalog.engine import TIMEOUT_S, Database, parse_url


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the catalog at *url* up to date; a new database gets its tables.

    Safe to run by several processes at once, and again.

    Args:
        url: The database, e.g. ``postgresql+psycopg://host/database``.

    Returns:
        The revision it had, None if it had no tables, and the one it has now.

    Raises:
        CatalogError: The database failed, or a newer ckptstore made its tables. It is unchanged.
        MissingPackageError: The database's driver is not installed.
    """
    database = Database(parse_url(url), timeout_s=TIMEOUT_S)
    try:
        return database.migrate()
    finally:
        database.close()
