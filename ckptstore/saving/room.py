"""Before a run's first save: is there room for all that will be kept of it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ckptstore.errors import RoomWarning, warn
from ckptstore.saving.capture import CapturedPart
from ckptstore.saving.leaving_out import unsaved_bytes
from ckptstore.saving.run_writer import RunWriter
from ckptstore.storage.base import Storage
from ckptstore.storage.free import free_bytes
from ckptstore.text import size

# The version that is written while those that will be kept are there still.
NEXT = 1
# Where everything is kept there is no end to it; room for this version and the next is the least.
UNBOUNDED = 2
# With room for so many versions it isn't even looked up what is kept of the run.
PLENTY = 1000


def versions_kept(keep: Mapping[str, Any] | None) -> int | None:
    """Return how many versions a recorded policy keeps at most, as far as it can be counted.

    Args:
        keep: What a run's settings record, None for everything.

    Returns:
        The number, or None where it grows with the run (``every_epochs``, ``within``, no policy).
    """
    if keep is None or "every_epochs" in keep or "within_s" in keep:
        return None
    best = int(keep.get("best", 0))
    by_others = len(keep.get("best_by", ())) * max(best, 1)
    # Whatever is said, the newest and the best by the run's monitor stay.
    return max(int(keep.get("last", 0)), 1) + max(best, 1) + by_others


def still_needed(version_bytes: int, keep: Mapping[str, Any] | None, live: int) -> int:
    """Return how many more bytes a run will take before retention lets go of as much. Pure.

    An upper estimate: what versions share is counted once a version, and what is retired meanwhile
    stays for the grace period, which is not counted.

    Args:
        version_bytes: What a version takes that shares nothing.
        keep: The recorded policy.
        live: How many versions there are already.
    """
    kept = versions_kept(keep)
    return version_bytes * (UNBOUNDED if kept is None else max(kept - live, 0) + NEXT)


def tensor_bytes(parts: Iterable[CapturedPart]) -> int:
    """Return how many bytes the tensors of parts have."""
    return sum(
        sum(tensor.nbytes for tensor in part.tensors) - unsaved_bytes(part) for part in parts
    )


def check_room(
    storage: Storage,
    writer: RunWriter,
    parts: Iterable[CapturedPart],
    keep: Mapping[str, Any] | None,
) -> None:
    """Warn if the disk will be full before retention lets go of anything.

    It refuses nothing: that there is little room is certain, how much will be needed is not.

    Args:
        storage: Where the store is. Of a bucket nobody can tell how much room there is.
        writer: The run.
        parts: What is about to be saved.
        keep: What the caller wants kept; None means what the run's settings say.
    """
    free = free_bytes(storage.local_folder)
    if free is None:
        return
    version_bytes = tensor_bytes(parts)
    if version_bytes * PLENTY <= free:
        return
    recorded, live = writer.kept()
    policy = recorded if keep is None else keep
    needed = still_needed(version_bytes, policy, live)
    if needed <= free:
        return
    kept, each = versions_kept(policy), f"up to {size(version_bytes)} each"
    why = (
        f"nothing bounds how many versions are kept, and this one and the next take {each}"
        if kept is None
        else f"up to {kept} versions of {each} are kept, {live} are there, and the next is written "
        "before any goes"
    )
    warn(
        f"{storage.url}: {size(free)} are free, and run {writer.run!r} may soon need "
        f"{size(needed)}: {why}. Make room, or keep less: store.run(…, keep=Keep(last=…)). What is "
        "retired is deleted by store.collect() once the grace period is over, not at once. Saving "
        "goes on; on a full disk it does what on_full= says",
        RoomWarning,
    )
