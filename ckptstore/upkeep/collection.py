"""Collection: what no version has needed for longer than the grace period is deleted.

The order matters. First a time is taken from the storage, then packs and files are listed, then the
runs, then everything is read; only when all of it is known is the first byte deleted. Whatever
can't be told ends it before that. The argument why nothing is lost is docs/explanation/clean-up.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

from ckptstore.catalog.stores import store_facts
from ckptstore.errors import (
    CatalogError,
    CollectionRefusedError,
    IntegrityError,
    NewerFormatError,
    StorageError,
)
from ckptstore.format.layout import (
    FILES_FOLDER,
    PACKS_FOLDER,
    STORE_KEY,
    STORE_KEY_NEWER,
)
from ckptstore.format.store_facts import StoreFacts
from ckptstore.saving.founding import found
from ckptstore.saving.moment import Moment
from ckptstore.storage.base import Leftover, Storage, Stored
from ckptstore.text import size
from ckptstore.upkeep.clock import storage_now
from ckptstore.upkeep.collected import Collected
from ckptstore.upkeep.garbage import Sorted, Tally, no_time, sort_out
from ckptstore.upkeep.inventory import Known, read_runs
from ckptstore.upkeep.leftovers import own_clocks, own_leftovers
from ckptstore.upkeep.progress import Progress, say_nothing

# So many are deleted between two reports of progress: what one request to S3 takes.
DELETE_BATCH = 1000
# What was decided is acted upon for so long. Nothing is known that could make it wrong later; but
# a process may have slept for a week, and looking again is cheap.
LOOK_S = 600.0


def collect(
    storage: Storage,
    *,
    single_writer: bool,
    known: Callable[[], Known],
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Collected:
    """Delete the packs and files that no version has needed for longer than the grace period.

    Safe beside saves, loads, undeletions and other collections, however slow or late any of them
    is; one that was interrupted is finished by the next.

    Args:
        storage: Where the store is.
        single_writer: Whether the caller promises that no other process writes, which storage that
            can't keep two writers apart takes.
        known: Gives the last version and journal entry that the catalog has of each run.
        dry_run: Delete nothing, only say what would be. Even then an object is written for a
            moment, as there is no other way to read the storage's clock.
        progress: Told how far it is.

    Raises:
        CollectionRefusedError: It can't be told what is needed. Nothing was deleted; or, where it
            took so long that the store was looked at again, what the error says, and rightly so.
        NotAStoreError: There is no store.
        NotExclusiveError: The storage can't keep two writers apart, so that a version's manifest
            may be lost, and *single_writer* isn't set.
        CatalogError: The catalog can't say what it knows. The same goes for what was deleted.
        StorageError: A request to delete failed as a whole; a rerun finishes.
    """
    say = progress or say_nothing
    facts = _store_facts(storage)
    found(storage, single_writer=single_writer)
    done = _Done()
    while True:
        with _Refusing(done):
            look = _look(storage, facts, known, say)
        if dry_run or _delete(storage, look, done, say):
            return _collected(look, look.as_done() if dry_run else done, facts, dry_run=dry_run)


@dataclass(frozen=True)
class _Look:
    """What one look at the store found."""

    now: datetime
    piles: Sorted
    leftovers: Sequence[Leftover]
    """Old ones."""
    clocks: Sequence[Stored]
    """Old ones: what interrupted collections left."""
    decided: Moment

    def as_done(self) -> _Done:
        """Return what would have been done, had this been no dry run."""
        return _Done([*self.piles.deletable], [*self.leftovers, *map(_as_leftover, self.clocks)])


@dataclass
class _Done:
    """What was deleted so far."""

    deleted: list[Stored] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in a sentence."""
        count = len(self.deleted) + len(self.leftovers)
        if not count:
            return "Nothing was deleted"
        bytes_ = sum(each.size_bytes for each in self.deleted)
        bytes_ += sum(each.size_bytes or 0 for each in self.leftovers)
        return (
            f"{count} packs, files and leftovers ({size(bytes_)}) were deleted before the store "
            "was looked at again, when all was known: nobody needs them. Nothing else was deleted"
        )


def _look(storage: Storage, facts: StoreFacts, known: Callable[[], Known], say: Progress) -> _Look:
    """Look at all there is, and decide. What comes first is argued in the documentation."""
    # What the catalog knows by now, the listings that follow must have.
    indexed = known()
    now = storage_now(storage)
    if now is None:
        raise no_time("an object that was just created")
    grace = timedelta(seconds=facts.grace_s)
    objects = list(_counted(storage, say))
    leftovers = [each for each in own_leftovers(storage) if _is_older(each, now - grace)]
    clocks = [each for each in own_clocks(storage) if _is_older(each, now - grace)]
    runs = read_runs(storage, now, indexed, in_place=facts.in_place, progress=say)
    return _Look(now, sort_out(objects, runs, now, grace), leftovers, clocks, Moment.now())


def _store_facts(storage: Storage) -> StoreFacts:
    """Read ``ckptstore.json`` without making one.

    Raises:
        NotAStoreError: There is none.
        CollectionRefusedError: It is damaged, or a newer ckptstore was here.
    """
    with _Refusing(_Done()):
        facts = store_facts(storage)
        if storage.read_many([STORE_KEY_NEWER], 1) != [None]:
            raise NewerFormatError(storage.url, f"it has {STORE_KEY_NEWER} beside {STORE_KEY}")
        return facts


class _Refusing:
    """Whatever fails before all is known means that nothing is deleted from then on.

    Args:
        done: What was deleted before, as an earlier look had found; the error says it.
    """

    def __init__(self, done: _Done) -> None:
        self._done = done

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise CollectionRefusedError(
                f"{error.filename or error} was listed and is gone: does somebody move or delete "
                f"files of this store? Try again once that is done\n{self._done}"
            ) from error
        if isinstance(error, CollectionRefusedError):
            raise CollectionRefusedError(f"{error}\n{self._done}") from error
        if isinstance(error, (StorageError, IntegrityError, NewerFormatError)):
            raise CollectionRefusedError(
                f"{error}\nSo it is not known what is needed. {self._done}"
            ) from error
        if isinstance(error, CatalogError):
            error.add_note(f"ckptstore: {self._done}")


def _counted(storage: Storage, say: Progress) -> Iterator[Stored]:
    """List packs and files."""
    listed = chain(storage.walk(PACKS_FOLDER), storage.walk(FILES_FOLDER))
    for count, stored in enumerate(listed, 1):
        if count % DELETE_BATCH == 0:
            say(count, None, "listing packs")
        yield stored


def _is_older(each: Leftover | Stored, since: datetime) -> bool:
    """Say whether whoever wrote it must have given up. Without a time it is left where it is."""
    return each.written_at is not None and each.written_at < since


def _delete(storage: Storage, look: _Look, done: _Done, say: Progress) -> bool:
    """Delete what was found, and go on where something can't be deleted.

    Returns:
        False if it took so long that the store is to be looked at again before more is deleted.
    """
    tried = done.failed.keys()
    objects = [each for each in look.piles.deletable if each.key not in tried]
    leftovers = [each for each in look.leftovers if each.key not in tried]
    clocks = [each for each in look.clocks if each.key not in tried]
    total = len(objects) + len(leftovers) + len(clocks)
    for start in range(0, len(objects), DELETE_BATCH):
        if start and look.decided.elapsed_s() > LOOK_S:
            return False
        batch = objects[start : start + DELETE_BATCH]
        failed = storage.delete([stored.key for stored in batch])
        done.failed |= {key: str(error) for key, error in failed.items()}
        done.deleted += [stored for stored in batch if stored.key not in failed]
        say(start + len(batch), total, "deleting")
    for leftover in leftovers:
        try:
            storage.clear(leftover)
        except StorageError as error:
            done.failed[leftover.key] = str(error)
        else:
            done.leftovers.append(leftover)
    failed = storage.delete([clock.key for clock in clocks])
    done.failed |= {key: str(error) for key, error in failed.items()}
    done.leftovers += [_as_leftover(clock) for clock in clocks if clock.key not in failed]
    say(total, total, "deleting")
    return True


def _as_leftover(clock: Stored) -> Leftover:
    return Leftover(clock.key, None, clock.size_bytes, clock.written_at)


def _collected(look: _Look, done: _Done, facts: StoreFacts, *, dry_run: bool) -> Collected:
    return Collected(
        look.now,
        facts.grace_s,
        dry_run,
        tuple(done.deleted),
        tuple(done.leftovers),
        done.failed,
        in_use=Tally.of(look.piles.in_use),
        retired=Tally.of(look.piles.retired),
        recent=Tally.of(look.piles.recent),
    )
