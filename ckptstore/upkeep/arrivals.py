"""What is in a run already that is copied into, by the save that it goes back to."""

from __future__ import annotations

from uuid import UUID

from ckptstore.catalog.identity import Identity
from ckptstore.catalog.index import Catalog
from ckptstore.errors import CkptStoreError, NotAStoreError
from ckptstore.format.facts import LATE
from ckptstore.format.layout import run_path
from ckptstore.format.manifest import Head


class ThereMeanwhileError(CkptStoreError):
    """Another process brought the version while this one was copying it.

    Attributes:
        there: The run and the number that it has there.
    """

    def __init__(self, run: str, version: int) -> None:
        super().__init__(f"{run}@{version} is it")
        self.there = (run, version)


class Arrivals:
    """The versions of one run of the store that is copied into.

    A retired one counts: what was retired there stays so. One that was found damaged, or that
    retired itself because it came too late, does not: it is copied again.

    Args:
        catalog: The store's.
        run: The run.
    """

    def __init__(self, catalog: Catalog, run: str) -> None:
        self.run = run
        self._catalog = catalog
        self._path = run_path(run)
        self._found: dict[UUID, Identity] = {}
        self._seen = 0
        self._look()

    def get(self, origin: UUID) -> Identity | None:
        """Return the version that goes back to that save, None if there is none."""
        return self._found.get(origin)

    def check(self, number: int, origin: UUID) -> None:
        """Look whether a version may get this number: nobody brought it under a smaller one.

        Numbers are given in order and once, so this is decided for good when the number is taken.

        Raises:
            ThereMeanwhileError: Somebody did.
        """
        if number - 1 > self._seen:
            self._look()
        if origin in self._found and self._found[origin].version < number:
            raise ThereMeanwhileError(self.run, self._found[origin].version)

    def add(self, head: Head) -> None:
        """Take note of a version that was just committed here."""
        self._seen = max(self._seen, head.version)
        size_bytes = head.size_bytes
        self._put(
            Identity(
                head.version,
                head.kind,
                head.save_id,
                head.created_at,
                size_bytes,
                head.copied_from,
                retired=None,
                damage=None,
            )
        )

    def _look(self) -> None:
        try:
            self._catalog.sync(self._path)
        except NotAStoreError:
            return  # the first copy makes it
        for identity in self._catalog.identities(self._path, self._seen):
            self._seen = identity.version
            self._put(identity)
        self._seen = self._catalog.next_numbers(self._path)[0] - 1

    def _put(self, identity: Identity) -> None:
        is_late = identity.retired is not None and identity.retired.startswith(LATE)
        if identity.damage is None and not is_late:
            self._found[identity.origin] = identity
