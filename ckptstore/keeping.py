"""The verbs that keep a store in order: retention, clean-up, checks, copies."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ckptstore.entry import Checkpoint, Entry, Package
from ckptstore.errors import (
    ArgumentError,
    CkptStoreError,
    NotAStoreError,
    RetentionWarning,
    warn,
)
from ckptstore.opened import Monitor, Opened
from ckptstore.saving.on_full import Retire
from ckptstore.saving.pending import wait_for
from ckptstore.storage.opening import parse
from ckptstore.text import size

if TYPE_CHECKING:
    from ckptstore.saving.run_writer import RunWriter
    from ckptstore.upkeep.collected import Collected
    from ckptstore.upkeep.copied import Copied
    from ckptstore.upkeep.findings import Report
    from ckptstore.upkeep.keep import Keep
    from ckptstore.upkeep.progress import Progress
    from ckptstore.upkeep.pruned import Pruned


# Deciding looks at every live version. So a run that keeps more than this many is pruned after
# every second save, one that keeps 6,400 after every hundred-and-first: a save's share of the
# work stays the same, and at most one in so many stays too long.
PRUNED_AT_ONCE = 64
DAY_S = 24 * 60 * 60


class Keeping(Opened):
    """Retention, clean-up, checks, copies."""

    def prune(
        self, keep: Keep | None = None, *, run: str | None = None, dry_run: bool = False
    ) -> list[Pruned]:
        """Retire the versions of one or several runs that are not kept.

        Retiring deletes nothing: what was retired stays in the history, can be undeleted for half
        the store's grace period, and is deleted by :meth:`collect` after all of it.

        Args:
            keep: What to keep; None means what each run's settings say.
            run: A run, or a glob over runs (``sweep/*``). It must be named.
            dry_run: Retire nothing, and print what would be, with the reasons, as a table.

        Returns:
            What was decided of each run's live versions, and why.

        Raises:
            ArgumentError: *run* is missing, or *keep* is and a run's settings don't say.
            RunNotFoundError: No such run, or none that the glob matches.
            NotAStoreError: There is no store.
            IntegrityError: A journal is damaged. Nothing of that run was retired.
            NewerFormatError: A newer ckptstore made a version, a journal or what it says to keep.
            StorageError: The storage failed.
        """
        if run is None:
            raise ArgumentError(
                "store.prune() needs run=: a run, or a glob over runs such as 'sweep/*'; "
                "'*' means every run whose name has no '/'"
            )
        paths = self._lookup.paths(run)
        return [self._prune(self._writer_at(path), keep, self._monitor, dry_run) for path in paths]

    def undelete(self, ref: str | int | Checkpoint | Package) -> Checkpoint | Package:
        """Make a retired version live again. Nothing happens if it is live.

        That is possible for half the store's grace period after it was retired, by the storage's
        own clock.

        Args:
            ref: The version, or its ref.

        Returns:
            The version as it is now.

        Raises:
            RetiredError: It was retired longer ago than that.
            LateCommitError: It became too late meanwhile; the version is retired again.
            IntegrityError: Its manifest is damaged, or some of its data are gone.
            JournalDamagedError: The run's journal is damaged.
            NotFoundError: There is no such version.
            NewerFormatError: A newer ckptstore made it, the store or a journal entry.
            CollectionRefusedError: The run's journal lost an entry that the catalog still knows.
            StorageError: The storage failed, or doesn't say when something was written; a note says
                so if the version may be live all the same.
        """
        from ckptstore.upkeep.undeletion import undelete

        wait_for(self.url)
        entry = ref if isinstance(ref, Entry) else self.get(ref)
        writer = self._writer(entry.run)
        undelete(self._storage, entry.run, entry.version, writer.append)
        return self.get(entry.ref)

    def collect(
        self,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Collected:
        """Delete the packs and files that no live version has needed for a whole grace period.

        Safe beside trainings, loads, undeletions and other collections. Leftovers of interrupted
        saves, unfinished uploads included, go as well. Versions and journals stay for ever.

        Args:
            dry_run: Delete nothing, only say what would be deleted and how many bytes that frees.
            progress: Called with how much is done, how much there is or None, and what is being
                done.

        Returns:
            What was deleted, and what could not be, by key.

        Raises:
            CollectionRefusedError: It can't be told what is needed, as the storage failed or
                something is damaged, missing or of a newer ckptstore. Nothing was deleted, or what
                the error says, where it took so long that the store was looked at again.
            NotAStoreError: There is no store.
            NotExclusiveError: The storage can't keep two writers apart, and ``single_writer`` isn't
                set.
            CatalogError: The catalog can't say what it knows. As before.
            StorageError: A request to delete failed as a whole; a rerun finishes.
        """
        from ckptstore.upkeep.collection import collect

        wait_for(self.url)
        return collect(
            self._storage,
            single_writer=self._single_writer,
            known=self._catalog.indexed_counts,
            dry_run=dry_run,
            progress=progress,
        )

    def verify(
        self,
        ref: str | int | None = None,
        *,
        deep: bool = True,
        repair: bool = False,
        progress: Progress | None = None,
    ) -> Report:
        """Check that everything is what was saved: structure, digests, numbers, the catalog.

        Args:
            ref: A version (``digits@7``), a run (``digits``), a glob over runs, or None: the whole
                store, with what belongs to no version.
            deep: Read every byte; else structure, sizes and headers alone.
            repair: Do what is safe: record which versions are damaged, so that no process picks
                them, retire those whose manifests can't be read, and bring the catalog up to date.
                Nothing is removed.
            progress: Called with the bytes read so far, the bytes to read, and what is being read.

        Returns:
            All that was found, and what was done about it; ``.ok`` says whether all is well.

        Raises:
            NotFoundError: There is no store, or nothing that *ref* names.
            InvalidNameError: *ref* is no name.
            NewerFormatError: A newer ckptstore made the store.
            StorageError: The storage failed.
        """
        from ckptstore.upkeep.verify import verify

        wait_for(self.url)

        def append(path: str, decide: Callable[..., Any]) -> object:
            return self._writer_at(path).append(decide)

        return verify(
            self._storage,
            self._catalog,
            ref=ref,
            deep=deep,
            append=append if repair else None,
            progress=progress,
        )

    def copy_to(
        self,
        other: Opened | str | os.PathLike[str],
        *,
        run: str | Sequence[str] | None = None,
        ref: str | int | Sequence[str | int] | None = None,
        into: str | None = None,
        progress: Progress | None = None,
    ) -> Copied:
        """Copy runs or versions into another store, on whatever storage it is.

        Live versions are copied, bit for bit and verified on their way, with their tags, later
        metrics and notes. Each gets the next number there. What was copied earlier, or came from
        there, is not copied again: after an interruption, or when there is more, call it again.

        Args:
            other: The other store, or its address. A store is made where there is none.
            run: A run, a glob over runs (``sweep/*``), or several of them.
            ref: A version (``digits@7``, ``digits@best``), or several. With neither a run nor a
                version the whole store is copied.
            into: The run's name in the other store, where it is to be another one.
            progress: Called with the bytes settled so far, the bytes in all, and what is being
                copied.

        Returns:
            What was copied, what was there already, and what was left as it was there.

        Raises:
            ArgumentError: Both are one store, or *into* is given and several runs are copied.
            InvalidNameError: *into* is no name, or the run is spelled otherwise there.
            NotFoundError: There is no store, or no run or version of that name.
            RetiredError: A version that was named is retired.
            IntegrityError: Some versions are damaged; it names them, and all others were copied. Or
                the other store is.
            NewerFormatError: A newer ckptstore made one of the stores or a version.
            LateCommitError: Copying one version took longer than half the other's grace period.
            StorageError: A storage failed. What was copied until then is whole.
        """
        from ckptstore.upkeep.chosen import Place, choose
        from ckptstore.upkeep.transfer import transfer

        opened = other if isinstance(other, Opened) else self._beside(other)
        try:
            source = Place(self._storage, self._catalog, self._writer)
            target = Place(opened._storage, opened._catalog, opened._writer)  # noqa: SLF001 - our own class
            wait_for(self.url)
            wait_for(opened.url)
            chosen = choose(source, run, ref, self._monitor)
            return transfer(source, target, chosen, into=into, progress=progress)
        finally:
            if opened is not other:
                opened.close()

    def reindex(self) -> list[str]:
        """Forget all that the catalog knows of this store and index it again.

        Returns:
            The names of its runs.

        Raises:
            NotAStoreError: There is no store.
            CatalogError: The database failed.
            JournalDamagedError: A run's journal is damaged; all other runs are indexed.
            IntegrityError: ``ckptstore.json`` is damaged, or gone though there are runs.
            NewerFormatError: A newer ckptstore made the store, a version or a journal entry.
            StorageError: The storage failed.
        """
        wait_for(self.url)
        return [self._catalog.run_name(path) or path for path in self._catalog.reindex()]

    # ------------------------------------------------------------ how

    def _beside(self, url: str | os.PathLike[str]) -> Opened:
        """Open another store; on the same kind of storage with the same options."""
        options = self._options["storage_options"]
        is_alike = parse(os.fspath(url)).protocol == parse(self._storage.url).protocol
        return Opened(url, storage_options=options if is_alike else None)

    def _prune(
        self,
        writer: RunWriter,
        keep: Keep | None,
        monitor: Monitor,
        dry_run: bool,  # noqa: FBT001 - the store's own keyword, handed on
    ) -> Pruned:
        from ckptstore.upkeep.keep import keep_json
        from ckptstore.upkeep.pruning import prune

        keep_json(keep)  # refuses what is no Keep
        done = prune(
            self._catalog,
            self._storage,
            writer.run,
            keep,
            resumed=tuple(writer.resumed_from),
            given=monitor,
            now=datetime.now(UTC),
            append=None if dry_run else writer.append,
        )
        if dry_run:
            print(done)  # noqa: T201 - what a dry run is for
        return done

    def _apply_keep(self, writer: RunWriter, ref: str) -> None:
        """Prune a run that a version was just committed to, if its settings say what to keep.

        The version is saved by then, so a failure is a warning; the next save tries again.
        """
        from ckptstore.saving.journaling import noting

        try:
            with noting(f"{ref} is saved; only what its run keeps may not have been applied"):
                if writer.saves_until_pruned:
                    writer.saves_until_pruned -= 1
                elif writer.keeps:
                    done = self._prune(writer, None, (None, None), dry_run=False)
                    writer.saves_until_pruned = len(done.kept) // PRUNED_AT_ONCE
        except CkptStoreError as error:
            warn(
                f"the version is saved; run {writer.run!r} could not be pruned, and the next save "
                f"tries again: {error}",
                RetentionWarning,
            )

    def _retirer(self, writer: RunWriter) -> Retire:
        """Return how room is made for a run: what it keeps is applied, then all is collected."""

        def make_room() -> str:
            try:
                return f"{self._retire_for_room(writer)}; {self._collect_for_room()}"
            except NotAStoreError:
                return "there is nothing to retire yet"

        return make_room

    def _retire_for_room(self, writer: RunWriter) -> str:
        try:
            if not writer.keeps:
                return f"nothing was retired, as run {writer.run!r} has no keep="
            retired = self._prune(writer, None, (None, None), dry_run=False).retired
        except NotAStoreError:
            raise
        except CkptStoreError as error:
            return f"nothing could be retired: {error}"
        return f"{len(retired)} version(s) were retired"

    def _collect_for_room(self) -> str:
        try:
            done = self.collect()
        except CkptStoreError as error:
            return f"nothing could be collected: {error}"
        return (
            f"{size(done.deleted_bytes)} were collected; {size(done.retired.size_bytes)} more were "
            f"retired, and can be once that is {done.grace_s / DAY_S:.3g} days ago"
        )

    def _writer_at(self, path: str) -> RunWriter:
        return self._writer(self._catalog.run_name(path) or path)
