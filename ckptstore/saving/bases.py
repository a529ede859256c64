"""The versions that a process's saves may build upon, and when each was last seen to be live.

A save may name the packs of another version if that one was not retired when it was looked at, and
if the save is committed within half the grace period of that look: then no collection can have
taken them. docs/explanation/clean-up.md has the argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from ckptstore.catalog.index import Catalog
from ckptstore.errors import IntegrityError, NewerFormatError, NotFoundError
from ckptstore.format.layout import file_key, pack_key, run_path
from ckptstore.format.manifest import Head, Parent
from ckptstore.manifest import open_manifest
from ckptstore.saving.basis import Basis, basis_of
from ckptstore.saving.moment import Moment
from ckptstore.storage.base import Storage

# How long a look holds good. A fraction of any sensible grace period, and many saves long.
LOOK_S = 60.0
# Of a short grace period it is no more than that share: half of it must be left for the save.
LOOK_SHARE = 1 / 8
# How many versions are remembered: a run's last checkpoint and package, and what they came from.
MOST_REMEMBERED = 8


class Bases:
    """Versions to build upon, as one process knows them. Its owner keeps threads apart."""

    def __init__(self, storage: Storage, catalog: Catalog) -> None:
        self._storage = storage
        self._catalog = catalog
        self._known: dict[UUID, tuple[Basis, Moment]] = {}
        self._asked: dict[str, tuple[Moment, int]] = {}
        """When each run was last asked for damage, and how much this process knew of by then."""
        self._damaged: dict[str, set[str]] = {}
        """The keys of packs and files of versions that are known to be damaged, by run."""

    def remember(self, basis: Basis, looked: Moment) -> None:
        """Remember a version that was live at that moment, or not there yet."""
        self._known.pop(basis.version.save_id, None)
        self._known[basis.version.save_id] = (basis, looked)
        while len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]

    def looked(self, save_id: UUID) -> Moment | None:
        """Return when a version was last seen to be live, or not there yet."""
        known = self._known.get(save_id)
        return None if known is None else known[1]

    def forget(self) -> None:
        """Forget all: the store was deleted or replaced, or what is known came too late."""
        self._known.clear()
        self._asked.clear()
        self._damaged.clear()

    def live(
        self, wanted: Iterable[Parent], *, look_s: float = LOOK_S
    ) -> list[tuple[Basis, Moment]]:
        """Return those versions that may be built upon, each with when it was seen to be live.

        What is retired, damaged or gone is left out: then its tensors are written again. So is
        every pack and file that a damaged version names, whatever other version names it too:
        damage that was found must not be handed on.

        Args:
            wanted: The versions.
            look_s: For how many seconds a look holds good.

        Raises:
            StorageError: The storage failed.
        """
        found = []
        for version in dict.fromkeys(wanted):
            try:
                seen = self._seen(version, look_s)
            except (IntegrityError, NewerFormatError, NotFoundError):
                seen = None
            if seen is None:
                self._known.pop(version.save_id, None)
            else:
                self.remember(*seen)
                found.append((self._without_damage(seen[0]), seen[1]))
        return found

    def _seen(self, version: Parent, look_s: float) -> tuple[Basis, Moment] | None:
        """Return a version as a basis, looked at again if the last look was long ago."""
        path, looked = run_path(version.run), Moment.now()
        self._ask_for_damage(path, look_s)
        if self._catalog.is_passed_over(version.save_id):
            return None
        known = self._known.get(version.save_id)
        if known is not None and known[1].elapsed_s() < look_s:
            return known
        self._catalog.sync(path)
        facts = self._catalog.version_facts(path, version.version)
        if facts is None or facts.retired is not None or facts.damage is not None:
            return None
        return (known[0] if known is not None else self._read(version)), looked

    def _ask_for_damage(self, path: str, look_s: float) -> None:
        """Look up which packs of a run are damaged: once in a while, and when something is found.

        The looks at single versions don't serve for that: each save makes a new one.
        """
        asked, known = self._asked.get(path, (None, 0))
        if (
            asked is not None
            and asked.elapsed_s() < look_s
            and known == self._catalog.passed_over_count
        ):
            return
        now, known = Moment.now(), self._catalog.passed_over_count
        self._catalog.sync(path)
        self._damaged[path] = {
            key
            for damaged in self._catalog.damaged([path])
            if (record := self._catalog.version(path, damaged.version)) is not None
            and record.head is not None
            for key in _keys(record.head)
        }
        self._asked[path] = (now, known)

    def _without_damage(self, basis: Basis) -> Basis:
        damaged = set().union(*self._damaged.values())
        if not damaged:
            return basis
        sound = {
            digest: place
            for digest, place in basis.places.items()
            if pack_key(place.pack.save_id, place.pack.number) not in damaged
        }
        files = {
            digest: file
            for digest, file in basis.files.items()
            if file_key(file.save_id, file.number) not in damaged
        }
        if (len(sound), len(files)) == (len(basis.places), len(basis.files)):
            return basis
        return replace(basis, places=sound, files=files)

    def _read(self, version: Parent) -> Basis:
        opened = open_manifest(self._storage, version.run, version.version, save_id=version.save_id)
        head = opened.head
        parts = [opened.part(info.name) for info in head.parts]
        return basis_of(version, head.packs, parts, files=head.files)


def _keys(head: Head) -> list[str]:
    """Return the keys of all packs and files that a version names."""
    return [
        *(pack_key(pack.save_id, pack.number) for pack in head.packs),
        *(file_key(file.save_id, file.number) for file in head.files),
    ]
