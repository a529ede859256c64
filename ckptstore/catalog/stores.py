"""``ckptstore.json``, or what it means that there is none."""

from __future__ import annotations

from ckptstore.errors import CkptStoreError, IntegrityError, NewerFormatError, NotAStoreError
from ckptstore.format.layout import RUNS_FOLDER, STORE_KEY, STORE_KEY_NEWER
from ckptstore.format.store_facts import StoreFacts, decode_store
from ckptstore.storage.base import Storage


def store_facts(storage: Storage) -> StoreFacts:
    """Return what ``ckptstore.json`` says.

    Raises:
        NotAStoreError: There is no store; and as :func:`missing` says.
        IntegrityError: It is damaged.
        NewerFormatError: A newer ckptstore made it.
        StorageError: The storage failed.
    """
    try:
        data = storage.read(STORE_KEY)
    except FileNotFoundError:
        raise missing(storage) from None
    return decode_store(data, f"{storage.url}/{STORE_KEY}")


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
