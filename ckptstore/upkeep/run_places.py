"""Where a store's runs lie, as told by their files; whatever else lies there is noted.

A store may have been put inside of another one. Its runs are no runs of the outer one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ckptstore.format.layout import (
    CLOCK_FOLDER,
    FILES_FOLDER,
    JOURNAL_FILE,
    JOURNAL_FOLDER,
    PACKS_FOLDER,
    RUNS_FOLDER,
    STORE_KEY,
    STORE_KEY_NEWER,
    VERSION_FILE,
    VERSIONS_FOLDER,
    is_run_path,
    run_folder,
)
from ckptstore.storage.base import Storage
from ckptstore.upkeep.findings import Finding

PLACE = re.compile(
    rf"{RUNS_FOLDER}/(.+)/(?:{VERSIONS_FOLDER}/{VERSION_FILE.pattern}"
    rf"|{JOURNAL_FOLDER}/{JOURNAL_FILE.pattern})"
)
IN_A_STORE = (
    *(f"{folder}/" for folder in (RUNS_FOLDER, PACKS_FOLDER, FILES_FOLDER, CLOCK_FOLDER)),
    *(STORE_KEY, STORE_KEY_NEWER, "catalog.sqlite3"),
)
"""How the keys of what a store holds begin, relative to its root."""


def run_paths(storage: Storage, note: Callable[[Finding], object]) -> list[str]:
    """Return the paths of all runs, sorted.

    Args:
        storage: Where the store is.
        note: Takes a finding for whatever else lies below ``runs``.

    Raises:
        StorageError: The storage failed.
    """
    found, strays, stores = set(), [], set()
    for stored in storage.walk(RUNS_FOLDER):
        folder, _, name = stored.key.rpartition("/")
        match = PLACE.fullmatch(stored.key)
        if match and is_run_path(match[1]) and int(match[2] or match[3]) > 0:
            found.add(match[1])
        else:
            strays.append(stored.key)
            if name in (STORE_KEY, STORE_KEY_NEWER):
                stores.add(folder)
    for folder in sorted(stores):
        message = (
            "is a store of its own, inside of this one, and is not checked with it: move it out, "
            f"or check it as {storage.url}/{folder}"
        )
        note(Finding("unknown", "note", None, folder, message))
    inside = tuple(f"{folder}/{own}" for folder in stores for own in IN_A_STORE)
    for key in strays:
        if not key.startswith(inside):
            message = "is no manifest or journal entry by its name; ckptstore leaves it alone"
            note(Finding("unknown", "note", None, key, message))
    return sorted(path for path in found if not f"{run_folder(path)}/".startswith(inside))
