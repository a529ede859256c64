"""The first write: ``ckptstore.json`` made once, and the storage's exclusivity put to the test."""

from __future__ import annotations

import uuid

from ckptstore.errors import NotExclusiveError, StorageError
from ckptstore.format.journal import DEFAULT_GRACE_S, StoreFacts, decode_store, encode_store
from ckptstore.format.layout import STORE_KEY
from ckptstore.saving.commit import create_once
from ckptstore.storage.base import Storage

SINGLE_WRITER_ADVICE = (
    "if no other process will ever write to it at the same time, open it with "
    "Store(…, single_writer=True)"
)


def found(storage: Storage, *, single_writer: bool) -> StoreFacts:
    """Make the store if there is none, and check that the storage keeps two writers apart.

    Called before a process's first write. The check creates ``ckptstore.json`` again with its own
    bytes, which must fail: some servers ignore the condition of a conditional write. It can only
    take
    trust away, never give it.

    Raises:
        NotExclusiveError: The storage can't keep two writers apart, and ``single_writer`` isn't
        set.
            Nothing was written where that is known beforehand.
        NewerFormatError: A newer ckptstore made the store.
        IntegrityError: ``ckptstore.json`` is damaged.
        StorageError: It could not be read or written.
    """
    if not storage.exclusive and not single_writer:
        raise NotExclusiveError(
            f"{storage.url}: nothing is known that makes this storage let only one of two "
            "writers create a "
            f"file, so two trainings could overwrite each other's versions: {SINGLE_WRITER_ADVICE}"
        )
    where = f"{storage.url}/{STORE_KEY}"
    try:
        data = storage.read(STORE_KEY)
    except FileNotFoundError:
        facts = StoreFacts(uuid.uuid4(), DEFAULT_GRACE_S, storage.in_place)
        data = encode_store(facts)
        if not create_once(storage, STORE_KEY, data, str(facts.store_id)):
            data = storage.read(STORE_KEY)
    facts = decode_store(data, where)
    if storage.exclusive and _created_again(storage, data):
        storage.exclusive = False
        if not single_writer:
            raise NotExclusiveError(
                f"{where} could be created a second time: this server ignores the condition of a "
                "conditional "
                "write (If-None-Match), so two trainings could overwrite each other's versions: "
                f"{SINGLE_WRITER_ADVICE}"
            )
    return facts


def _created_again(storage: Storage, data: bytes) -> bool:
    try:
        storage.create(STORE_KEY, data)
    except FileExistsError:
        return False
    except StorageError:
        # Refused for another reason (a policy that allows no overwriting): refused all the same.
        return False
    return True
