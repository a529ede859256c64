"""What lies in a store and belongs to no version: no damage, but room that it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from ckptstore.format.fields import format_time
from ckptstore.format.layout import FILES_FOLDER, PACKS_FOLDER, is_data_key
from ckptstore.storage.base import Storage, Stored
from ckptstore.text import size
from ckptstore.upkeep.findings import Finding
from ckptstore.upkeep.leftovers import own_clocks, own_leftovers

Note = Callable[[Finding], object]


def data_objects(storage: Storage, note: Note) -> dict[str, Stored]:
    """Return all packs and files by key; whatever else lies in their folders is noted."""
    found = {}
    for folder in (PACKS_FOLDER, FILES_FOLDER):
        for stored in storage.walk(folder):
            if is_data_key(stored.key):
                found[stored.key] = stored
            else:
                message = "is no pack or file by its name; ckptstore leaves it alone"
                note(Finding("unknown", "note", None, stored.key, message))
    return found


def note_orphans(objects: Iterable[Stored], named: Collection[str], note: Note) -> None:
    """Note the packs and files that no version names."""
    for stored in objects:
        if stored.key not in named:
            note(
                Finding(
                    "orphan",
                    "note",
                    None,
                    stored.key,
                    f"is named by no version that can be read: {size(stored.size_bytes)}, written "
                    f"{_time(stored.written_at)}. A save under way or one that was interrupted "
                    "left it; collect() removes it once it is older than the store's grace period",
                )
            )


def note_leftovers(storage: Storage, note: Note) -> None:
    """Note temporary files, unfinished uploads, and objects written to read the clock."""
    for leftover in own_leftovers(storage):
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


def _time(written_at: datetime | None) -> str:
    return "at an unknown time" if written_at is None else format_time(written_at)
