"""What interrupted writes into this store left, told from what is other people's."""

from __future__ import annotations

from collections.abc import Iterator

from ckptstore.format.layout import (
    CLOCK_FOLDER,
    is_clock_key,
    is_leftover_file,
    is_leftover_upload,
)
from ckptstore.storage.base import Leftover, Storage, Stored


def own_leftovers(storage: Storage) -> Iterator[Leftover]:
    """Yield what interrupted saves into this store left, and no one else's.

    A bucket or folder may hold more than this store: other stores, other people's uploads. And what
    is an object by another name takes no room, and is let be for the sake of the object's time;
    but for one that was only written to read the storage's clock.
    """
    for leftover in storage.leftovers():
        if leftover.twin is not None and not is_clock_key(leftover.twin):
            continue
        is_own = is_leftover_file if leftover.upload is None else is_leftover_upload
        if is_own(leftover.key):
            yield leftover


def own_clocks(storage: Storage) -> Iterator[Stored]:
    """Yield the objects that were written to read the storage's clock off them, and stayed."""
    return (stored for stored in storage.walk(CLOCK_FOLDER) if is_clock_key(stored.key))
