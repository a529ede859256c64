"""The storage's own clock, by which everything that is ever deleted is judged."""

from __future__ import annotations

from datetime import datetime

from uuid_utils.compat import uuid7

from ckptstore.errors import StorageError
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
        # Somebody emptied the folder in between: no time is better than a wrong one.
        return None
    except StorageError as error:
        raise failure or error from None
    finally:
        storage.delete([key])
