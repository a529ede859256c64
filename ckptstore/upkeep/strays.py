"""What lies in a store and belongs to no version: no damage, but room that it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice

from ckptstore.errors import StorageError
from ckptstore.format.fields import format_time
from ckptstore.format.layout import FILES_FOLDER, PACKS_FOLDER, is_data_key
from ckptstore.storage.base import Leftover, Storage, Stored
from ckptstore.text import size
from ckptstore.upkeep.findings import Finding
from ckptstore.upkeep.leftovers import own_clocks, own_leftovers
from ckptstore.upkeep.survey import OF_ONE_FILE

Note = Callable[[Finding], object]


def data_objects(storage: Storage, note: Note) -> dict[str, Stored]:
    """Return all packs and files by key; whatever else lies in their folders is noted."""
    found = {}
    for folder in (PACKS_FOLDER, FILES_FOLDER):
        for stored in _walk(storage, folder, note):
            if is_data_key(stored.key):
                found[stored.key] = stored
            else:
                message = "is no pack or file by its name; ckptstore leaves it alone"
                note(Finding("unknown", "note", None, stored.key, message))
    return found


def note_orphans(
    objects: Iterable[Stored], named: Collection[str], note: Note, perhaps: Mapping[str, str]
) -> None:
    """Note the packs and files that no version names.

    Args:
        objects: All packs and files.
        named: The keys of those that a version names.
        note: Takes each finding.
        perhaps: Refs of versions of which nobody knows what they name, and why.
    """
    if perhaps:
        some = ", ".join(f"{ref} (its manifest {why})" for ref, why in islice(perhaps.items(), 3))
        more = f" and {len(perhaps) - 3} more" if len(perhaps) > 3 else ""  # noqa: PLR2004 - named above
        whose = (
            f"It may well belong to {some}{more}: leave it, and bring the manifest back first. "
            "collect() removes nothing while that is so; where the version is retired, it removes "
            "this too after the grace period"
        )
    else:
        whose = (
            "A save under way or one that was interrupted left it; collect() removes it once it is "
            "older than the store's grace period"
        )
    for stored in objects:
        if stored.key not in named:
            note(
                Finding(
                    "orphan",
                    "note",
                    None,
                    stored.key,
                    f"is named by no version that can be read: {size(stored.size_bytes)}, written "
                    f"{_time(stored.written_at)}. {whose}",
                )
            )


def note_leftovers(storage: Storage, note: Note) -> None:
    """Note temporary files, unfinished uploads, and objects written to read the clock."""
    for leftover in _leftovers(storage):
        what = "a temporary file" if leftover.upload is None else "an unfinished multipart upload"
        room = "" if leftover.size_bytes is None else f", {size(leftover.size_bytes)}"
        note(
            Finding(
                "leftover",
                "note",
                None,
                leftover.key,
                f"{what}{room}, written {_time(leftover.written_at)}: a write under way or one "
                "that was interrupted left it; collect() removes it once it is older than the "
                "store's grace period",
            )
        )
    for stored in own_clocks(storage):
        message = f"was written {_time(stored.written_at)} to read the storage's clock, and stayed"
        note(Finding("leftover", "note", None, stored.key, message))


def _walk(storage: Storage, folder: str, note: Note) -> Iterator[Stored]:
    """Yield what lies below a folder, also where one file in it can't be looked at."""
    try:
        yield from list(storage.walk(folder))
    except StorageError as error:
        if error.errno not in OF_ONE_FILE:
            raise
        below = storage.list_folder(folder).folders
        # A folder of packs has no folders in it, as far as it is ours.
        if not below:
            raise
        for each in below:
            try:
                yield from list(storage.walk(f"{folder}/{each}"))
            except StorageError as failure:
                if failure.errno not in OF_ONE_FILE:
                    raise
                message = (
                    f"can't be listed: {failure}. What versions name in it is checked all the "
                    "same; what belongs to none of them is not known, and nothing is collected"
                )
                note(Finding("unknown", "note", None, f"{folder}/{each}", message))


def _leftovers(storage: Storage) -> Iterator[Leftover]:
    """Yield leftovers, up to a file that can't be looked at: that is told of already."""
    try:
        yield from own_leftovers(storage)
    except StorageError as error:
        if error.errno not in OF_ONE_FILE:
            raise


def _time(written_at: datetime | None) -> str:
    return "at an unknown time" if written_at is None else format_time(written_at)
