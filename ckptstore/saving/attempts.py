"""A save that finds no room is made again; each attempt is a fresh save, and leaves nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from ckptstore.errors import DurabilityError, StorageError
from ckptstore.format.layout import file_key, pack_key
from ckptstore.format.manifest import Head
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.effort import Effort
from ckptstore.saving.files import NewFile
from ckptstore.saving.moment import Moment
from ckptstore.saving.room import check_room, tensor_bytes
from ckptstore.saving.run_writer import LastSaved, RunWriter
from ckptstore.saving.save import Facts, save
from ckptstore.storage.base import Storage
from ckptstore.storage.failures import is_full


def save_in_attempts(
    storage: Storage,
    writer: RunWriter,
    parts: Sequence[CapturedPart],
    facts: Facts,
    files: Sequence[NewFile] = (),
    *,
    keep: Mapping[str, Any] | None = None,
    effort: Effort | None = None,
) -> Head:
    """Write a version and commit it, when there is room for it.

    Each attempt has a save id of its own, as no name is ever written twice, and looks anew at what
    it may share and since when: for half the grace period counts from the attempt, not from the
    first call.

    Args:
        storage: Where to.
        writer: The run as this process writes it; it knows what to do while there is no room.
        parts: As captured. Nothing may change them until this returns, however long that takes.
        facts: What to record beside them.
        files: Opaque files to store with them.
        keep: What the caller wants kept of the run; None means what its settings say. Before this
            process's first save into a run there is a warning if there is no room for all that.
        effort: What the caller's call costs; by default it begins here.

    Raises:
        CkptStoreError: As :func:`ckptstore.saving.save.save`.
    """
    effort = effort or Effort()
    if not writer.room_checked:
        check_room(storage, writer, parts, keep)
        writer.room_checked = True

    def attempt() -> tuple[Head, StorageError | None]:
        save_id, begun = uuid7(), Moment.now()
        saved: list[Head] = []
        failed: StorageError | None = None
        try:
            save(
                storage,
                writer,
                parts,
                facts,
                files,
                save_id=save_id,
                committed=saved.append,
                effort=effort,
            )
        except StorageError as error:
            if not saved:
                if is_full(error):
                    _leave_nothing(storage, writer, save_id, error)
                raise
            failed = error  # it is there, and nobody may make it again
        writer.pace.add(tensor_bytes(parts), begun.elapsed_s())
        if facts.kind == "checkpoint":
            at_s = time.monotonic()
            as_of_s = effort.begun_s if effort.is_in_background else at_s
            writer.last_saved = LastSaved(saved[0], at_s, as_of_s)
        return saved[0], failed

    head, failed = writer.when_full.write(f"a version of run {writer.run!r}", attempt)
    if failed is not None:
        raise failed
    return head


def _leave_nothing(storage: Storage, writer: RunWriter, save_id: UUID, error: StorageError) -> None:
    """Remove what an attempt wrote, if no manifest names it; say on *error* how much it was.

    Else each attempt would take up what room there is until a collection comes by. Nobody but this
    attempt knows these names, and an answer that says "no room" is final: nothing may land later.
    """
    try:
        committing = error.needed_bytes is None
        if committing and writer.holds(save_id):
            if isinstance(error, DurabilityError):
                return  # it can be read and may not survive: nobody may make another of it
            written = 0
        else:
            written = _remove(storage, save_id)
        if committing:
            error.needed_bytes = written
    except StorageError as failure:
        error.add_note(f"what the save wrote could not be removed, a collection will: {failure}")


def _remove(storage: Storage, save_id: UUID) -> int:
    """Remove a save's packs and files. Return how many bytes they had."""
    found: list[str] = []
    for key in (pack_key(save_id, 0), file_key(save_id, 0)):
        folder = key.rpartition("/")[0]
        found += [
            f"{folder}/{each}"
            for each in storage.list_folder(folder).files
            if each.startswith(f"{save_id}-")
        ]
    size_bytes = sum(storage.size_bytes(key) for key in found)
    failed = storage.delete(found) if found else {}
    for failure in failed.values():
        raise failure
    return size_bytes
