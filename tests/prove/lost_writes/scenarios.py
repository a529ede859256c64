"""What the user of a store does while the power may fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ckptstore import Keep
from tests.prove.lost_writes.checking import Figures, check_states, publishing
from tests.prove.lost_writes.recording import (
    Recorded,
    Step,
    collecting,
    packaging,
    pruning,
    record,
    saving,
    saving_in_the_background,
    tagging,
    undeleting,
)

EVERYTHING: Sequence[Step] = (
    saving(1),
    saving(2, tags=["last"]),
    tagging("prod", 1),
    packaging(2),
    tagging("prod", 2),
    saving(3),
    saving_in_the_background(4),
    saving_in_the_background(5, 6),
)
CLEANING_UP: Sequence[Step] = (
    saving(1),
    saving(2),
    saving(3),
    pruning(Keep(last=1)),
    undeleting(1),
    collecting(),
    saving(4),
)
"""Versions 1 and 2 are retired, 1 is brought back, and 2 is deleted."""
SAVES: Sequence[Step] = (saving(1), saving(2, tags=["last"]), saving(3))


def lose(folder: Path, how: str, steps: Sequence[Step], limit: int, *, every: int = 1) -> Figures:
    """Check every state after every operation of *steps*, or after every n-th."""
    with publishing(how):
        recorded = _record(folder, steps)
        return check_states(
            recorded, folder / "left", limit=limit, counts=lambda count: count % every == 0
        )


def clean_up_and_lose(folder: Path, how: str, limit: int, *, every: int = 1) -> Figures:
    """Check every state from the first retirement on, or every n-th, and collect in each."""
    with publishing(how):
        recorded = _record(folder, CLEANING_UP)
        saved = recorded.known[3][0]
        return check_states(
            recorded,
            folder / "left",
            limit=limit,
            counts=lambda count: count >= saved and (count - saved) % every == 0,
            collects=True,
        )


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
