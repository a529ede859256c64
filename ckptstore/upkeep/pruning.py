"""Pruning: a run's versions are looked at, decided on, and retired with one journal entry.

Retiring deletes nothing. What was retired stays in the history, can be undeleted for half the grace
period, and is deleted by a collection after all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from uuid import UUID
from weakref import WeakKeyDictionary

from ckptstore.catalog.index import Catalog
from ckptstore.catalog.later import Child
from ckptstore.catalog.live import LiveVersion, SaveState
from ckptstore.catalog.stores import store_facts
from ckptstore.errors import ArgumentError
from ckptstore.format.facts import Facts, Mode, Settings
from ckptstore.format.journal import Entry, RetireEntry
from ckptstore.format.layout import journal_key, run_path
from ckptstore.saving.journaling import Append
from ckptstore.storage.base import Storage
from ckptstore.upkeep.clock import storage_now
from ckptstore.upkeep.keep import Keep
from ckptstore.upkeep.pruned import Pruned
from ckptstore.upkeep.retention import Candidate, Monitor, decide, rule

_never_came: WeakKeyDictionary[Catalog, set[UUID]] = WeakKeyDictionary()
"""Saves that were announced longer ago than the grace period and are no versions: they can't become
any more, as a save that comes so late takes itself back. So they are looked for once a process."""


def prune(
    catalog: Catalog,
    storage: Storage,
    run: str,
    keep: Keep | None,
    *,
    resumed: Collection[UUID] = (),
    given: tuple[str | None, Mode | None] = (None, None),
    now: datetime,
    append: Append | None,
) -> Pruned:
    """Retire what of a run is not kept: all of it with one journal entry, or none.

    It is decided against the journal as it stands when the entry is made. Whatever was tagged, or
    became a parent, before the entry got its number stays.

    Args:
        catalog: Knows what the run holds.
        storage: Where it is.
        run: The run, as it is spelled.
        keep: What to keep; None means what the run's settings say.
        resumed: The save ids of the versions of this run that this process resumed from.
        given: Monitor and mode that the caller set; they go before the recorded ones.
        now: The time from which ``within`` counts.
        append: Appends to the run's journal. None makes it a dry run, which writes nothing.

    Returns:
        What was decided of every version that was live, newest first.

    Raises:
        ArgumentError: *keep* is None, and the run's settings don't say.
        IntegrityError: A journal, or what the settings say to keep, is damaged. Nothing was
            retired; and so for the others:
        NewerFormatError: A newer ckptstore made a version, a journal entry, or the settings.
        StorageError: The storage failed.
    """
    look = _Look(catalog, storage, run, keep, resumed, given, now, is_dry=append is None)
    if append is None:
        catalog.sync(look.path)
        return look.decided(catalog.facts(look.path))
    decided: list[Pruned] = []

    def retire(facts: Facts, time: datetime, writer: UUID) -> Entry | None:
        # Asked again whenever another process was faster: the last answer is what was recorded.
        decided[:] = [look.decided(facts)]
        why = rule(decided[0].keep, decided[0].monitor)
        reasons = dict.fromkeys(sorted(decided[0].retired), why)
        return RetireEntry(reasons, time, writer) if reasons else None

    append(retire)
    return decided[0]


class _Look:
    """How the versions of one run are looked at, as often as it takes."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        catalog: Catalog,
        storage: Storage,
        run: str,
        keep: Keep | None,
        resumed: Collection[UUID],
        given: tuple[str | None, Mode | None],
        now: datetime,
        *,
        is_dry: bool,
    ) -> None:
        self.path = run_path(run)
        self._catalog = catalog
        self._storage = storage
        self._run = run
        self._keep = keep
        self._resumed = set(map(str, resumed))
        self._given = given
        self._now = now
        self._is_dry = is_dry
        self._synced: set[str] = set()
        """Children's runs that were looked at since the journal was."""

    def decided(self, facts: Facts) -> Pruned:
        """Decide on what the catalog knows; the run must be synced."""
        self._synced.clear()
        settings = facts.settings or Settings()
        monitor = Monitor(self._given[0] or settings.monitor, self._given[1] or settings.mode)
        keep = self._keep or self._recorded(settings)
        live = self._catalog.live(self.path)
        protected = {
            each.version: ["this process resumed from it"]
            for each in live
            if each.save_id in self._resumed
        }
        present = {each.version for each in live}
        for version, children in self._catalog.children(self.path).items():
            if version in present:
                protected.setdefault(version, []).extend(self._held_by(children))
        parents, before = self._parents(live)
        decisions = decide(
            [_candidate(each, parents.get(each.version)) for each in live],
            keep,
            run=self._run,
            monitor=monitor,
            recorded=Monitor(settings.monitor, settings.mode) if facts.settings else None,
            now=self._now,
            protected=protected,
            before=before,
        )
        return Pruned(self._run, keep, monitor, self._is_dry, decisions)

    def _recorded(self, settings: Settings) -> Keep:
        if settings.keep is None:
            raise ArgumentError(
                f"run {self._run!r} has no record of what to keep: say it, as in "
                "keep=Keep(last=3, best=2), or record it with the run, as in "
                f"store.run({self._run!r}, keep=Keep(last=3, best=2))"
            )
        where = f"{self._storage.url}: what the settings of run {self._run!r} say to keep"
        return Keep.from_json(settings.keep, where)

    def _parents(self, live: Sequence[LiveVersion]) -> tuple[dict[int, int], dict[int, int | None]]:
        """Return which live version each comes from, and which came right before it if not that.

        A parent is known by its save id. One that was saved into another store, or into a run that
        was deleted since, may have the same run and number. The catalog is asked where that
        matters: in a plain training, whose versions each come from the one before, nowhere.
        """
        saves = {each.version: each.save_id for each in live}
        kinds = {each.version: each.kind for each in live}
        parents = {
            each.version: each.parent[1]
            for each in live
            if each.parent is not None
            and each.parent[0] == self.path
            and each.parent[1] in saves
            and (each.parent[1] != each.version - 1 or kinds[each.parent[1]] != each.kind)
        }
        descent = self._catalog.descent(self.path, sorted(parents)) if parents else {}
        return (
            {
                version: parent
                for version, parent in parents.items()
                if descent[version].parent_save == saves[parent]
            },
            {version: known.previous for version, known in descent.items()},
        )

    def _held_by(self, children: Collection[Child]) -> Iterator[str]:
        """Yield the reasons why a version's children in other runs keep it."""
        never_came = _never_came.setdefault(self._catalog, set())
        for child in children:
            found = self._found(child, is_over=child.save_id in never_came)
            if found is not None and found.is_live:
                yield f"parent of {child.run}@{found.version}"
            elif found is None and child.save_id not in never_came:
                if self._may_still_come(child):
                    yield f"parent of a version that is being saved into {child.run}"
                else:
                    never_came.add(child.save_id)

    def _found(self, child: Child, *, is_over: bool) -> SaveState | None:
        """Return what a child became; each run is looked at once, however many it has."""
        path = run_path(child.run)
        found = self._catalog.save_state(path, child.save_id)
        if path in self._synced or (found is None and is_over):
            return found
        self._catalog.sync(path)
        self._synced.add(path)
        return self._catalog.save_state(path, child.save_id)

    def _may_still_come(self, child: Child) -> bool:
        """Say whether a child that is not there was announced less than the grace period ago."""
        try:
            announced = self._storage.written_at(journal_key(self.path, child.entry))
        except FileNotFoundError:
            return True  # the run is being moved or deleted: no time to retire anything
        if announced is None or self._clock is None:
            return True
        return self._clock - announced <= self._grace

    @cached_property
    def _clock(self) -> datetime | None:
        # A dry run writes nothing, not even the object that tells the storage's time.
        return self._now if self._is_dry else storage_now(self._storage)

    @cached_property
    def _grace(self) -> timedelta:
        return timedelta(seconds=store_facts(self._storage).grace_s)


def _candidate(version: LiveVersion, parent: int | None) -> Candidate:
    return Candidate(
        version.version,
        version.kind,
        created_at=version.created_at,
        epoch=version.epoch,
        metrics=version.metrics,
        tags=version.tags,
        parent=parent,
        intact=version.intact,
        complete=version.complete,
    )
