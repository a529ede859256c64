"""What the other processes of the tests do."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from ckptstore.catalog.index import Catalog
from ckptstore.storage.local import LocalStorage
from tests.catalog.places import commit, make_head


def add_versions(root: str, run: str, count: int) -> None:
    """Commit versions into a run that others write too, and index each."""
    storage = LocalStorage(root)
    catalog = Catalog(None, storage, timeout_s=60)
    done = 0
    while done < count:
        catalog.sync(run)
        number, _ = catalog.next_numbers(run)
        head = make_head(run, number)
        try:
            line = commit(storage, head)
        except FileExistsError:
            continue
        catalog.add(line, head)
        done += 1
    catalog.close()


def hold_lock(database: str, ready: str, seconds: float) -> None:
    """Keep everybody else out of a database."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    Path(ready).touch()
    time.sleep(seconds)
