"""The commit: one exclusive creation, and an outcome that is found out, never guessed."""

from __future__ import annotations

from collections.abc import Callable

from ckptstore.errors import (
    DurabilityError,
    NoAnswerError,
    OutcomeUnknownError,
    SecondWriterError,
    StorageError,
)
from ckptstore.storage.base import Storage

# A name is lost to another writer at most once a version; this many in a row is no race any more.
MAX_LOST_RACES = 1000


def create_once(storage: Storage, key: str, data: bytes, writer_id: str) -> bool:
    """Create an object that exactly one writer may create.

    Args:
        storage: Where.
        key: The object's key.
        data: Its bytes; they hold *writer_id*, so no other writer's are equal.
        writer_id: The save id, or a journal entry's writer; named when the outcome stays unknown.

    Returns:
        True if the object is ours, False if another writer has that name.

    Raises:
        DurabilityError: An fsync failed. The object may be readable, and may not survive.
        OutcomeUnknownError: Creation failed and the object could not be read back, or it is not
            there and a request that got no answer may still make it.
        StorageError: Creation failed and nothing is there.
    """
    try:
        storage.create(key, data)
    except DurabilityError:
        raise
    except (StorageError, FileExistsError) as error:
        return _find_out(storage, key, data, writer_id, error)
    except BaseException as interrupt:
        # Ctrl-C or SIGTERM in the middle of the creation: say what became of it, then stop.
        _explain(storage, key, data, writer_id, interrupt)
        raise
    return True


def create_next(
    storage: Storage,
    key: Callable[[int], str],
    number: int,
    data: Callable[[int], bytes],
    writer_id: str,
) -> int:
    """Create the next object of a numbered line, whoever else is writing to it.

    Args:
        storage: Where.
        key: Gives the key of a number.
        number: The first that may be free; every smaller one must be taken.
        data: Gives the object's bytes for a number.
        writer_id: As for :func:`create_once`.

    Returns:
        The number that became ours.

    Raises:
        StorageError: As for :func:`create_once`; SecondWriterError on single-writer storage when
            the number is taken.
    """
    for candidate in range(number, number + MAX_LOST_RACES):
        if create_once(storage, key(candidate), data(candidate), writer_id):
            return candidate
        if not storage.exclusive:
            raise SecondWriterError(
                f"{storage.url}/{key(candidate)} was created by another process, and this "
                "storage can't keep "
                "two writers apart: stop the other one; what it wrote is still there"
            )
    raise StorageError(
        f"{storage.url}/{key(number)}: lost {MAX_LOST_RACES} races for a number in a row; is "
        "another process "
        "writing in a loop?"
    )


def _find_out(storage: Storage, key: str, data: bytes, writer_id: str, error: OSError) -> bool:
    try:
        found = storage.read(key)
    except FileNotFoundError:
        if isinstance(error, FileExistsError):
            # Told that it exists, and it doesn't: whatever this storage is, it can't be relied on.
            raise OutcomeUnknownError(f"{storage.url}/{key}", writer_id, error) from error
        if isinstance(error, NoAnswerError):
            why = "it is not there now, but a request that got no answer may still make it"
            where = f"{storage.url}/{key}"
            raise OutcomeUnknownError(where, writer_id, error, why) from error
        raise error from None
    except StorageError as unread:
        raise OutcomeUnknownError(f"{storage.url}/{key}", writer_id, error) from unread
    except BaseException as interrupt:
        _note_unknown(interrupt, f"{storage.url}/{key}", writer_id)
        raise
    if found == data:
        return True
    if data.startswith(found) and not isinstance(error, FileExistsError):
        # Torn in place, by us: the number is spent and the version is none.
        raise error
    return False


def _note_unknown(interrupt: BaseException, where: str, writer_id: str) -> None:
    interrupt.add_note(
        f"ckptstore: outcome unknown: {where} was not read back; it would hold the id {writer_id}"
    )


def _explain(
    storage: Storage, key: str, data: bytes, writer_id: str, interrupt: BaseException
) -> None:
    where = f"{storage.url}/{key}"
    try:
        committed = storage.read(key) == data
    except FileNotFoundError:
        committed = False
    except StorageError:
        _note_unknown(interrupt, where, writer_id)
        return
    except BaseException as second:
        _note_unknown(second, where, writer_id)
        raise
    interrupt.add_note(
        f"ckptstore: {where} was committed"
        if committed
        else f"ckptstore: {where} was not committed"
    )
