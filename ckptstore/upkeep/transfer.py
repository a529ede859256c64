"""Copying versions from one store into another: each is a save whose source is a store.

It gets a new save id and the next number, and says of what it is a copy. So it is known again: a
copy that was interrupted goes on where it stopped, and nothing is copied twice, not even back to
where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from ckptstore.catalog.identity import Identity
from ckptstore.entry import check_live
from ckptstore.errors import (
    ArgumentError,
    CopyWarning,
    IntegrityError,
    JournalDamagedError,
    NotAStoreError,
    RetiredError,
    warn,
)
from ckptstore.format.digest import MAX_LINE_BYTES
from ckptstore.format.layout import check_run, run_path
from ckptstore.format.manifest import CopiedFrom, Head, Parent, encode_head, parent_of
from ckptstore.manifest import open_manifest
from ckptstore.saving.basis import basis_of
from ckptstore.saving.moment import Moment, earliest
from ckptstore.upkeep.arrivals import Arrivals, ThereMeanwhileError
from ckptstore.upkeep.carrying import carry
from ckptstore.upkeep.chosen import Choice, Item, Place, is_same, merged, store_id
from ckptstore.upkeep.copied import Copied, CopiedVersion
from ckptstore.upkeep.progress import Progress
from ckptstore.upkeep.retelling import retell

NUMBER_DIGITS = 100
"""Bytes by which a head may grow until it has its number."""


def transfer(
    source: Place,
    target: Place,
    chosen: Sequence[Choice],
    *,
    into: str | None = None,
    progress: Progress | None = None,
) -> Copied:
    """Copy runs or versions into another store, verified, and what became known of them later.

    Live versions are copied, those of a run in the order of their numbers. What is there already is
    not copied again: a version that was copied there earlier, or came from there, even if it was
    retired there since. One that was found damaged there is copied anew.

    Args:
        source: The store that is copied from.
        target: The other store; it is made if there is none.
        chosen: What is copied.
        into: The run's name in the other store, where it is another one.
        progress: Told of bytes of tensors settled so far, bytes in all, and what is being copied.

    Returns:
        What was copied, and what was there already.

    Raises:
        ArgumentError: Both are one store, or *into* is given and several runs are copied.
        InvalidNameError: *into* is no name, or the run is spelled otherwise there.
        IntegrityError: Some versions are damaged; it names them. All others were copied.
        NewerFormatError: A newer ckptstore made one of the stores or a version.
        LateCommitError: Copying one version took longer than half the other store's grace period.
        StorageError: A storage failed. What was copied until then is whole; a rerun goes on.
    """
    return _Copying(source, target, chosen, into, progress).run()


class _Copying:
    def __init__(
        self,
        source: Place,
        target: Place,
        chosen: Sequence[Choice],
        into: str | None,
        progress: Progress | None,
    ) -> None:
        self._source = source
        self._target = target
        self._chosen = chosen
        self._into = into
        self._progress = progress
        self._store_id = store_id(source.storage)
        try:
            self._target_id: UUID | None = store_id(target.storage)
        except NotAStoreError:
            self._target_id = None  # the first copy makes it
        if self._target_id == self._store_id and is_same(source.storage, target.storage):
            raise ArgumentError(
                f"{source.storage.url} can't be copied into itself: name another store"
            )
        if into is not None:
            check_run(into)
            if len(chosen) != 1:
                raise ArgumentError(
                    f"into={into!r} gives one run another name, and {len(chosen)} are copied: name "
                    "one with run=…"
                )
        self._arrivals: dict[str, Arrivals] = {}
        self._identities: dict[str, dict[int, Identity]] = {}
        self._done = self._limit = self._total = 0
        self._retired: list[str] = []
        self._damage: dict[str, str] = {}
        self._notes: list[str] = []  # of failures that were passed over, about what they left

    def run(self) -> Copied:
        """Copy what was chosen.

        Raises:
            IntegrityError: Some of it is damaged.
        """
        try:
            return self._run()
        except BaseException as error:
            for note in self._notes:
                error.add_note(note)
            raise

    def _run(self) -> Copied:
        items = merged(map(self._items, self._chosen))
        versions: list[CopiedVersion] = []
        for item in items:
            if self._there(item) is None and item.identity.damage is None:
                self._total += item.identity.size_bytes
        for item in items:
            done = self._bring(item)
            if done is not None:
                versions.append(done)
        entries, left = self._retell_all()
        copied = Copied(
            self._source.storage.url,
            self._target.storage.url,
            tuple(versions),
            tuple(self._retired),
            entries,
            tuple(left),
        )
        for why in left:
            warn(f"{copied.target}: {why}", CopyWarning)
        if self._damage:
            listed = "".join(f"\n  - {ref}: {why}" for ref, why in self._damage.items())
            raise IntegrityError(
                f"{len(self._damage)} version(s) were not copied, because they are damaged:"
                f"{listed}\nAll the others were: {copied.summary()}",
                ref=next(iter(self._damage)),
            )
        for note in self._notes:
            warn(note, CopyWarning)
        return copied

    # ------------------------------------------------------------ what there is

    def _items(self, choice: Choice) -> Iterator[Item]:
        """Yield the versions that are chosen of a run, ascending."""
        path, catalog = choice.path, self._source.catalog
        name = catalog.run_name(path) or path
        for version, identity in self._known(path).items():
            if choice.versions is not None and version not in choice.versions:
                continue
            if identity.retired is not None:
                self._retired.append(f"{name}@{version}")
            else:
                yield Item(path, name, identity)
        for each in catalog.damaged([path]):
            if each.version not in self._known(path) and choice.versions is None:
                record = catalog.version(path, each.version)
                why = record.damage if record is not None else None
                self._damage[f"{name}@{each.version}"] = why or "its manifest can't be read"

    def _known(self, path: str) -> dict[int, Identity]:
        """Return the versions of a run of this store."""
        if path not in self._identities:
            with suppress(JournalDamagedError):  # the choice warned of it
                self._source.catalog.sync(path)
            found = self._source.catalog.identities(path)
            self._identities[path] = {each.version: each for each in found}
        return self._identities[path]

    def _name(self, path: str, run: str) -> str:
        """Return what a run of this store is called in the other."""
        is_renamed = self._into is not None and path == self._chosen[0].path
        return self._into or run if is_renamed else run

    def _arrivals_in(self, run: str) -> Arrivals:
        """Return what is there of a run of the other store."""
        path = run_path(run)
        if path not in self._arrivals:
            self._arrivals[path] = Arrivals(self._target.catalog, run)
        return self._arrivals[path]

    def _there(self, item: Item) -> tuple[str, int] | None:
        """Return which version of which run a version is in the other store, None if none."""
        origin = item.identity.origin
        runs = [self._name(item.path, item.run)]
        came_from = item.identity.copied_from
        if self._into is None and came_from and came_from.store_id == self._target_id:
            runs.append(came_from.version.run)
        for run in runs:
            found = self._arrivals_in(run).get(origin)
            if found is not None:
                return self._arrivals_in(run).run, found.version
        return None

    # ------------------------------------------------------------ copying

    def _bring(self, item: Item) -> CopiedVersion | None:
        """Copy a version unless it is there; take note of what is in the way."""
        there = self._there(item)
        if there is None and item.identity.damage is not None:
            if not self._has_another(item):
                self._damage[item.ref] = item.identity.damage
            return None
        if there is None:
            self._limit = self._done + item.identity.size_bytes
            try:
                copied = self._copy(item)
            except ThereMeanwhileError as error:
                there = error.there
            except RetiredError:
                self._retired.append(item.ref)
                return None
            except _DamagedError as error:
                self._notes += getattr(error.__cause__, "__notes__", ())
                if self._is_retired(item):
                    # A collection took its data while they were being read.
                    self._retired.append(item.ref)
                else:
                    self._damage[item.ref] = str(error)
                    self._source.catalog.pass_over(item.identity.save_id)
                return None
            else:
                return copied
            finally:
                self._done = self._limit
        run, number = there
        return CopiedVersion(item.ref, f"{run}@{number}", item.identity.kind, is_new=False)

    def _copy(self, item: Item) -> CopiedVersion:
        """Copy a version: packs and files, then the manifest.

        Raises:
            RetiredError: It was retired meanwhile.
            ThereMeanwhileError: Another process copied it.
            _DamagedError: It is damaged; nothing of it is visible in the other store.
        """
        begun, since, save_id = datetime.now(UTC), Moment.now(), uuid7()
        number, its_id = item.identity.version, item.identity.save_id
        self._check_live(item)
        with _blaming_source():
            opened = open_manifest(self._source.storage, item.path, number, save_id=its_id)
        original = opened.head
        arrivals = self._arrivals_in(self._name(item.path, item.run))
        writer = self._target.writer(arrivals.run)
        writer.prepare(goes_on=False)
        parent = self._parent(original)
        bases = writer.bases(original.kind, [] if parent is None else [parent])
        with _blaming_source():
            carried = carry(
                opened,
                self._target.storage,
                save_id,
                [basis for basis, _ in bases],
                told=lambda size: self._tell(size, item.ref),
            )
        if parent is not None:
            writer.announce(parent, save_id)
        copied_from = CopiedFrom(
            self._store_id, parent_of(original), original.origin, begun, original.parent
        )

        def head(number: int) -> Head:
            arrivals.check(number, original.origin)
            return replace(
                original,
                save_id=save_id,
                run=writer.run,
                version=number,
                parent=parent,
                packs=carried.packs,
                files=carried.files,
                parts=carried.infos,
                copied_from=copied_from,
            )

        length = len(encode_head(head(1)))
        if length > MAX_LINE_BYTES - NUMBER_DIGITS:
            raise _DamagedError(
                f"{item.ref}: its head would take {length} bytes in the other store; at most "
                f"{MAX_LINE_BYTES} can be read"
            )
        looked = Moment.now()
        since = earliest([since, *(moment for _, moment in bases)])
        committed, _ = writer.commit(head, carried.lines, since=since)
        arrivals.add(committed)
        basis = basis_of(parent_of(committed), carried.packs, carried.parts, files=carried.files)
        writer.remember(committed.kind, basis, looked)
        return CopiedVersion(
            item.ref,
            committed.ref,
            committed.kind,
            is_new=True,
            bytes_written=carried.written_bytes,
            bytes_shared=carried.shared_bytes,
        )

    def _parent(self, original: Head) -> Parent | None:
        """Return what a version's parent is in the other store, None if it is not there."""
        parent = original.parent
        if parent is None:
            return None
        path = run_path(parent.run)
        known = self._known(path).get(parent.version)
        is_it = known is not None and known.save_id == parent.save_id
        origin = known.origin if known is not None and is_it else parent.save_id
        arrivals = self._arrivals_in(self._name(path, parent.run))
        found = arrivals.get(origin)
        return None if found is None else Parent(arrivals.run, found.version, found.save_id)

    def _check_live(self, item: Item) -> None:
        with suppress(JournalDamagedError):
            self._source.catalog.sync(item.path)
        facts = self._source.catalog.version_facts(item.path, item.identity.version)
        if facts is not None:
            check_live(item.ref, facts)

    def _is_retired(self, item: Item) -> bool:
        try:
            self._check_live(item)
        except RetiredError:
            return True
        return False

    def _has_another(self, item: Item) -> bool:
        """Say whether what a damaged version is, or is a copy of, is whole elsewhere in its run."""
        return any(
            other.origin == item.identity.origin and other.damage is None and other.retired is None
            for other in self._known(item.path).values()
        )

    # ------------------------------------------------------------ later facts

    def _retell_all(self) -> tuple[int, list[str]]:
        """Bring later facts along; return how many entries were added, and what was left."""
        entries, left = 0, []
        for choice in self._chosen:
            path = choice.path
            name = self._source.catalog.run_name(path) or path
            wanted: dict[str, dict[int, int]] = {self._name(path, name): {}}
            for version, identity in self._known(path).items():
                there = self._there(Item(path, name, identity))
                is_chosen = choice.versions is None or version in choice.versions
                if there is not None and is_chosen and identity.retired is None:
                    wanted.setdefault(there[0], {})[version] = there[1]
            for run, versions in wanted.items():
                if not versions and choice.versions is not None:
                    continue
                retold = retell(
                    self._source.catalog,
                    path,
                    self._target.catalog,
                    self._target.writer(run),
                    versions,
                    is_whole=choice.versions is None and run == self._name(path, name),
                )
                entries += retold.entries
                left += retold.left
        return entries, left

    def _tell(self, size_bytes: int, what: str) -> None:
        self._done = min(self._done + size_bytes, self._limit)
        if self._progress is not None:
            self._progress(self._done, self._total, what)


class _DamagedError(IntegrityError):
    """What is to be copied is damaged, and not the store that it is copied into."""


@contextmanager
def _blaming_source() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise _DamagedError(str(error), ref=error.ref) from error
