"""Writers at work on one store, crashes, sleep and interleaving, against the dictionary model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ckptstore import Store
from ckptstore.errors import CkptStoreError, LateCommitError, NotAStoreError, RetiredError
from ckptstore.format.facts import LATE
from ckptstore.format.layout import (
    FILES_FOLDER,
    PACKS_FOLDER,
    file_key,
    journal_key,
    pack_key,
    run_path,
)
from ckptstore.saving.lineage import Lineage
from ckptstore.storage.opening import open_storage
from tests.clocks import Clock, Clocked
from tests.faults import Failing, store_on
from tests.prove.state_machine.model import CHECKPOINT, GRACE, RUNS, Model
from tests.prove.state_machine.operations import Done, Operation, Writer, outcomes
from tests.prove.state_machine.states import Box, same
from tests.prove.states import quietly, unsynced

SECOND = timedelta(seconds=1)


class CrashError(BaseException):
    """The process is gone: nothing may catch this."""


class ViolationError(AssertionError):
    """The store broke a promise."""


class Interposed(Failing):
    """A storage at one of whose operations something else happens."""

    def __init__(self, storage: Any, at: int, happens: Callable[[], None]) -> None:
        super().__init__(storage, at)
        self._happens = happens

    def _fails(self, operation: str, key: str) -> bool:
        if super()._fails(operation, key):
            self.at = None
            self._happens()
        return False


class Machine:
    """One store with two writers and a reader.

    Args:
        url: Where the store is.
        folder: Where the writers' catalogs are.
        figures: Counts what happened.
    """

    def __init__(self, url: str, folder: Path, figures: Counter[str]) -> None:
        self.figures = figures
        self._folder = folder
        self._within = ExitStack()
        self.clock = Clock()
        self.storage = Clocked(open_storage(url), self.clock)
        self.model = Model()
        self._what = "opening"
        clocks = SimpleNamespace(time=self._seconds, monotonic=self._seconds)
        self._within.enter_context(mock.patch("ckptstore.saving.moment.time", clocks))
        self._within.enter_context(quietly())
        self._within.enter_context(unsynced())
        # What describes the machine asks git, each time a process first saves.
        self._within.enter_context(mock.patch("ckptstore.saving.save.describe", dict))
        self.writers = {name: self._writer(name) for name in "ab"}
        self.reader = store_on(self.storage)
        self._other = Clocked(open_storage(f"{url}-copy"), self.clock)
        self.copy = store_on(self._other)

    def close(self) -> None:
        """Let go of everything."""
        for store in (self.reader, self.copy, *(writer.store for writer in self.writers.values())):
            store.close()
        self._within.close()

    def _seconds(self) -> float:
        return self.clock.now.timestamp()

    def _writer(self, name: str) -> Writer:
        return Writer(name, self._store(name, self.storage))

    def _store(self, name: str, storage: Any) -> Store:
        store = store_on(storage, catalog=f"sqlite:///{self._folder}/{name}.sqlite3")
        store._lineage = Lineage(resumed={})  # each writer plays a process of its own
        return store

    # ------------------------------------------------------------ what happens

    def wait(self, time: timedelta) -> None:
        """Let time pass for everybody."""
        self.clock.pass_by(time)
        self.model.now = self.clock.now

    def act(self, name: str, operation: Operation) -> None:
        """Have a writer do something, undisturbed."""
        self._step(operation.name)
        whole = self._do(self.writers[name], operation)
        self._settle([(operation, whole)], operation.name)

    def crash(self, name: str, operation: Operation, at: int, *, after: bool) -> None:
        """Have a writer do something and die at its n-th operation, or after it."""
        self._step(f"crash in {operation.name}")
        writer = self.writers[name]
        failing = Failing(self.storage, at, fault=CrashError, after=after, always=True)
        dying = Writer(name, self._store(name, failing), set(writer.resumed))
        try:
            whole = self._do(dying, operation)
        except CrashError:
            self.figures["crashes"] += 1
            whole = False
        with suppress(CrashError):  # of a save in the background that nobody asked for
            dying.store.close()
        self.reopen(name)
        self._settle([(operation, whole)], f"crash in {operation.name}, operation {at}")

    def sleep(self, name: str, operation: Operation, at: int, pause: timedelta) -> None:
        """Have a writer do something and sleep at its n-th operation."""
        self._step(f"sleep in {operation.name}")

        def happens() -> None:
            self.figures["sleeps"] += 1
            self.wait(pause)

        writer = self.writers[name]
        asleep = Writer(name, self._store(name, Interposed(self.storage, at, happens)))
        asleep.resumed = set(writer.resumed)
        try:
            whole = self._do(asleep, operation)
            late = False
        except LateCommitError:
            self.figures["late"] += 1
            whole, late = False, True
        asleep.store.close()
        self.reopen(name)
        self._settle([(operation, whole)], f"sleep in {operation.name}", late=late)

    def interleave(self, operation: Operation, other: Operation, at: int) -> None:
        """Have writer b do something whole at the n-th operation of what writer a does."""
        self._step(f"{other.name} during {operation.name}")
        whole: list[bool] = []

        def happens() -> None:
            self.figures["interleavings"] += 1
            whole.append(self._do(self.writers["b"], other))

        a = self.writers["a"]
        disturbed = Writer("a", self._store("a", Interposed(self.storage, at, happens)))
        disturbed.resumed = set(a.resumed)
        first = self._do(disturbed, operation)
        disturbed.store.close()
        self.reopen("a", keep=a.resumed)
        if not whole:
            happens()
            self._settle([(operation, first), (other, whole[0])], "one after the other")
            return
        self._settle(
            [(operation, first), (other, whole[0])],
            f"{other.name} during {operation.name}, operation {at}",
            within=True,
        )

    def _do(self, writer: Writer, operation: Operation) -> bool:
        """Do it, and say whether it returned; an error that it may raise is no violation."""
        try:
            operation.work(writer)
        except operation.tolerates:
            self.figures["refusals"] += 1
            return False
        return True

    def reopen(self, name: str, *, keep: set[tuple[str, int]] | None = None) -> None:
        """Have a writer begin anew, as another process on the same catalog."""
        before = self.writers[name].store
        before.close()
        self.writers[name] = self._writer(name)
        self.writers[name].resumed = set(keep or ())
        if keep:
            self.writers[name].store._lineage.resumed.update(before._lineage.resumed)

    def resume(self, name: str, run: str) -> None:
        """Resume, and see that it is the newest live checkpoint, bit for bit."""
        self._step("resume")
        writer, box = self.writers[name], Box()
        done = writer.store.resume(box=box, run=run)
        newest = self.model.runs[run].latest()
        if newest is None:
            self._check(not done, f"resume of {run} found something")
            return
        self._check(done and done.checkpoint.version == newest, f"{run} resumed {done}")
        held = Box(self.model.runs[run].versions[newest].state).held
        self._check(same(box.held, held), f"resume of {run}@{newest} gave other values")
        writer.resumed.add((run, newest))

    def cannot_undelete(self, name: str, ref: tuple[str, int]) -> None:
        """See that what is retired for too long stays so."""
        self._step("undelete too late")
        try:
            self.writers[name].store.undelete(f"{ref[0]}@{ref[1]}")
        except RetiredError:
            return
        raise ViolationError(f"{ref} came back after its time")

    # ------------------------------------------------------------ what must be so

    def _settle(
        self,
        done: list[Done],
        what: str,
        *,
        within: bool = False,
        late: bool = False,
    ) -> None:
        """Find what became of it among what may have become of it."""
        seen = self.shown()
        candidates = outcomes(self.model, done, seen, within=within)
        if late:
            candidates += [taken for each in candidates for taken in taken_back(each, self.model)]
        told = set().union(*(candidate.announced for candidate in candidates))
        for candidate in candidates:
            if candidate.shown() == seen:
                self.model = candidate
                self.model.announced = told
                self._adopt()
                return
        expected = [candidate.shown() for candidate in candidates]
        raise ViolationError(f"{what}: seen {seen}, expected one of {expected}")

    def shown(self) -> dict[str, Any]:
        """Return what the reader sees of the store, as :meth:`Model.shown` says it must be."""
        found: dict[str, Any] = {}
        for run in RUNS:
            if run not in self.paths():
                continue
            history = self.reader.history(run)
            if not len(history) and not history.logged:
                continue
            self._check(not history.damaged, f"damaged: {history.damaged}")
            settings = self.reader._catalog.settings(run_path(run))
            keep = None if settings is None or settings.keep is None else settings.keep["last"]
            found[run] = {
                "versions": {
                    each.version: (
                        type(each).__name__.lower(),
                        each.epoch,
                        dict(sorted(each.metrics.items())),
                        each.note,
                        "live" if each.retired is None else "retired",
                        list(each.tags),
                    )
                    for each in history
                },
                "tags": {
                    tag: int(ref.partition("@")[2]) for tag, ref in self.reader.tags(run).items()
                },
                "logged": [(each.epoch, each.metrics["train_loss"]) for each in history.logged],
                "keep": keep,
                "best": self._or_none(lambda run=run: self.reader.best(run=run)),
                "latest": self._or_none(lambda run=run: self.reader.latest(run=run)),
            }
        return found

    def paths(self) -> list[str]:
        """Return the paths of the runs there are."""
        try:
            return self.reader._catalog.discover()
        except NotAStoreError:
            return []

    @staticmethod
    def _or_none(look: Callable[[], Any]) -> int | None:
        try:
            return int(look().version)
        except CkptStoreError:
            return None

    def _adopt(self) -> None:
        """Take over what only the store can say of a version, and see that it never changes."""
        for run, model in self.model.runs.items():
            if not model.versions:
                continue
            for entry in self.reader.history(run):
                version = model.versions[entry.version]
                if version.parent is None:
                    version.parent = entry.parent
                self._check(version.parent == entry.parent, f"{entry.ref} has another parent")
                if entry.retired is not None:
                    # Who slept in between may have said so before or after; the storage knows.
                    key = journal_key(run_path(run), entry.retired.entry)
                    version.retired_at = self.storage.times[key]
                    version.final = version.final or entry.retired.reason.startswith(LATE)

    def check(self) -> None:
        """See that all promises hold: what is live loads bit for bit, and names only what is there.

        Raises:
            ViolationError: One does not.
        """
        self._check(self.shown() == self.model.shown(), "the reader and the model differ")
        there = {each.key for each in self.storage.walk(PACKS_FOLDER)}
        there |= {each.key for each in self.storage.walk(FILES_FOLDER)}
        for run, model in self.model.runs.items():
            numbers = sorted(model.versions)
            self._check(numbers == list(range(1, len(numbers) + 1)), f"{run}: {numbers}")
            for entry in self.reader.history(run) if numbers else ():
                version = model.versions[entry.version]
                if not version.is_live:
                    continue
                lost = {*named(entry)} - there
                self._check(not lost, f"{entry.ref} is live and names {lost}")
                self._loads(entry, version)

    def _loads(self, entry: Any, version: Any) -> None:
        self.figures["loads"] += 1
        state = version.state
        self._check(same(entry.state("model"), state.model()), f"{entry.ref} has other weights")
        if version.kind == CHECKPOINT:
            held = Box(state).held
            self._check(same(entry.state("box"), held), f"{entry.ref} has another box")
        if entry.new_bytes < entry.size_bytes:
            self.figures["loads of shared packs"] += 1

    def refuses(self) -> None:
        """See that no retired version loads."""
        for run, number in self.model.refs(live=False):
            try:
                self.reader.get(f"{run}@{number}").state("model")
            except RetiredError:
                continue
            raise ViolationError(f"{run}@{number} is retired and loads")

    def collected(self) -> None:
        """See that nothing is left that a collection must have taken."""
        since = self.model.now - GRACE
        needed: set[str] = set()
        for run, model in self.model.runs.items():
            for entry in self.reader.history(run) if model.versions else ():
                retired_at = model.versions[entry.version].retired_at
                if retired_at is None or retired_at >= since:
                    needed |= {*named(entry)}
        for folder in (PACKS_FOLDER, FILES_FOLDER):
            for stored in self.storage.walk(folder):
                old = stored.written_at is not None and stored.written_at < since
                self._check(not old or stored.key in needed, f"{stored.key} was left")

    def copy_all(self, name: str, at: int | None, *, after: bool) -> None:
        """Copy all there is into another store, maybe dying at the n-th operation there.

        After an interruption a second call must finish it, and a third one find nothing to do.
        """
        self._step("copy")
        store = self.writers[name].store
        if at is not None:
            failing = Failing(self._other, at, fault=CrashError, after=after, always=True)
            dying = store_on(failing)
            with suppress(CrashError):
                store.copy_to(dying)
            dying.close()
            self.figures["crashes"] += 1
            self.copy.close()
            self.copy = store_on(self._other)
        store.copy_to(self.copy)
        self._copied()
        self._check(not store.copy_to(self.copy).copied, "a second copy found more to copy")
        report = self.copy.verify()
        self._check(report.ok, f"verify of the copy: {report.findings}")

    def _copied(self) -> None:
        """See that every live version is in the copy, bit for bit and once, and so are the tags."""
        for run, model in self.model.runs.items():
            if not model.live():
                continue
            found: dict[int, Any] = {}
            for entry in self.copy.history(run):
                number = entry.head.copied_from.version.version
                self._check(number not in found, f"{run}@{number} was copied twice")
                found[number] = entry
            for number, version in model.live().items():
                self._check(number in found, f"{run}@{number} was not copied")
                self._check(
                    same(found[number].state("model"), version.state.model()),
                    f"the copy of {run}@{number} has other weights",
                )
                self.figures["loads"] += 1
            tags = {
                tag: self.copy.get(ref).head.copied_from.version.version
                for tag, ref in self.copy.tags(run).items()
            }
            for tag, number in model.tags.items():
                self._check(tags.get(tag) == number, f"in the copy {tag} is at {tags.get(tag)}")

    def verify(self, name: str) -> None:
        """See that a check of everything finds nothing."""
        self._step("verify")
        report = self.writers[name].store.verify()
        self._check(report.ok, f"verify: {report.findings}")

    def reindex(self, name: str) -> None:
        """See that a catalog made anew says the same, row by row."""
        self._step("reindex")
        store = self.writers[name].store
        for path in self.paths():
            store._catalog.sync(path)
            self.reader._catalog.sync(path)
            before = store._catalog.rows(path)
            self._check(before == self.reader._catalog.rows(path), f"catalogs differ on {path}")
        store.reindex()
        for path in self.paths():
            after = store._catalog.rows(path)
            self._check(after == self.reader._catalog.rows(path), f"reindex differs on {path}")

    def _step(self, what: str) -> None:
        self.figures["steps"] += 1
        self._what = what

    def _check(self, holds: object, what: str) -> None:
        if not holds:
            raise ViolationError(f"after {self._what}: {what}")


def named(entry: Any) -> list[str]:
    """Return the keys of what an entry's manifest names."""
    head = entry.head
    return [
        *(pack_key(pack.save_id, pack.number) for pack in head.packs),
        *(file_key(file.save_id, file.number) for file in head.files),
    ]


def taken_back(after: Model, before: Model) -> list[Model]:
    """Return the model in which what became visible is retired for good, if there is something."""
    model = after.copy()
    found = False
    for run, each in model.runs.items():
        for number, version in each.versions.items():
            known = before.runs[run].versions.get(number)
            if version.is_live and (known is None or not known.is_live):
                version.retired_at, version.final = model.now, True
                found = True
    return [model] if found else []
