"""A run's rows as they are, so that two indexes can be compared."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, select

from ckptstore.catalog.tables import Base, RunRow

Row = dict[str, Any]


def rows_of(connection: Connection, store: str, path: str) -> dict[str, dict[tuple[Any, ...], Row]]:
    """Return all rows of a run: for each table, by primary key (without store and path)."""
    found: dict[str, dict[tuple[Any, ...], Row]] = {}
    for table in Base.metadata.sorted_tables:
        if "path" not in table.c:
            continue
        keys = [name for name in table.primary_key.columns.keys() if name not in ("store", "path")]  # noqa: SIM118 - no dict
        query: Select[Any] = table.select().where(table.c.store == store, table.c.path == path)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        found[table.name] = {tuple(row[key] for key in keys): row for row in rows}
    return found


def paths_of(connection: Connection, store: str) -> list[str]:
    """Return the paths of all runs that are indexed, sorted."""
    query = select(RunRow.path).where(RunRow.store == store).order_by(RunRow.path)
    return list(connection.scalars(query))
