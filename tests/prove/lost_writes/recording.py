"""Record what ckptstore asks of the disk, with a mark where each call of its user returned."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptstore import Keep, Store
from ckptstore.errors import DurabilityError
from tests.prove.calls import Call, Calls
from tests.prove.kill.operations import months_later
from tests.prove.lost_writes.disk import Link, Make, Operation, Rename, Sync, Unlink, Write
from tests.prove.states import RUN, entries, opened, quietly, save, state_of, tags_of

STORE = "store"


@dataclass(frozen=True)
class Known:
    """What the user of a store may rely on by then."""

    versions: dict[int, int] = field(default_factory=dict)
    """The epoch of each version whose save had returned and that is not retired."""
    tags: dict[str, int] = field(default_factory=dict)
    retired: dict[int, int] = field(default_factory=dict)
    """The epoch of each that is."""


@dataclass(frozen=True)
class Step:
    """One call of a store's user, and what he may rely on once it returned."""

    do: Callable[[Store], Any]
    then: Callable[[Known, Any], Known]
    """Takes what was known before and what was returned."""


@dataclass(frozen=True)
class Recorded:
    """Operations, and after how many of them what was known."""

    operations: list[Operation]
    known: list[tuple[int, Known]]
    """Ascending; what was known once so many operations were done."""
    syncs: int
    """How many of them were fsyncs that somebody waited for."""
    failed: int
    """How many steps raised a DurabilityError."""
    in_place: bool
    """Whether files were created in place."""

    def at(self, count: int) -> tuple[Known, Known]:
        """Return what was known after *count* operations, and what the step under way makes it."""
        before = [known for done, known in self.known if done <= count]
        after = [known for done, known in self.known if done > count]
        return before[-1], (after or before[-1:])[0]


class _Recorder:
    def __init__(self, failing: int | None) -> None:
        self.operations: list[Operation] = []
        self.syncs = 0
        self._failing = failing

    def __call__(self, call: Call, do: Callable[..., Any]) -> Any:
        if call.name in {"fsync", "fdatasync"}:
            return self._sync(call)
        result = do()
        path = call.path
        if call.name == "mkdir" or call.creates:
            self.operations.append(Make(path, folder=call.name == "mkdir"))
        elif call.name == "write":
            self.operations.append(Write(path, bytes(call.arguments[1][:result])))
        elif call.name == "link":
            self.operations.append(Link(path, call.to))
        elif call.name == "unlink":
            self.operations.append(Unlink(path))
        elif call.name in {"rename", "replace"}:
            self.operations.append(Rename(path, call.to))
        elif call.name in {"pwrite", "ftruncate", "rmdir"}:
            raise AssertionError(f"{call.name} is not modelled: ckptstore never used it")
        return result

    def _sync(self, call: Call) -> None:
        self.syncs += 1
        failed = self.syncs == self._failing
        self.operations.append(Sync(call.path, failed))
        if failed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def record(folder: Path, steps: Sequence[Step], *, failing: int | None = None) -> Recorded:
    """Do steps on a store that does not exist yet, and record the operations.

    Args:
        folder: An empty folder; the store is made in it.
        steps: What its user does, one call each. A save's ``epoch`` tells what it saved.
        failing: The number of the fsync that fails with EIO, counted from 1.
    """
    recorder = _Recorder(failing)
    store, known, failed = opened(folder / STORE, max_pending=2), [(0, Known())], 0
    with quietly(), Calls(folder, recorder):
        for step in steps:
            try:
                done = step.do(store)
            except DurabilityError:
                failed += 1
                continue
            known.append((len(recorder.operations), step.then(known[-1][1], done)))
    found, _ = entries(store)
    last = known[-1][1]
    assert last.versions.items() <= {each.version: each.epoch for each in found}.items()
    assert failed or last.tags == tags_of(found)
    store.close()
    in_place = store._storage.in_place
    return Recorded(recorder.operations, known, recorder.syncs, failed, in_place)


def _saved(known: Known, entry: Any) -> Known:
    versions = known.versions | {entry.version: entry.epoch}
    return replace(
        known, versions=versions, tags=known.tags | dict.fromkeys(entry.tags, entry.version)
    )


def saving(epoch: int, **options: Any) -> Step:
    """Return the step that saves an epoch."""
    return Step(lambda store: save(store, epoch, **options), _saved)


def saving_in_the_background(*epochs: int) -> Step:
    """Return the step that saves epochs, all under way at once, and waits for them."""

    def save_all(store: Store) -> list[Any]:
        pending = [
            store.save_async(
                state_of(epoch), run=RUN, epoch=epoch, val_loss=1 / (1 + epoch), rng=False
            )
            for epoch in epochs
        ]
        return [each.result() for each in pending]

    def then(known: Known, saved: list[Any]) -> Known:
        for each in saved:
            known = _saved(known, each)
        return known

    return Step(save_all, then)


def packaging(version: int) -> Step:
    """Return the step that makes a package of a version."""
    return Step(lambda store: store.save_package(f"{RUN}@{version}"), _saved)


def tagging(name: str, version: int) -> Step:
    """Return the step that sets a tag."""
    return Step(
        lambda store: store.tag(f"{RUN}@{version}", name),
        lambda known, _: replace(known, tags=known.tags | {name: version}),
    )


def pruning(keep: Keep) -> Step:
    """Return the step that retires what *keep* does not keep."""

    def then(known: Known, pruned: Any) -> Known:
        gone = {number for each in pruned for number in each.retired}
        return replace(
            known,
            versions={each: epoch for each, epoch in known.versions.items() if each not in gone},
            retired=known.retired | {each: known.versions[each] for each in gone},
        )

    return Step(lambda store: store.prune(keep, run=RUN), then)


def undeleting(version: int) -> Step:
    """Return the step that makes a retired version live again."""

    def then(known: Known, _: Any) -> Known:
        rest = {each: epoch for each, epoch in known.retired.items() if each != version}
        back = {version: known.retired[version]}
        return replace(known, versions=known.versions | back, retired=rest)

    return Step(lambda store: store.undelete(f"{RUN}@{version}"), then)


def collecting() -> Step:
    """Return the step that deletes what has been retired for months."""

    def collect(store: Store) -> None:
        with months_later():
            store.collect()

    return Step(collect, lambda known, _: known)
