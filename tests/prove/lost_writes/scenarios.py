"""What the user of a store does while the power may fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.prove.lost_writes.checking import Figures, check_states, publishing
from tests.prove.lost_writes.recording import (
    Recorded,
    Step,
    packaging,
    record,
    saving,
    tagging,
)

EVERYTHING: Sequence[Step] = (
    saving(1),
    saving(2, tags=["last"]),
    tagging("prod", 1),
    packaging(2),
    tagging("prod", 2),
    saving(3),
)
SAVES: Sequence[Step] = (saving(1), saving(2, tags=["last"]), saving(3))


def lose(folder: Path, how: str, steps: Sequence[Step], limit: int) -> Figures:
    """Check every state after every operation of *steps*."""
    with publishing(how):
        recorded = _record(folder, steps)
        return check_states(recorded, folder / "left", limit=limit)


def fail_and_lose(
    folder: Path, steps: Sequence[Step], failing: int, limit: int, *, every: int = 1
) -> tuple[Recorded, Figures]:
    """Let one fsync fail, go on, and check what may be left at the end, or in between too.

    Args:
        folder: An empty folder.
        steps: What is done.
        failing: The number of the fsync that fails.
        limit: As for `check_states`.
        every: Of the operations from that fsync on, how many are passed over between two that are
            looked at; the last one always is.
    """
    recorded = _record(folder, steps, failing)
    end = len(recorded.operations)
    first = next(
        place for place, each in enumerate(recorded.operations) if getattr(each, "failed", False)
    )

    def counts(count: int) -> bool:
        return count == end or (count > first and (count - first) % every == 0)

    return recorded, check_states(recorded, folder / "left", limit=limit, counts=counts)


def _record(folder: Path, steps: Sequence[Step], failing: int | None = None) -> Recorded:
    place = folder / "disk"
    place.mkdir(parents=True)
    return record(place, steps, failing=failing)
