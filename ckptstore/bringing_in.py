"""The verbs that bring checkpoints of other tools into a store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from ckptstore.entry import Checkpoint
from ckptstore.errors import ImportingWarning, warn
from ckptstore.format.facts import VersionFacts
from ckptstore.format.layout import run_path
from ckptstore.format.manifest import Head
from ckptstore.importing.options import ImportOptions
from ckptstore.keeping import Keeping

if TYPE_CHECKING:
    from ckptstore.importing.bring import Target
    from ckptstore.importing.imported import Imported, ImportedFile
    from ckptstore.saving.settings import GivenSettings
    from ckptstore.upkeep.progress import Progress


class BringingIn(Keeping):
    """Importing files and folders that other tools wrote."""

    def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        run: str | None = None,
        epoch: int | None = None,
        step: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        storage_options: Mapping[str, Any] | None = None,
        **options: Unpack[ImportOptions],
    ) -> Checkpoint:
        """Import a checkpoint that another tool wrote; every tensor comes over bit for bit.

        Its content says what it is, not its name: what torch.save wrote, of any age (state dicts,
        dicts of them with an epoch and metrics, Lightning's ``.ckpt``), a safetensors file, or a
        folder of Hugging Face or of torch.distributed.checkpoint. Nothing that it says is run.

        Args:
            path: The file or folder: a path, or any fsspec URL.
            run: The run; the store's default run if None.
            epoch: Instead of what the content says, or else the name
                (``model_epoch12_valloss0.31.pth``).
            step: The same.
            metrics: Metrics beside those of the content and the name, and before them.
            tags: Tags to set on the new version.
            storage_options: Arguments of the fsspec filesystem of *path*.
            **options: ``model_config``, ``config``, ``keys``, ``rename``, ``ties``, ``unwrap``,
                ``trust_pickle`` and ``again``: see
                :class:`ckptstore.importing.options.ImportOptions`.

        Returns:
            The new version; or, with a warning, the one that was imported from that file before.

        Raises:
            UntrustedPickleError: It can't be read without running what it says; the error has all
                names that it would import.
            ImportRefusedError: It is damaged, made to harm, or nothing that is known.
            ArgumentError: A keyword is not taken, or says what isn't so.
            NotFoundError: There is nothing at *path*.
            CkptStoreError: As :meth:`ckptstore.Store.save`.
        """
        name = self._default_run if run is None else run
        facts = {"epoch": epoch, "step": step, "metrics": metrics}
        return self._import_file(
            path,
            name,
            self._given(),
            facts=facts,
            options=options,
            tags=tags,
            storage_options=storage_options,
        )

    def import_folder(
        self,
        path: str | os.PathLike[str],
        *,
        pattern: str | None = None,
        run: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ImportOptions],
    ) -> Imported:
        """Import all checkpoints that lie right in a folder, in the order of their epochs.

        Epochs, steps and metrics come from the contents, else from the names. What the run has
        already is not imported again: after an interruption, or when there is more, call it again.

        Args:
            path: The folder, or one checkpoint: a path, or any fsspec URL.
            pattern: A glob that names must match, e.g. ``"epoch=*.ckpt"``.
            run: The run; the store's default run if None.
            storage_options: Arguments of the fsspec filesystem of *path*.
            progress: Called with how many are done, how many there are, and the name of the next.
            **options: For all of them, as for :meth:`import_file`.

        Returns:
            The versions in that order, those that were there already included: ``.new`` has the
            refs of those that weren't, ``.notes()`` what was changed on the way.

        Raises:
            ImportRefusedError: Some could not be imported; it names them and says why, and all
                others were. Or there is no checkpoint in the folder.
            CkptStoreError: As :meth:`import_file`.
        """
        name = self._default_run if run is None else run
        return self._import_folder(
            path,
            name,
            self._given(),
            options=options,
            pattern=pattern,
            storage_options=storage_options,
            progress=progress,
        )

    # ------------------------------------------------------------ how

    def _import_file(
        self,
        path: str | os.PathLike[str],
        run: str,
        given: GivenSettings,
        *,
        facts: Mapping[str, Any],
        options: ImportOptions,
        tags: Sequence[str],
        storage_options: Mapping[str, Any] | None,
    ) -> Checkpoint:
        from ckptstore.importing.bring import bring
        from ckptstore.importing.options import told_of
        from ckptstore.importing.places import find_place
        from ckptstore.saving.checkpoint import checked_tags
        from ckptstore.saving.save import check_rank

        check_rank()
        told, names = told_of(options, **facts), checked_tags(tags)
        place = find_place(path, storage_options)
        try:
            place.is_folder()  # raises where there is nothing
            done = bring(self._target(run, given), place, None, told, tags=names)
        finally:
            place.close()
        self._say_notes(done)
        if done.is_new:
            return Checkpoint(done.head, self._source, VersionFacts(names))
        warn(_before(done), ImportingWarning)
        return self._known_now(done.head)

    def _import_folder(
        self,
        path: str | os.PathLike[str],
        run: str,
        given: GivenSettings,
        *,
        options: ImportOptions,
        pattern: str | None,
        storage_options: Mapping[str, Any] | None,
        progress: Progress | None,
    ) -> Imported:
        from ckptstore.importing.folder import bring_folder
        from ckptstore.importing.imported import Imported
        from ckptstore.importing.options import told_of
        from ckptstore.importing.places import find_place
        from ckptstore.saving.save import check_rank

        check_rank()
        told, place = told_of(options), find_place(path, storage_options)
        try:
            done = bring_folder(
                self._target(run, given), place, told, pattern=pattern, progress=progress
            )
        finally:
            place.close()
        for each in done.files:
            self._say_notes(each)
        old = [each for each in done.files if not each.is_new]
        if old:
            many = (
                f"{len(old)} of {len(done.files)} were imported before, the first as "
                f"{old[0].head.ref}, and are not imported again; again=True does"
            )
            warn(_before(old[0]) if len(old) == 1 else many, ImportingWarning)
        return Imported([self._known_now(each.head) for each in done.files], done)

    def _target(self, run: str, given: GivenSettings) -> Target:
        from ckptstore.importing.bring import Target

        self._pending.settle()
        writer = self._writer(run)
        return Target(
            self._storage,
            self._catalog,
            writer,
            given,
            lambda head: self._apply_keep(writer, head.ref),
        )

    def _known_now(self, head: Head) -> Checkpoint:
        facts = self._catalog.version_facts(run_path(head.run), head.version)
        return Checkpoint(head, self._source, facts or VersionFacts())

    @staticmethod
    def _say_notes(done: ImportedFile) -> None:
        for note in done.notes:
            warn(f"{done.head.ref}, imported from {done.name}: {note}", ImportingWarning)


def _before(done: ImportedFile) -> str:
    return (
        f"{done.name} was imported before, as {done.head.ref}, and is not imported again; "
        "again=True does"
    )
