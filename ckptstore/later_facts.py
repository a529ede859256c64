"""The verbs that record what became known of a version after it was saved."""

from __future__ import annotations

from ckptstore.entry import Checkpoint, Entry, Package
from ckptstore.opened import Opened


class LaterFacts(Opened):
    """Tags, and whatever else is written into a run's journal."""

    def tag(self, ref: str | int | Checkpoint | Package, name: str) -> None:
        """Point a tag at a version, from wherever it pointed before.

        Args:
            ref: The version, or its ref.
            name: The tag: letters, digits and ``. _ = + , -``; no number, ``best`` or ``latest``.

        Raises:
            InvalidNameError: *name* is no name for a tag, or *ref* is none.
            NotFoundError: There is no such version.
            IntegrityError: The version's manifest or the run's journal is damaged.
            NewerFormatError: A newer ckptstore made the store, the version or the journal.
            StorageError: The storage failed.
        """
        entry = ref if isinstance(ref, Entry) else self.get(ref)
        self._writer(entry.run).tag(name, entry.version)

    def untag(self, name: str, *, run: str | None = None) -> None:
        """Take a tag away; nothing happens if there is none of that name.

        Args:
            name: The tag.
            run: The run it belongs to; the only run there is if None.

        Raises:
            InvalidNameError: *name* is no name for a tag.
            NotFoundError: No such run, or several and none was named.
            IntegrityError: The run's journal is damaged.
            NewerFormatError: A newer ckptstore made the store or the journal.
            StorageError: The storage failed.
        """
        path = self._lookup.one_path(run)
        self._writer(self._catalog.run_name(path) or path).tag(name, None)
