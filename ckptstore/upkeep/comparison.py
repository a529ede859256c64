"""The catalog compared with the storage: what an index made anew from the same files would say."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.raw import Row
from ckptstore.errors import CkptStoreError
from ckptstore.format.journal import Place, decode_entry
from ckptstore.format.layout import (
    JOURNAL_FILE,
    VERSION_FILE,
    journal_folder,
    journal_key,
    numbered,
    run_folder,
    version_key,
    versions_folder,
)
from ckptstore.storage.base import Storage
from ckptstore.upkeep.findings import Finding

Rows = Mapping[str, Mapping[tuple[Any, ...], Row]]

MEMORY = "sqlite://"
UNSETTLED = ("newer", "void", "damaged")
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
    storage: Storage, catalog: Catalog, path: str, unreadable: Collection[int] = ()
) -> list[Finding]:
    """Say how the catalog differs from the storage in what it says of a run.

    What the catalog says is read first and the storage afterwards, so that what another process
    writes meanwhile is no difference.

    Args:
        storage: The storage.
        catalog: The catalog; it is not synced.
        path: The run's path.
        unreadable: Versions whose manifests are damaged or missing: what the catalog remembers of
            them from before that is no mistake.

    Returns:
        ``catalog`` where an index made anew is right, ``journal`` and ``hole`` where the catalog
        may have the only good copy of a journal entry.

    Raises:
        CatalogError: The database failed.
        CkptStoreError: The run's journal is damaged, so no index can be made of it.
    """
    mine = catalog.rows(path)
    seen = _last_of(mine)
    if not any(mine.values()):
        return []
    if lost := _lost(storage, path, mine, seen):
        return lost
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
        return []
    if replaced := _replaced(path, mine, anew):
        return replaced
    named = "; ".join(differing[:MOST_NAMED])
    more = len(differing) - MOST_NAMED
    return [
        _differs(
            path,
            f"differs from the storage: {named}" + (f"; and {more} more" if more > 0 else ""),
        )
    ]


def copy_of(rows: Rows, path: str, number: int) -> bytes | None:
    """Return a journal entry as a catalog's rows have it, None where that is no entry."""
    text = rows.get("journal", {}).get((number,), {}).get("entry")
    if text is None:
        return None
    data: bytes = text.encode()
    try:
        decode_entry(data, "the catalog", Place(path, number))
    except CkptStoreError:
        return None
    return data


def _lost(storage: Storage, path: str, mine: Rows, seen: tuple[int, int]) -> list[Finding]:
    """Ask for what the catalog knows last: only what is not there by its name is lost."""
    version, entry = seen
    there = storage.read_many([version_key(path, version), journal_key(path, entry)], 1)
    if version and there[0] is None:
        last = _last_there(storage, versions_folder(path), VERSION_FILE)
        return [
            _differs(
                path,
                f"knows version {version}, and the last one in the storage is {last or 'none'}: "
                "newer ones were deleted, or the run was put back from a copy",
            )
        ]
    if not entry or there[1] is not None:
        return []
    last = _last_there(storage, journal_folder(path), JOURNAL_FILE)
    return [
        Finding(
            "hole",
            "damage",
            path,
            journal_key(path, number),
            f"{_index_of(path)} knows journal entry {number}, and the last one in the storage is "
            f"{last or 'none'}: it was deleted or not copied. {_advice(mine, path, number)}; "
            "if the run was put back from a copy on purpose, reindex() forgets what is not there",
        )
        for (number,) in sorted(mine["journal"])
        if number > last
    ]


def _advice(rows: Rows, path: str, number: int) -> str:
    if copy_of(rows, path, number) is None:
        return "Bring that file back from a copy: this catalog has none"
    return "This catalog has it: verify(repair=True) writes it again"


def _index_of(path: str) -> str:
    return f"the catalog's index of {run_folder(path)}"


def _replaced(path: str, mine: Rows, anew: Rows) -> list[Finding]:
    """Name the entries that are good in the storage and in the catalog, and not the same.

    Where the versions differ too, another run lies there now: the storage is right, as for a sync.
    """
    last, _ = _last_of(mine)
    heads = [rows["versions"].get((last,), {}).get("head") for rows in (mine, anew)]
    if heads[0] != heads[1]:
        return []
    return [
        Finding(
            "journal",
            "damage",
            path,
            journal_key(path, number),
            f"journal entry {number} is not the one that this catalog indexed: one was put in its "
            "place. Which is right can't be told: bring that file back from a copy, or delete it "
            "and run verify(repair=True) again to have the catalog's; if the run was put back from "
            "a copy on purpose, call reindex(), which forgets the catalog's",
        )
        for (number,), row in sorted(anew["journal"].items())
        if row["entry"] is not None
        and copy_of(mine, path, number) not in (None, row["entry"].encode())
    ]


def _differs(path: str, how: str) -> Finding:
    return Finding("catalog", "damage", path, None, f"{_index_of(path)} {how}")


def _last_there(storage: Storage, folder: str, kind: re.Pattern[str]) -> int:
    return max(numbered(storage.list_folder(folder).files, kind), default=0)


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
