"""The storage's own clock, by which everything that is ever deleted is judged."""

from __future__ import annotations

from datetime import UTC, datetime

from uuid_utils.compat import uuid7

from ckptstore.errors import StorageError
from ckptstore.format.layout import clock_key
from ckptstore.storage.base import Storage

ATTEMPTS = 3
GONE = datetime.min.replace(tzinfo=UTC)
"""What stands for an object that somebody removed before its time was read."""


def storage_now(storage: Storage) -> datetime | None:
    """Return what time it is by the storage's clock, in UTC; None if the storage doesn't tell.

    An object is created, its time read, and it is removed again. What was in the storage before
    this was called was there at that time. If it can't be removed it is a leftover, which a later
    collection removes.

    Raises:
        StorageError: The object could not be created or looked at.
    """
    for _ in range(ATTEMPTS):
        # A collection that has slept since it listed may take the object for an old one.
        if (now := _ask(storage, clock_key(uuid7()))) is not GONE:
            return now
    return None


def _ask(storage: Storage, key: str) -> datetime | None:
    failure: StorageError | None = None
    try:
        storage.create(key, str(key).encode())
    except FileExistsError:
        pass  # nobody else knows the key: an attempt of this call made it
    except StorageError as error:
        # It may be there all the same: the reply was lost, and a second attempt refused.
        failure = error
    try:
        return storage.written_at(key)
    except FileNotFoundError:
        if failure is not None:
            raise failure from None
        return GONE
    except StorageError as error:
        raise failure or error from None
    finally:
        storage.delete([key])
