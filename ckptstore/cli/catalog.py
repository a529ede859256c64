"""``ckptstore migrate``: bringing a shared catalog up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptstore.errors import ArgumentError


def migrate_catalog(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="CATALOG_URL",
            help="The database, e.g. postgresql+psycopg://host/database or sqlite:///catalog.sqlite3.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bring a catalog's tables up to date.

    A new database gets its tables. Safe to run again, and by several processes at once. Only
    databases that several people share need it: SQLite is brought up to date by the first save.
    Keep a password out of the address: PostgreSQL takes it from PGPASSWORD or ~/.pgpass.
    """
    if url is None:
        raise ArgumentError(
            "name the database to bring up to date, e.g. 'ckptstore migrate "
            "postgresql+psycopg://host/database'; a catalog in SQLite needs no migrating, as the "
            "first save brings it up to date"
        )
    from ckptstore.catalog.migrate import migrate

    before, after = migrate(url)
    if before == after:
        typer.echo(f"The catalog is up to date: revision {after}.")
    else:
        typer.echo(f"Migrated the catalog from {before or 'no tables'} to revision {after}.")
