"""The versions that a process's saves may build upon, and when each was last seen to be live.

A save may name the packs of another version if that one was not retired when it was looked at, and
if the save is committed within half the grace period of that look: then no collection can have
taken them. docs/explanation/clean-up.md has the argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from ckptstore.catalog.index import Catalog
from ckptstore.errors import IntegrityError, NewerFormatError, NotFoundError
from ckptstore.format.layout import run_path
from ckptstore.format.manifest import Parent
from ckptstore.manifest import open_manifest
from ckptstore.saving.basis import Basis, basis_of
from ckptstore.saving.moment import Moment
from ckptstore.storage.base import Storage

# How long a look holds good. A fraction of any sensible grace period, and many saves long.
LOOK_S = 60.0
# How many versions are remembered: a run's last checkpoint and package, and what they came from.
MOST_REMEMBERED = 8


class Bases:
    """Versions to build upon, as one process knows them. Its owner keeps threads apart."""

    def __init__(self, storage: Storage, catalog: Catalog) -> None:
        self._storage = storage
        self._catalog = catalog
        self._known: dict[UUID, tuple[Basis, Moment]] = {}

    def remember(self, basis: Basis, looked: Moment) -> None:
        """Remember a version that was live at that moment, or not there yet."""
        self._known.pop(basis.version.save_id, None)
        self._known[basis.version.save_id] = (basis, looked)
        while len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]

    def forget(self) -> None:
        """Forget all: the store was deleted or replaced."""
        self._known.clear()

    def live(self, wanted: Iterable[Parent]) -> list[tuple[Basis, Moment]]:
        """Return those versions that may be built upon, each with when it was seen to be live.

        What is retired, damaged or gone is left out: then its tensors are written again.

        Raises:
            StorageError: The storage failed.
        """
        found = []
        for version in dict.fromkeys(wanted):
            try:
                seen = self._seen(version)
            except (IntegrityError, NewerFormatError, NotFoundError):
                seen = None
            if seen is None:
                self._known.pop(version.save_id, None)
            else:
                self.remember(*seen)
                found.append(seen)
        return found

    def _seen(self, version: Parent) -> tuple[Basis, Moment] | None:
        """Return a version as a basis, looked at again if the last look was long ago."""
        known = self._known.get(version.save_id)
        if known is not None and known[1].elapsed_s() < LOOK_S:
            return known
        looked = Moment.now()
        path = run_path(version.run)
        self._catalog.sync(path)
        facts = self._catalog.version_facts(path, version.version)
        if facts is None or facts.retired is not None or facts.damage is not None:
            return None
        if self._catalog.is_passed_over(version.save_id):
            return None
        return (known[0] if known is not None else self._read(version)), looked

    def _read(self, version: Parent) -> Basis:
        opened = open_manifest(self._storage, version.run, version.version, save_id=version.save_id)
        head = opened.head
        return basis_of(version, head.packs, [opened.part(info.name) for info in head.parts])
