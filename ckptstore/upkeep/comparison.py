"""The catalog compared with the storage: what an index made anew from the same files would say."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.raw import Row
from ckptstore.format.layout import (
    JOURNAL_FILE,
    VERSION_FILE,
    journal_folder,
    run_folder,
    versions_folder,
)
from ckptstore.storage.base import Storage

Rows = Mapping[str, Mapping[tuple[Any, ...], Row]]

MEMORY = "sqlite://"
UNSETTLED = ("newer", "void")
MOST_NAMED = 5


class Until:
    """A storage as it was when a run had so many versions and journal entries.

    A catalog that is behind is no mistake, so it is compared with what it has seen.

    Args:
        storage: The storage as it is.
        path: The run's path.
        versions: The number of the last version that is shown.
        entries: The number of the last journal entry that is shown.
    """

    def __init__(self, storage: Storage, path: str, versions: int, entries: int) -> None:
        self._storage = storage
        self._last = {
            versions_folder(path): (VERSION_FILE, versions),
            journal_folder(path): (JOURNAL_FILE, entries),
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Return the first *length* bytes of each object, None where there is none."""
        shown = [key for key in keys if self._shows(key)]
        found = dict(zip(shown, self._storage.read_many(shown, length), strict=True))
        return [found.get(key) for key in keys]

    def _shows(self, key: str) -> bool:
        folder, _, name = key.rpartition("/")
        kind, last = self._last.get(folder, (re.compile(""), 0))
        match = kind.fullmatch(name)
        return match is None or int(match[1]) <= last


def compare(
    storage: Storage,
    catalog: Catalog,
    path: str,
    last: tuple[int, int],
    unreadable: Collection[int] = (),
) -> str | None:
    """Say how the catalog differs from the storage in what it says of a run, None if it doesn't.

    Args:
        storage: The storage.
        catalog: The catalog; it is not synced.
        path: The run's path.
        last: The numbers of the last version and the last journal entry in the storage.
        unreadable: Versions whose manifests are damaged or missing: what the catalog remembers of
            them from before that is no mistake.

    Raises:
        CatalogError: The database failed.
        CkptStoreError: The run's journal is damaged, so no index can be made of it.
    """
    mine = catalog.rows(path)
    seen = _last_of(mine)
    if not any(mine.values()):
        return None
    what = f"the catalog's index of {run_folder(path)}"
    for kind, indexed, there in zip(("version", "journal entry"), seen, last, strict=True):
        if indexed > there:
            return (
                f"{what} knows {kind} {indexed}, and the last one in the storage is "
                f"{there or 'none'}: newer ones were deleted, or the run was put back from a copy"
            )
    # Whatever a catalog asks of a storage, it asks for manifests and entries with read_many first.
    view = cast("Storage", Until(storage, path, *seen))
    fresh = Catalog(MEMORY, view)
    try:
        fresh.sync(path)
        anew = fresh.rows(path)
    finally:
        fresh.close()
    differing = list(_differences(mine, anew, unreadable))
    if not differing or _is_behind(mine, anew):
        return None
    named = "; ".join(differing[:MOST_NAMED])
    more = len(differing) - MOST_NAMED
    return f"{what} differs from the storage: {named}" + (f"; and {more} more" if more > 0 else "")


def _last_of(rows: Rows) -> tuple[int, int]:
    versions = (row["version"] for row in rows.get("versions", {}).values())
    entries = (row["number"] for row in rows.get("journal", {}).values())
    return max(versions, default=0), max(entries, default=0)


def _differences(mine: Rows, anew: Rows, unreadable: Collection[int]) -> Iterator[str]:
    for table in mine:
        for key in sorted({*mine[table], *anew[table]}, key=repr):
            row, other = mine[table].get(key), anew[table].get(key)
            name = " ".join(map(str, (table, *key)))
            if (row or other or {}).get("version") in unreadable:
                continue
            if row is None:
                yield f"{name} is missing"
            elif other is None:
                yield f"{name} should not be there"
            elif row != other:
                columns = [column for column in other if row[column] != other[column]]
                yield f"{name} has other values of {', '.join(columns)}"


def _is_behind(mine: Rows, anew: Rows) -> bool:
    """Say whether a file that was torn, or too new to be read, has become readable since."""
    return any(
        row["kind"] in UNSETTLED and anew[table].get(key) != row
        for table in ("versions", "journal")
        for key, row in mine[table].items()
    )
