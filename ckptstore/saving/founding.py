"""The first write: ``ckptstore.json`` made once, and the storage's exclusivity put to the test."""

from __future__ import annotations

import uuid
from pathlib import Path

from ckptstore.catalog.stores import missing
from ckptstore.errors import (
    ArgumentError,
    DurabilityError,
    IntegrityError,
    NotAStoreError,
    NotExclusiveError,
    StorageError,
)
from ckptstore.format.layout import (
    CLOCK_FOLDER,
    FILES_FOLDER,
    PACKS_FOLDER,
    RUNS_FOLDER,
    STORE_KEY,
)
from ckptstore.format.store_facts import DEFAULT_GRACE_S, StoreFacts, decode_store, encode_store
from ckptstore.saving.commit import create_once
from ckptstore.storage.base import Storage

OWN_FOLDERS = frozenset({CLOCK_FOLDER, FILES_FOLDER, PACKS_FOLDER, RUNS_FOLDER})
SINGLE_WRITER_ADVICE = (
    "if no other process will ever write to it at the same time, open it with "
    "Store(…, single_writer=True)"
)


def found(storage: Storage, *, single_writer: bool) -> StoreFacts:
    """Make the store if there is none, and check that the storage keeps two writers apart.

    Called before a process's first write. The check creates ``ckptstore.json`` again with its own
    bytes, which must fail: some servers ignore the condition of a conditional write. It can only
    take trust away, never give it.

    Raises:
        ArgumentError: There is none, and the place is inside another store.
        NotExclusiveError: The storage can't keep two writers apart, and ``single_writer`` isn't
            set. Nothing was written where that is known beforehand.
        NewerFormatError: A newer ckptstore made the store; nothing was written.
        IntegrityError: ``ckptstore.json`` is damaged, or missing though there are runs.
        StorageError: It could not be read or written.
    """
    _check_trust(storage, "nothing is known that makes it so", single_writer=single_writer)
    where = f"{storage.url}/{STORE_KEY}"
    try:
        data = storage.read(STORE_KEY)
    except FileNotFoundError:
        data = _make(storage, single_writer=single_writer)
    try:
        facts = decode_store(data, where)
    except IntegrityError as error:
        if not storage.list_folder(RUNS_FOLDER).folders:
            error.add_note(
                f"ckptstore: nothing was ever saved there: delete {where} and save again"
            )
        raise
    if storage.exclusive and _is_created_again(storage, data):
        storage.exclusive = False
    _check_trust(
        storage,
        f"{STORE_KEY} could be created a second time, so this server ignores the condition of a "
        "conditional write (If-None-Match)",
        single_writer=single_writer,
    )
    return facts


def _make(storage: Storage, *, single_writer: bool) -> bytes:
    why = missing(storage)
    if not isinstance(why, NotAStoreError):
        raise why
    _check_place(storage)
    storage.prepare()
    facts = StoreFacts(uuid.uuid4(), DEFAULT_GRACE_S, storage.in_place)
    data = encode_store(facts)
    try:
        is_ours = create_once(storage, STORE_KEY, data, str(facts.store_id))
    except NotExclusiveError:
        # A service that says it knows no conditional writes; nothing was written.
        if not single_writer:
            raise
        is_ours = create_once(storage, STORE_KEY, data, str(facts.store_id))
    return data if is_ours else storage.read(STORE_KEY)


def _check_place(storage: Storage) -> None:
    """Refuse to make a store among another one's own files, which would take it for its own.

    Only on a disk: in a bucket that would be a request for each level, for a mistake nobody makes.
    """
    if storage.local_folder is None:
        return
    folder = Path(storage.local_folder)
    for outer in folder.parents:
        if (outer / STORE_KEY).is_file() and folder.relative_to(outer).parts[0] in OWN_FOLDERS:
            raise ArgumentError(
                f"{storage.url} lies among the files of the store at {outer}, whose checks and "
                "clean-up would take it for theirs: save into that one (another run, say), or "
                "name another place"
            )


def _check_trust(storage: Storage, why: str, *, single_writer: bool) -> None:
    if not storage.exclusive and not single_writer:
        raise NotExclusiveError(
            f"{storage.url}: this storage can't be trusted to let only one of two writers create "
            f"a file ({why}), so two trainings could overwrite each other's versions: "
            f"{SINGLE_WRITER_ADVICE}"
        )


def _is_created_again(storage: Storage, data: bytes) -> bool:
    try:
        storage.create(STORE_KEY, data)
    except FileExistsError:
        return False
    except DurabilityError:
        raise
    except StorageError:
        # Refused for another reason (a policy that allows no overwriting): refused all the same.
        return False
    return True
