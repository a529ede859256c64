"""Where there is no ``ckptstore.json``: what that means."""

from __future__ import annotations

from ckptstore.errors import CkptStoreError, IntegrityError, NewerFormatError, NotAStoreError
from ckptstore.format.layout import RUNS_FOLDER, STORE_KEY, STORE_KEY_NEWER
from ckptstore.storage.base import Storage


def missing(storage: Storage) -> CkptStoreError:
    """Return the error that says why there is no ``ckptstore.json``.

    Returns:
        NotAStoreError where there is nothing at all, so that a first save may make a store;
        NewerFormatError where a later format's store is; IntegrityError where there are runs, so
        that a store copied in part is not taken for an empty place.

    Raises:
        StorageError: The storage failed.
    """
    if storage.read_many([STORE_KEY_NEWER], 1) != [None]:
        return NewerFormatError(storage.url, f"it has {STORE_KEY_NEWER} and no {STORE_KEY}")
    if storage.list_folder(RUNS_FOLDER).folders and storage.read_many([STORE_KEY], 1) == [None]:
        # Looked for once more: another process may have founded the store and saved since.
        return IntegrityError(
            f"{storage.url} has runs and no {STORE_KEY}: was it copied in part, or that file "
            "deleted? Bring it back from where the store came from; nothing was changed"
        )
    return NotAStoreError(
        f"{storage.url} holds no store: it has no {STORE_KEY}; the first save there creates one"
    )
