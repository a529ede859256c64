"""A run as one process writes it: which number is next, what came before, what it was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ckptstore.catalog.index import Catalog
from ckptstore.errors import (
    CatalogError,
    CatalogWarning,
    CkptStoreError,
    IntegrityError,
    InvalidNameError,
    JournalDamagedError,
    LateCommitError,
    NewerFormatError,
    RetiredError,
    RunWarning,
    SecondWriterError,
    warn,
)
from ckptstore.format.layout import (
    VERSION_FILE,
    numbered,
    run_path,
    version_key,
    versions_folder,
)
from ckptstore.format.manifest import Head, Parent, encode_manifest, parent_of
from ckptstore.saving.bases import LOOK_S, LOOK_SHARE, Bases
from ckptstore.saving.basis import Basis
from ckptstore.saving.commit import MAX_LOST_RACES, create_next
from ckptstore.saving.founding import found
from ckptstore.saving.journaling import (
    add_child,
    append,
    make_live,
    noting,
    retire_late,
)
from ckptstore.saving.lineage import Lineage
from ckptstore.saving.moment import Moment
from ckptstore.saving.pace import Pace
from ckptstore.saving.run_journal import RunJournal
from ckptstore.storage.base import Storage

# As much of a manifest as tells one save from another: the save id stands near its beginning.
START_BYTES = 256
# Among so many versions is the one that a save made, however many others were faster.
NEWEST = 64


class LastSaved(NamedTuple):
    """A version that this process committed."""

    head: Head
    at_s: float
    """When, by ``time.monotonic()``."""
    as_of_s: float
    """Until when the training went on with no more than what is in it: as *at_s* if that waited for
    it, else when the training asked for it."""


class RunWriter(RunJournal):
    """One process's hold on one run, versions and journal. Safe to use from several threads."""

    def __init__(
        self,
        storage: Storage,
        catalog: Catalog,
        run: str,
        lineage: Lineage,
        *,
        single_writer: bool,
    ) -> None:
        super().__init__(storage, catalog, run, single_writer=single_writer)
        self._lineage = lineage
        self._parent: Parent | None = None
        self._next: int | None = None
        self._last: tuple[str, bytes] | None = None
        self._start: tuple[str, bytes] | None = None
        self._mine = False
        self._warned = False
        self._grace_s = 0
        self._bases = Bases(storage, catalog)
        self._saved: dict[str, Parent] = {}
        self.pace = Pace()
        self.last_saved: LastSaved | None = None
        """The checkpoint that this process committed last."""
        self.room_checked = False
        """Whether there was a look at the room for what is kept, before the first save."""
        self.resumed_from = lineage.resumed.setdefault((storage.url, self.path), set())
        """The save ids of this run's versions that this process restored, through any store."""

    def spell(self, run: str) -> None:
        """Take the run's name as spelled by a caller, unless it is settled otherwise.

        Raises:
            InvalidNameError: They differ in case, and this process has saved under the other.
        """
        if self._next is None:
            # Not settled yet: before the first save the name is compared with what is stored.
            self.run = run
        elif run != self.run:
            raise InvalidNameError(
                f"{self.run!r} and {run!r} differ in case alone, so they are one run, and one of "
                "them is in use already: keep to one spelling"
            )

    @property
    def parent(self) -> Parent | None:
        """What the next version comes from by default.

        What this process resumed or last saved in this run; before that, what it last restored from
        any other run, as a fine-tuning does.
        """
        return self._parent or self._lineage.restored

    def resumed(self, parent: Parent) -> None:
        """Take note that this process goes on from *parent*, so that saves belong to it."""
        self._parent = self._lineage.restored = parent
        self.resumed_from.add(parent.save_id)
        self._mine = True

    def once(self, messages: Callable[[], Sequence[str]]) -> Sequence[str]:
        """Return the messages the first time a save asks, none later."""
        if self._warned:
            return ()
        self._warned = True
        return messages()

    def prepare(self, *, goes_on: bool) -> None:
        """Do what a process's first save into a run does, before anything is written.

        Args:
            goes_on: Whether the save goes on with a training, as a checkpoint does: then there is a
                warning, once, if this process neither resumed nor created the run.

        Raises:
            InvalidNameError: The run exists and is spelled otherwise.
            IntegrityError: A version's manifest is missing though a later one is there.
            StorageError: The storage failed, or can't keep two writers apart.
        """
        with self._lock:
            if self._last is not None and not self._storage.exclusive:
                self._check_alone(*self._last)
            if self._start is not None and not self._is_there(*self._start):
                self._begin_again(self._start[0])
            if self._next is None:
                self._grace_s = found(self._storage, single_writer=self._single_writer).grace_s
                self._founded = True
                self._next = self._first_number()
            if goes_on and not self._mine:
                self._mine = True
                warn(
                    f"run {self.run!r} already has {self._next - 1} version(s), and this process "
                    f"neither resumed nor created it: saving goes on as version {self._next}; call "
                    "resume() first to continue that training, or name another run",
                    RunWarning,
                )

    def kept(self) -> tuple[Mapping[str, Any] | None, int]:
        """Return what the run's settings say to keep, and how many live versions it has.

        Nothing and none where that can't be told: the save that follows says what is wrong.
        """
        try:
            self._catalog.sync(self.path)
            settings = self._catalog.settings(self.path)
            return None if settings is None else settings.keep, len(self._catalog.live(self.path))
        except CkptStoreError:
            return None, 0

    def bases(self, kind: str, sources: Sequence[Parent]) -> list[tuple[Basis, Moment]]:
        """Return the versions that a version of that kind may share packs with.

        What it comes from, and the run's previous one of its kind: each with when it was seen to be
        live.

        Raises:
            StorageError: The storage failed.
        """
        with self._lock:
            previous = self._saved.get(kind) or self._newest(kind)
            wanted = sources if previous is None else [previous, *sources]
            look_s = min(LOOK_S, LOOK_SHARE * self._grace_s)
            return self._bases.live(wanted, look_s=look_s)

    def remember(self, kind: str, basis: Basis, looked: Moment) -> None:
        """Take note of what the next version can build upon."""
        with self._lock:
            self._saved[kind] = basis.version
            self._bases.remember(basis, looked)

    def set_tags(self, names: Sequence[str], head: Head) -> None:
        """Point tags at the version that was just saved.

        Another process may have pruned it since, as nobody knew of the tags: that is taken back.

        Raises:
            RetiredError: It was retired, and that can't be taken back.
            StorageError: One could not be set; the error notes that the version is saved.
        """
        for name in names:
            with noting(f"{head.ref} is saved; only its tag {name!r} may not be set"):
                for _ in range(MAX_LOST_RACES):
                    try:
                        self.tag(name, head.version)
                        break
                    except RetiredError:
                        begun = self._bases.looked(head.save_id)
                        if not self.make_live(self.path, head.version, begun):
                            raise

    def make_live(self, path: str, version: int, since: Moment | None) -> bool:
        """Take back that another process retired a version since it was seen to be live.

        Args:
            path: Its run's path.
            version: Its number.
            since: When it was live, or not there yet; None where nobody knows.

        Returns:
            Whether it was retired and is live again.

        Raises:
            LateCommitError: It took longer than half the grace period, and it is retired again.
            StorageError: The storage failed.
        """
        if since is None or since.elapsed_s() > self._grace_s / 2:
            return False
        revived = append(self._storage, self._catalog, path, make_live(version)) is not None
        if revived and since.elapsed_s() > self._grace_s / 2:
            append(self._storage, self._catalog, path, retire_late(version))
            raise self._late(f"version {version} of run {path!r} was retired again")
        return revived

    def announce(self, parent: Parent, save_id: UUID, since: Moment | None = None) -> None:
        """Record in another run that one of its versions is about to have a child in this one.

        So that nobody retires it there, wherever it is decided, without looking at all runs. If
        somebody did since it was seen to be live, that is taken back.

        Raises:
            StorageError: The storage failed.
        """
        path = run_path(parent.run)
        if path == self.path:
            return
        try:
            record = self._catalog.version(path, parent.version)
            if record is None or record.head is None or record.head.save_id != parent.save_id:
                return  # a version of another store, or of a run that was replaced since
            append(
                self._storage,
                self._catalog,
                path,
                add_child(parent.version, self.run, save_id),
            )
            self.make_live(path, parent.version, since)
        except (IntegrityError, NewerFormatError) as error:
            warn(
                f"run {parent.run!r} can't take note that {parent.run}@{parent.version} has a "
                f"child in run {self.run!r}, so a prune there may retire it: {error}",
                RunWarning,
            )

    def commit(
        self, head: Callable[[int], Head], lines: Sequence[bytes], *, since: Moment
    ) -> tuple[Head, bytes]:
        """Create the manifest under the next number that is free, and index it.

        Args:
            head: Gives the head for a number.
            lines: The parts' lines.
            since: When what it names was begun to be written or seen to be live. Half the grace
                period later a collection may have taken it.

        Returns:
            The head as committed, and its line's bytes.

        Raises:
            LateCommitError: It took too long; what was committed is retired.
            StorageError: It could not be committed, or the outcome is unknown.
        """
        with self._lock:
            if since.elapsed_s() > self._grace_s / 2:
                raise self._late(f"no version of run {self.run!r} was committed")
            first = self._next or self._first_number()
            # If this ends in an error or an interrupt the number may be taken, by us even. Then the
            # next save looks again: storage that can't keep two writers apart would write over it.
            self._next = None
            save_id = str(head(first).save_id)
            data = b""  # as last made, which is what was committed in the end

            def manifest(number: int) -> bytes:
                nonlocal data
                data = encode_manifest(head(number), lines)
                return data

            number = create_next(
                self._storage,
                lambda number: version_key(self.path, number),
                first,
                manifest,
                save_id,
            )
            committed = head(number)
            self._next = number + 1
            key, line = version_key(self.path, number), data[: data.index(b"\n")]
            self._start = (key, line[:START_BYTES])
            if not self._storage.exclusive:
                self._last = (key, data)
            with noting(f"{committed.ref} is saved; only the catalog may be behind"):
                self._index(line, committed)
            if since.elapsed_s() > self._grace_s / 2:
                self._take_back(committed)
            if committed.kind == "checkpoint" and committed.copied_from is None:
                self._mine = True
                self._parent = parent_of(committed)
            return committed, line

    def holds(self, save_id: UUID) -> bool:
        """Say whether a manifest of that save is there, whole or torn: one of the newest, if any.

        Raises:
            StorageError: The storage failed.
        """
        listing = self._storage.list_folder(versions_folder(self.path))
        newest = numbered(listing.files, VERSION_FILE)[-NEWEST:]
        keys = [version_key(self.path, number) for number in newest]
        starts = self._storage.read_many(keys, START_BYTES)
        return any(str(save_id).encode() in (start or b"") for start in starts)

    def _take_back(self, head: Head) -> None:
        """Retire a version that was committed too late, and raise."""
        note = f"{head.ref} was committed too late and may not be retired yet: load another version"
        try:
            with noting(note):
                append(self._storage, self._catalog, self.path, retire_late(head.version))
        except CkptStoreError as error:
            raise self._late(f"{head.ref} could not be retired, so load another") from error
        raise self._late(f"{head.ref} was retired again")

    def _late(self, what: str) -> LateCommitError:
        self._bases.forget()
        self._saved.clear()
        return LateCommitError(
            f"{self._storage.url}: the save took longer than half the store's grace period "
            f"({self._grace_s / 2:.0f} s), so what it names may be deleted by now: {what}. Save "
            "again; did the machine sleep?"
        )

    def _first_number(self) -> int:
        listing = self._storage.list_folder(versions_folder(self.path))
        numbers = numbered(listing.files, VERSION_FILE)
        if not numbers:
            self._mine = True
            return 1
        missing = sorted(set(range(1, numbers[-1])) - set(numbers))
        if missing:
            raise IntegrityError(
                f"{self._storage.url}: run {self.run!r} has version {numbers[-1]} but no manifest "
                f"of version {missing[0]}: was it deleted, or copied in part? Bring "
                f"{version_key(self.path, missing[0])} back, or save into another run"
            )
        try:
            self._catalog.sync(self.path)
        except JournalDamagedError as error:
            warn(
                f"saving into run {self.run!r} goes on, but nothing more can be recorded in its "
                f"journal (tags, settings, later metrics) until it is repaired: {error}",
                RunWarning,
            )
        spelled = self._catalog.run_name(self.path) or self.run
        if spelled != self.run:
            raise InvalidNameError(
                f"run {self.run!r} is there already as {spelled!r}: names that differ in case "
                "alone are one run; use that spelling"
            )
        return numbers[-1] + 1

    def _newest(self, kind: str) -> Parent | None:
        """Return the run's newest live version of that kind, None if there is none to build on."""
        try:
            record = self._catalog.latest(self.path, kind)
        except (IntegrityError, NewerFormatError):
            return None
        return None if record is None or record.head is None else parent_of(record.head)

    def _is_there(self, key: str, start: bytes) -> bool:
        """Say whether the version this process saved last is still in the storage."""
        return self._storage.read_many([key], len(start)) == [start]

    def _begin_again(self, key: str) -> None:
        """Forget what is known of the run: it, or the whole store, was deleted meanwhile."""
        warn(
            f"{self._storage.url}/{key}, which this process saved, is gone or was replaced; was "
            f"the folder deleted? Saving into run {self.run!r} goes on from what is there now",
            RunWarning,
        )
        self._next = self._start = self._last = self._parent = self._recorded = None
        self._keeps, self._founded = None, False
        self.resumed_from.clear()
        self._saved.clear()
        self._bases.forget()
        self._mine = True
        self._catalog.forget()

    def _check_alone(self, key: str, data: bytes) -> None:
        """Notice a second writer on storage that can't keep two apart."""
        try:
            present = self._storage.read(key)
        except FileNotFoundError:
            present = b""
        if present != data:
            raise SecondWriterError(
                f"{self._storage.url}/{key} is no longer what this process wrote: another process "
                "writes to this single-writer store, or the file was changed. Stop the other one; "
                "nothing more was written"
            )

    def _index(self, line: bytes, head: Head) -> None:
        try:
            self._catalog.add(line, head)
        except CatalogError as error:
            warn(
                f"{head.ref} is saved; the catalog is behind until the next sync: {error}",
                CatalogWarning,
            )
