"""What may be deleted: a pure function of what there is, what names it, and what time it is.

Why this loses nothing, whatever goes on beside it, is argued in docs/explanation/clean-up.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ckptstore.errors import CollectionRefusedError
from ckptstore.format.layout import is_data_key
from ckptstore.storage.base import Stored
from ckptstore.upkeep.inventory import RunContents, Version


@dataclass(frozen=True)
class Tally:
    """How many objects, and how many bytes they are."""

    count: int = 0
    size_bytes: int = 0

    @classmethod
    def of(cls, objects: Iterable[Stored]) -> Tally:
        """Count *objects*."""
        sizes = [stored.size_bytes for stored in objects]
        return cls(len(sizes), sum(sizes))


@dataclass(frozen=True)
class Sorted:
    """Packs and files by what is to become of them."""

    deletable: tuple[Stored, ...]
    in_use: tuple[Stored, ...]
    """A version that is not retired names them."""
    retired: tuple[Stored, ...]
    """Only retired versions name them, one of them for no longer than the grace period."""
    recent: tuple[Stored, ...]
    """They are no older than the grace period, so what names them may be on its way."""


def sort_out(
    objects: Sequence[Stored], runs: Iterable[RunContents], now: datetime, grace: timedelta
) -> Sorted:
    """Say which packs and files may be deleted. What is neither is left out.

    Args:
        objects: What was listed after *now*.
        runs: What was listed and read after *objects*.
        now: The storage's time.
        grace: The store's grace period.

    Raises:
        CollectionRefusedError: A manifest can't be read and was not retired for longer than the
            grace period; or there is no storage time where one is needed.
    """
    live, waiting = _needed(runs, now - grace)
    piles: dict[str, list[Stored]] = {
        name: [] for name in ("deletable", "in_use", "retired", "recent")
    }
    for stored in objects:
        if not is_data_key(stored.key):
            continue
        if stored.written_at is None:
            raise no_time(stored.key)
        if stored.key in live:
            pile = "in_use"
        elif stored.key in waiting:
            pile = "retired"
        elif stored.written_at >= now - grace:
            pile = "recent"
        else:
            pile = "deletable"
        piles[pile].append(stored)
    return Sorted(**{name: tuple(pile) for name, pile in piles.items()})


def no_time(what: str) -> CollectionRefusedError:
    """Return the error that says that the storage tells no time."""
    return CollectionRefusedError(
        f"the storage does not say when {what} was written, and nothing else tells how long "
        "something has been unused. Open the store at an address whose "
        "filesystem gives times of creation or modification"
    )


def _needed(runs: Iterable[RunContents], since: datetime) -> tuple[set[str], set[str]]:
    """Return what live versions name, and what versions name that were retired after *since*."""
    live: set[str] = set()
    waiting: set[str] = set()
    for run in runs:
        retired = run.retired()
        for number, version in run.versions.items():
            if number not in retired:
                needed = live
            else:
                retired_at = retired[number]
                if retired_at is None:
                    raise no_time(f"the retirement of {run.path}@{number}")
                if retired_at < since:
                    continue
                needed = waiting
            if version.damage is not None:
                raise _unreadable(version, is_retired=number in retired)
            needed.update(version.names)
    return live, waiting


def _unreadable(version: Version, *, is_retired: bool) -> CollectionRefusedError:
    after = "once it has been retired for a grace period, it stands in nobody's way"
    if is_retired:
        advice = f", or wait: {after}"
    elif version.is_missing:
        advice = (
            "; nobody can make it again. Without it nothing is collected: copy the other versions "
            "into a new store with copy_to to go on"
        )
    else:
        advice = f", or call store.verify(repair=True): {after}"
    return CollectionRefusedError(
        f"{version.damage}; so it is not known what that version needs. Bring the file back from "
        f"a copy{advice}"
    )
