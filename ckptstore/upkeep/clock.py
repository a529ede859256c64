"""The storage's own clock, by which everything that is ever deleted is judged."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from uuid_utils.compat import uuid7

from ckptstore.format.layout import clock_key
from ckptstore.storage.base import Storage


def storage_now(storage: Storage) -> datetime | None:
    """Return what time it is by the storage's clock, in UTC; None if the storage doesn't tell.

    An object is created, its time read, and it is removed again. What was in the storage before
    this was called was there at that time. If it can't be removed it is a leftover, which a later
    collection removes.

    Raises:
        StorageError: The object could not be created or looked at.
    """
    key = clock_key(uuid7())
    # Nobody else knows the key: if there is such an object, an attempt of this call made it.
    with suppress(FileExistsError):
        storage.create(key, str(key).encode())
    try:
        return storage.written_at(key)
    except FileNotFoundError:
        # Somebody emptied the folder in between: no time is better than a wrong one.
        return None
    finally:
        storage.delete([key])
