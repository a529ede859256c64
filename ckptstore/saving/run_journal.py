"""A run's journal as one process writes to it: settings, tags, whatever became known later."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress

from ckptstore.catalog.index import Catalog
from ckptstore.errors import CkptStoreError, JournalDamagedError, SettingsWarning, warn
from ckptstore.format.journal import Entry
from ckptstore.format.layout import check_tag, run_path
from ckptstore.saving.bases import LOOK_S
from ckptstore.saving.founding import found
from ckptstore.saving.journaling import Decide, append, noting, set_settings, set_tag
from ckptstore.saving.moment import Moment
from ckptstore.saving.on_full import WhenFull
from ckptstore.saving.settings import GivenSettings, shown
from ckptstore.storage.base import Storage

# A fork copies a lock that another thread of the parent may hold, and nobody would ever release it.
_journals: weakref.WeakSet[RunJournal] = weakref.WeakSet()


def _renew_locks() -> None:
    for journal in _journals:
        journal._lock = threading.RLock()  # noqa: SLF001 - this module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class RunJournal:
    """One process's hold on one run's journal. Safe to use from several threads."""

    def __init__(
        self, storage: Storage, catalog: Catalog, run: str, *, single_writer: bool
    ) -> None:
        self.run = run
        self.path = run_path(run)
        self._storage = storage
        self._catalog = catalog
        self._single_writer = single_writer
        self._recorded: GivenSettings | None = None
        self._keeps: tuple[bool, Moment] | None = None
        self._founded = False
        self.when_full = WhenFull(storage)
        """What is done where there is no room; set by the store that this is a run of."""
        self.saves_until_pruned = 0
        """How many saves to let pass before the run is pruned again."""
        self._lock = threading.RLock()
        _journals.add(self)

    @property
    def keeps(self) -> bool:
        """Whether the run's settings say what to keep; another process may have said so.

        Raises:
            CkptStoreError: The journal could not be read.
        """
        if self._keeps is None or self._keeps[1].elapsed_s() >= LOOK_S:
            looked = Moment.now()
            with suppress(JournalDamagedError):  # the run's first save warned of it
                self._catalog.sync(self.path)
            settings = self._catalog.settings(self.path)
            self._keeps = (settings is not None and settings.keep is not None, looked)
        return self._keeps[0]

    def record(self, given: GivenSettings) -> None:
        """Record settings in the run's journal where they differ from what stands there.

        The version is committed by then, so a failure is a warning; the next save tries again.
        """
        if given in (GivenSettings(), self._recorded):
            return
        try:
            with noting(f"the version is saved; only the settings of {self.run!r} may not be"):
                self._record(given)
        except CkptStoreError as error:
            warn(
                f"the version is saved; the settings of run {self.run!r} could not be recorded, "
                f"and the next save tries again: {error}",
                SettingsWarning,
            )
        else:
            self._recorded, self._keeps = given, None

    def _record(self, given: GivenSettings) -> None:
        with self._lock:
            self._catalog.sync(self.path)
            recorded = self._catalog.settings(self.path)
            wanted = given.over(recorded)
            if wanted == recorded:
                return
            if recorded is not None:
                warn(
                    f"run {self.run!r}: its recorded settings were {shown(recorded)} and are "
                    f"now {shown(wanted)}; "
                    "every process that reads the run follows",
                    SettingsWarning,
                )
            append(self._storage, self._catalog, self.path, set_settings(given.over))

    def tag(self, tag: str, version: int | None) -> None:
        """Point a tag at a version, or take it away where that is None.

        Raises:
            RetiredError: The version is retired.
            InvalidNameError: *tag* is no name for a tag. A journal that held it would be damaged.
        """
        check_tag(tag)
        self.append_with_room(f"tag {tag!r}", set_tag(tag, version, f"{self.run}@{version}"))

    def append_with_room(self, what: str, decide: Decide) -> Entry | None:
        """Append as :meth:`append` does, when there is room for it.

        For what trainings record: they are no more to die of a full disk here than in ``save``.

        Args:
            what: What is recorded, for messages.
            decide: As for :meth:`append`.

        Raises:
            StorageError: As :meth:`append`; for want of room where that is the store's policy.
        """
        return self.when_full.write(f"{what} of run {self.run!r}", lambda: self.append(decide))

    def append(self, decide: Decide) -> Entry | None:
        """Append what *decide* makes of the run's journal as it stands.

        Returns:
            The entry that was created, None if none was needed.

        Raises:
            StorageError: It could not be created, or the storage can't keep two writers apart.
        """
        with self._lock:
            if not self._founded:
                found(self._storage, single_writer=self._single_writer)
                self._founded = True
            return append(self._storage, self._catalog, self.path, decide)
