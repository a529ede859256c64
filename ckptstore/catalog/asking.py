"""What a catalog can be asked. Every answer is of what is indexed: sync first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from ckptstore.catalog import identity, later, live, ranking
from ckptstore.catalog.identity import Identity
from ckptstore.catalog.later import Child, Counts, TagMove
from ckptstore.catalog.live import Descent, LiveVersion, SaveState
from ckptstore.catalog.queries import Reader
from ckptstore.catalog.ranking import Damaged
from ckptstore.entry import Record
from ckptstore.format.facts import Facts, Mode, Settings, VersionFacts
from ckptstore.format.journal import Entry as JournalEntry
from ckptstore.format.journal import LogEntry

PAGE = 16

Found = TypeVar("Found")


class Asking(ABC):
    """The queries of a :class:`~ckptstore.catalog.index.Catalog`.

    They raise :class:`~ckptstore.errors.NewerFormatError` when a version that a newer ckptstore
    made could be part of the answer.
    """

    def __init__(self) -> None:
        self._found_damaged: frozenset[str] = frozenset()
        """Save ids of versions that this process found damaged."""

    @abstractmethod
    def _read(self, paths: Sequence[str], query: Callable[[Reader], Found]) -> Found:
        """Answer a query about some runs, in a transaction of its own."""

    def run_name(self, path: str) -> str | None:
        """Return a run's spelling, None if it has no intact version."""
        return self._read([path], lambda reader: reader.run_name(path))

    def run_names(self, paths: Sequence[str]) -> list[str]:
        """Return the spellings of runs, in the same order; the path of one that has none."""
        return self._read(paths, lambda reader: reader.run_names(paths))

    def settings(self, path: str) -> Settings | None:
        """Return a run's recorded settings, None if there are none."""
        return self.settings_of([path]).get(path)

    def settings_of(self, paths: Sequence[str]) -> dict[str, Settings]:
        """Return the recorded settings of those runs that have some, by path."""
        return self._read(paths, lambda reader: reader.settings(paths))

    def facts(self, path: str) -> Facts:
        """Return what a run's journal adds up to: its settings and tags.

        What it says of a version is told by :meth:`version_facts`.
        """
        return self._read([path], lambda reader: reader.facts(path))

    def version_facts(self, path: str, number: int) -> VersionFacts | None:
        """Return what was recorded later about a version, None if there is no such version."""
        return self._read([path], lambda reader: reader.about(path, number))

    def next_numbers(self, path: str) -> tuple[int, int]:
        """Return the next version and the next journal entry of a run."""
        return self._read([path], lambda reader: reader.next_numbers(path))

    def version(self, path: str, number: int) -> Record | None:
        """Return a version, retired or damaged or not."""
        return self._read([path], lambda reader: reader.version(path, number))

    def tagged(self, path: str, tag: str) -> Record | None:
        """Return the version that a tag points at, damaged or not."""
        return self._read([path], lambda reader: reader.tagged(path, tag))

    def latest(self, path: str, kind: str | None) -> Record | None:
        """Return the live version of that kind (None: any) with the highest number.

        Versions whose data are known to be damaged are passed over. One whose manifest can't be
        read is not, and counts as any kind, since nobody knows what it was.
        """
        return next(self.newest_first(path, kind), None)

    def newest_first(self, path: str, kind: str | None) -> Iterator[Record]:
        """Yield versions as :meth:`latest` would name them if the newer ones were not there."""
        yield from self._paged(path, kind, lambda: self._found_damaged)

    def newest_with_damaged(self, path: str, kind: str | None) -> Iterator[Record]:
        """Yield live versions, newest first; those that are known to be damaged have no head."""
        for record in self._paged(path, kind, lambda: None):
            damage = record.facts.damage
            if (
                damage is None
                and record.head is not None
                and self.is_passed_over(record.head.save_id)
            ):
                damage = "found damaged before, by this process"
            yield record if damage is None else replace(record, head=None, damage=damage)

    def best(
        self, paths: Sequence[str], metric: str, mode: Mode, kind: str | None = "checkpoint"
    ) -> Record | None:
        """Return the live version with the best value of a metric, None if none has a usable one.

        NaN and damaged versions are passed over. Ties go to the earlier version: within a run the
        lower number, between runs the earlier ``created_at``, then the path.
        """
        return next(self.best_first(paths, metric, mode, kind), None)

    def best_first(
        self, paths: Sequence[str], metric: str, mode: Mode, kind: str | None = "checkpoint"
    ) -> Iterator[Record]:
        """Yield versions as :meth:`best` would name them if the better ones were not there."""
        passed: list[str] = []

        def find(reader: Reader) -> Record | None:
            without = [*passed, *self._found_damaged]
            best = ranking.best(reader, paths, metric, mode, kind=kind, without=without)
            return None if best is None else reader.version(best.path, best.version)

        while (found := self._read(paths, find)) is not None:
            yield found
            if found.head is None:
                return
            passed.append(str(found.head.save_id))

    def metric_names(self, paths: Sequence[str], kind: str | None) -> list[str]:
        """Return the names of all metrics of these runs' live versions, sorted."""
        return self._read(paths, lambda reader: ranking.metric_names(reader, paths, kind))

    def damaged(self, paths: Sequence[str]) -> list[Damaged]:
        """Return the live versions that are known to be damaged, ascending by path and number.

        Their manifests can't be read, a check found it, or this process did.
        """
        return self._read(paths, lambda reader: ranking.damaged(reader, paths, self._found_damaged))

    def pass_over(self, save_id: UUID) -> None:
        """Leave a version that was found damaged out of :meth:`best` and :meth:`latest`.

        In this process only; it is recorded for all by a
        :class:`~ckptstore.format.journal.DamageEntry`.
        """
        self._found_damaged |= {str(save_id)}

    @property
    def passed_over_count(self) -> int:
        """How many versions this process found damaged."""
        return len(self._found_damaged)

    def is_passed_over(self, save_id: UUID) -> bool:
        """Say whether this process found a version damaged."""
        return str(save_id) in self._found_damaged

    def history(
        self, paths: Sequence[str], *, kind: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """Return versions ascending by path and number, retired and damaged ones too.

        With *limit* only the newest: by number in one run, by ``created_at`` in several.
        """
        return self._read(paths, lambda reader: reader.history(paths, kind=kind, limit=limit))

    def live(self, path: str) -> list[LiveVersion]:
        """Return what retention decides on: a run's live versions, ascending.

        Those whose manifests can't be read are left out.
        """

        def find(reader: Reader) -> list[LiveVersion]:
            reader.refuse_newer([path])
            return live.live(reader.connection, reader.store, path, self._found_damaged)

        return self._read([path], find)

    def descent(self, path: str, versions: Sequence[int]) -> dict[int, Descent]:
        """Return what some of a run's versions come from and come after, by their numbers."""
        return self._read(
            [path], lambda reader: live.descent(reader.connection, reader.store, path, versions)
        )

    def save_state(self, path: str, save_id: UUID) -> SaveState | None:
        """Return which version of a run a save became, None if none that is indexed."""
        return self._read(
            [path],
            lambda reader: live.save_state(reader.connection, reader.store, path, str(save_id)),
        )

    def children(self, path: str) -> dict[int, list[Child]]:
        """Return the versions of other runs that come from this run's, by its versions."""
        return self._read(
            [path], lambda reader: later.children(reader.connection, reader.store, path)
        )

    def tag_history(self, path: str, tag: str | None = None) -> list[TagMove]:
        """Return how a run's tags (or one of them) moved, in the journal's order."""
        return self._read(
            [path], lambda reader: later.tag_history(reader.connection, reader.store, path, tag)
        )

    def logged(
        self, paths: Sequence[str], *, limit: int | None = None
    ) -> list[tuple[str, LogEntry]]:
        """Return what was logged without weights, with its run; by run, then as it was recorded.

        With *limit* only the newest: by number in one run, by time in several.
        """

        def find(reader: Reader) -> list[tuple[str, LogEntry]]:
            found = [
                (path, entry)
                for path in paths
                for entry in later.logged(reader.connection, reader.store, path, limit)
            ]
            if limit is None or len(found) <= limit:
                return found
            by_time = sorted(range(len(found)), key=lambda at: found[at][1].time)
            return [found[at] for at in sorted(by_time[-limit:])]

        return self._read(paths, find)

    def journal(
        self, path: str, kinds: Collection[str], after: int = 0
    ) -> list[tuple[int, JournalEntry]]:
        """Return a run's journal entries of these kinds above a number, with their numbers."""
        return self._read(
            [path],
            lambda reader: later.entries(reader.connection, reader.store, path, kinds, after),
        )

    def identities(self, path: str, after: int = 0) -> list[Identity]:
        """Return which save each version above a number is; retired ones too, ascending."""

        def find(reader: Reader) -> list[Identity]:
            reader.refuse_newer([path])
            return identity.identities(reader.connection, reader.store, path, after)

        return self._read([path], find)

    def indexed_counts(self) -> dict[str, Counts]:
        """Return how much is indexed of each run of this store, by path."""
        return self._read([], lambda reader: later.indexed_counts(reader.connection, reader.store))

    def _paged(
        self, path: str, kind: str | None, without: Callable[[], Collection[str] | None]
    ) -> Iterator[Record]:
        before, size = 2**63 - 1, 1
        while page := self._page(path, kind, before, size, without()):
            yield from page
            before, size = page[-1].version, PAGE

    def _page(
        self,
        path: str,
        kind: str | None,
        before: int,
        size: int,
        without: Collection[str] | None,
    ) -> list[Record]:
        return self._read(
            [path],
            lambda reader: reader.newest(path, kind, before=before, limit=size, without=without),
        )
