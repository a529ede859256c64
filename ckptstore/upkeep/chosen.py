"""What is copied, from which store, into which."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from ckptstore.catalog.identity import Identity
from ckptstore.catalog.index import Catalog
from ckptstore.catalog.lookup import Lookup, intact_head
from ckptstore.catalog.stores import store_facts
from ckptstore.entry import check_live
from ckptstore.format.facts import Mode
from ckptstore.saving.run_writer import RunWriter
from ckptstore.storage.base import Storage


@dataclass(frozen=True)
class Place:
    """A store that is copied from or into."""

    storage: Storage
    catalog: Catalog
    writer: Callable[[str], RunWriter]
    """Gives a run as this process writes it."""


class Choice(NamedTuple):
    """What is to be copied of one run."""

    path: str
    versions: frozenset[int] | None
    """None for the whole run."""


class Item(NamedTuple):
    """A version that is to be in the other store."""

    path: str
    """Its run's path."""
    run: str
    """Its run as it is spelled."""
    identity: Identity

    @property
    def ref(self) -> str:
        """Its ref."""
        return f"{self.run}@{self.identity.version}"

    def age(self) -> datetime:
        """Return what to sort by: parents come before their children, whatever runs they are in."""
        return self.identity.created_at


def choose(
    source: Place,
    run: str | Sequence[str] | None,
    ref: str | int | Sequence[str | int] | None,
    given: tuple[str | None, Mode | None] = (None, None),
) -> list[Choice]:
    """Return what is to be copied.

    A run whose journal is damaged is copied all the same, with a warning: without what was recorded
    later from the damage on, a copy is what is left to go on with.

    Args:
        source: The store that is copied from.
        run: Runs or globs over runs.
        ref: Versions. With neither these nor runs it is the whole store.
        given: Monitor and mode by which ``@best`` is found; they go before the recorded ones.

    Raises:
        NotFoundError: There is no such run, version or store.
        RetiredError: A version that was named is retired.
        IntegrityError: The manifest of a version that was named is damaged.
    """
    lookup = Lookup(source.catalog, source.storage.url)
    runs = [run] if isinstance(run, str) else list(run or ())
    refs = [ref] if isinstance(ref, str | int) else list(ref or ())
    chosen: dict[str, set[int] | None] = {}
    for each in refs:
        record = lookup.by_ref(each, given=given)
        head = intact_head(record)
        check_live(head.ref, record.facts)
        versions = chosen.setdefault(record.path, set())
        if versions is not None:
            versions.add(record.version)
    names = runs if runs or refs else source.catalog.discover()
    paths = [path for each in names for path in lookup.salvageable_paths(each)]
    for path in paths:
        chosen[path] = None
    return [
        Choice(path, None if versions is None else frozenset(versions))
        for path, versions in sorted(chosen.items())
    ]


def store_id(storage: Storage) -> UUID:
    """Return the UUID of the store that is there.

    Raises:
        NotAStoreError: There is none.
        CkptStoreError: There is something that only looks like one.
    """
    return store_facts(storage).store_id


def merged(runs: Iterable[Iterator[Item]]) -> list[Item]:
    """Return the versions of several runs by age, those of each run in the order of their numbers.

    Within a run they need not be sorted by age, as clocks differ. So each counts as no older than
    those before it.
    """
    found = heapq.merge(*map(_dated, runs), key=itemgetter(0))
    return [item for _, item in found]


def _dated(items: Iterable[Item]) -> Iterator[tuple[datetime, Item]]:
    latest = datetime.min.replace(tzinfo=UTC)
    for item in items:
        latest = max(latest, item.age())
        yield latest, item


def is_same(first: Storage, second: Storage) -> bool:
    """Say whether two storages are one place."""
    if first.local_folder is not None and second.local_folder is not None:
        return Path(first.local_folder).samefile(second.local_folder)
    return first.url == second.url
