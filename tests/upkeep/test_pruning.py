from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from ckptstore.catalog.index import Catalog
from ckptstore.errors import (
    ArgumentError,
    CkptStoreError,
    IntegrityError,
    NewerFormatError,
    NotAStoreError,
    StorageError,
)
from ckptstore.format.facts import Settings
from ckptstore.format.journal import (
    ChildEntry,
    DamageEntry,
    LogEntry,
    RetireEntry,
    SettingsEntry,
    UndeleteEntry,
    decode_entry,
)
from ckptstore.format.layout import STORE_KEY, journal_key, version_key
from ckptstore.format.manifest import Parent
from ckptstore.saving.journaling import append, set_tag
from ckptstore.upkeep.keep import Keep
from ckptstore.upkeep.pruning import prune
from tests.catalog.places import (
    START,
    DictStorage,
    commit,
    found_store,
    make_head,
    newer,
    note,
    settings_entry,
    tag_entry,
)

NOW = START + timedelta(days=3)
WRITER = UUID(int=9)
LAST = Keep(last=1)


class Place:
    """A store with a run ``digits``, its catalog, and the storage's time."""

    def __init__(self, *losses: float) -> None:
        self.storage = DictStorage()
        found_store(self.storage)
        self.catalog = Catalog("sqlite://", self.storage)
        for number, loss in enumerate(losses, 1):
            self.commit(number, metrics={"val_loss": loss})

    def commit(self, number: int, run: str = "digits", **facts: Any) -> None:
        commit(self.storage, make_head(run, number, **facts))

    def note(self, entry: Any, run: str = "digits") -> None:
        number = 1
        while journal_key(run, number) in self.storage.objects:
            number += 1
        note(self.storage, run, number, entry)

    def journal(self, run: str = "digits") -> list[Any]:
        prefix = f"runs/{run}/_journal/"
        return [
            decode_entry(data, key)
            for key, data in sorted(self.storage.objects.items())
            if key.startswith(prefix)
        ]

    def prune(self, keep: Keep | None = LAST, *, dry_run: bool = False, **options: Any) -> Any:
        does = partial(append, self.storage, self.catalog, "digits")
        return prune(
            self.catalog,
            self.storage,
            "digits",
            keep,
            now=NOW,
            append=None if dry_run else does,
            **options,
        )

    def reasons(self, number: int, keep: Keep = LAST) -> tuple[str, ...]:
        decisions = self.prune(keep, dry_run=True).decisions
        return next(each.reasons for each in decisions if each.candidate.version == number)


@pytest.fixture
def place():
    found = Place(0.5, 0.1, 0.4, 0.3, 0.2)
    yield found
    found.catalog.close()


def test_everything_is_retired_with_one_entry_that_says_why(place):
    pruned = place.prune(Keep(last=2))
    assert pruned.retired == [3, 1]
    assert pruned.kept == [5, 4, 2]
    assert not pruned.dry_run
    (entry,) = place.journal()
    assert entry.reasons == {1: "the policy keeps the last 2", 3: "the policy keeps the last 2"}
    assert [each.version for each in place.catalog.live("digits")] == [2, 4, 5]


def test_a_dry_run_writes_nothing_and_says_the_same(place):
    before = dict(place.storage.objects)
    dry = place.prune(dry_run=True)
    assert place.storage.objects == before
    assert dry.dry_run
    assert dry.decisions == place.prune().decisions


def test_pruning_again_adds_no_entry(place):
    place.prune()
    assert place.prune().retired == []
    assert len(place.journal()) == 1


def test_what_was_undeleted_is_decided_on_again(place):
    place.prune()
    place.note(UndeleteEntry((3,), START, WRITER))
    assert place.prune().retired == [3]


def test_a_damaged_version_is_not_the_newest_intact_one(place):
    place.note(DamageEntry(5, "a pack is gone", START, WRITER))
    assert place.reasons(4, Keep(best=1)) == ("newest intact checkpoint",)


def test_an_unreadable_manifest_is_left_alone(place):
    place.storage.create(version_key("digits", 6), b"torn\n")
    pruned = place.prune()
    assert 6 not in [*pruned.kept, *pruned.retired]
    assert "newest intact checkpoint" in next(
        each.reasons for each in pruned.decisions if each.candidate.version == 5
    )


def test_tags_count(place):
    place.note(tag_entry("prod", 1))
    assert place.reasons(1) == ("tag prod",)


def test_metrics_that_came_later_count(place):
    place.note(LogEntry(3, None, None, {"val_loss": 0.01}, START, WRITER))
    assert place.prune().kept == [5, 3]


def test_what_this_process_resumed_from_stays(place):
    pruned = place.prune(resumed=[UUID(int=1)])
    assert pruned.kept == [5, 2, 1]
    assert pruned.decisions[-1].reasons == ("this process resumed from it",)


def test_a_version_of_that_number_that_was_saved_since_is_another(place):
    """The folder was deleted and made again; what was resumed from is gone with the old one."""
    assert place.prune(resumed=[UUID(int=71)]).kept == [5, 2]


def test_a_resumed_version_that_is_retired_already_changes_nothing(place):
    place.prune()
    assert place.prune(resumed=[UUID(int=1)]).kept == [5, 2]


def test_the_recorded_monitor_says_what_is_best(place):
    place.note(settings_entry("val_loss", "max"))
    assert place.prune().kept == [5, 1]


def test_a_monitor_that_was_given_goes_before_the_recorded_one(place):
    place.note(settings_entry("accuracy", "max"))
    assert place.prune(given=("val_loss", "max")).kept == [5, 1]


def test_the_best_by_the_recorded_monitor_stays_whatever_was_given(place):
    place.note(settings_entry("val_loss", "min"))
    assert place.prune(Keep(best=2), given=("val_loss", "max")).kept == [5, 3, 2, 1]


def test_where_no_monitor_is_recorded_the_given_one_is_the_runs(place):
    assert place.prune(given=("val_loss", "max")).kept == [5, 1]


def test_the_parent_in_the_same_run_counts(place):
    place.commit(6, kind="package", metrics={}, parent=Parent("Digits", 1, UUID(int=1)))
    assert place.reasons(1) == ("parent of digits@6",)


def test_a_parent_of_the_same_number_in_another_run_is_another_version(place):
    place.commit(6, kind="package", metrics={}, parent=Parent("base", 1, UUID(int=1)))
    assert place.reasons(1) == ()


def test_a_parent_of_another_store_protects_nobody_of_its_number(place):
    """A package made here of the checkpoint of another store, whose run has the same name."""
    place.commit(6, kind="package", metrics={}, parent=Parent("digits", 1, UUID(int=71)))
    assert place.reasons(1) == ()


def test_pruning_again_keeps_what_a_training_went_back_to(place):
    """Although by then it is the live version right before its child."""
    place.commit(6, parent=Parent("digits", 3, UUID(int=3)), metrics={"val_loss": 0.05})
    assert place.prune().kept == [6, 3]
    assert place.prune().kept == [6, 3]


def test_a_training_whose_checkpoints_are_packaged_keeps_no_more_of_them():
    place = Place()
    place.commit(1, metrics={})
    place.commit(2, kind="package", metrics={}, parent=Parent("digits", 1, UUID(int=1)))
    for number in (3, 5, 7):
        came_from = Parent("digits", number - 2, UUID(int=number - 2))
        place.commit(number, metrics={}, parent=came_from)
        made_of = Parent("digits", number, UUID(int=number))
        place.commit(number + 1, kind="package", metrics={}, parent=made_of)
    assert place.prune(Keep(last=2)).kept == [8, 7, 6, 5]
    place.catalog.close()


# ------------------------------------------------------------ what to keep


def record(place: Place, keep: Any) -> None:
    place.note(SettingsEntry(Settings("val_loss", "min", None, keep), START, WRITER))


def test_the_recorded_policy_is_used(place):
    record(place, Keep(last=3).to_json())
    pruned = place.prune(None)
    assert pruned.keep == Keep(last=3)
    assert pruned.kept == [5, 4, 3, 2]


def test_what_is_said_goes_before_what_is_recorded(place):
    record(place, Keep(last=3).to_json())
    assert place.prune(LAST).kept == [5, 2]


def test_without_a_policy_nothing_is_retired(place):
    with pytest.raises(ArgumentError, match=r"'digits' has no record .*keep=Keep\(last=3"):
        place.prune(None)
    assert place.journal() == []


@pytest.mark.parametrize(
    ("keep", "error"),
    [({"last": 1, "newest": 2}, NewerFormatError), ({"last": "1"}, IntegrityError)],
)
def test_with_a_policy_that_is_not_understood_nothing_is_retired(place, keep, error):
    record(place, keep)
    with pytest.raises(error, match="bucket://place: what the settings of run 'digits' say to"):
        place.prune(None)
    assert len(place.journal()) == 1


# ------------------------------------------------------------ children in other runs


def announce(place: Place, version: int, save: int, run: str = "fork") -> None:
    place.note(ChildEntry(version, run, UUID(int=save), START, WRITER))


def test_a_live_child_in_another_run_keeps_its_parent(place):
    announce(place, 1, 71)
    place.commit(1, "fork", save_id=UUID(int=71))
    place.storage.now += timedelta(days=100)
    assert place.reasons(1) == ("parent of fork@1",)
    assert place.prune().kept == [5, 2, 1]


def test_a_retired_child_does_not(place):
    announce(place, 1, 71)
    place.commit(1, "fork", save_id=UUID(int=71))
    place.note(RetireEntry({1: "old"}, START, WRITER), "fork")
    assert place.prune().kept == [5, 2]


def test_a_child_is_known_by_its_save_and_not_by_its_number(place):
    announce(place, 1, 71)
    place.commit(1, "fork", save_id=UUID(int=99))
    place.storage.now += timedelta(days=8)
    assert place.prune().kept == [5, 2]


def test_a_child_that_may_still_come_keeps_its_parent_for_the_grace_period(place):
    announce(place, 1, 71)
    place.storage.now += timedelta(days=7)
    assert place.prune().kept == [5, 2, 1]
    place.storage.now += timedelta(microseconds=1)
    assert place.prune().kept == [5, 2]


def test_a_child_that_came_since_its_run_was_indexed_is_found(place):
    announce(place, 1, 71)
    place.commit(1, "fork", save_id=UUID(int=70))
    assert place.catalog.discover() == ["digits", "fork"]
    place.commit(2, "fork", save_id=UUID(int=71))
    assert place.reasons(1) == ("parent of fork@2",)


def test_a_dry_run_makes_no_object_to_tell_the_time(place, monkeypatch):
    announce(place, 1, 71)
    monkeypatch.setattr(place.storage, "create", None)
    assert place.reasons(1) == ("parent of a version that is being saved into fork",)


def test_the_clock_of_who_announced_a_child_does_not_count(place):
    early = ChildEntry(1, "fork", UUID(int=71), START - timedelta(days=400), WRITER)
    place.note(early)
    assert "being saved into fork" in place.prune().decisions[-1].reasons[0]


def test_storage_that_tells_no_time_keeps_the_parent(place):
    announce(place, 1, 71)
    place.storage.written.clear()
    place.storage.now += timedelta(days=400)
    assert place.prune().kept == [5, 2, 1]


def test_of_several_children_each_is_a_reason(place):
    for number, save in enumerate((71, 72), 1):
        announce(place, 1, save)
        place.commit(number, "fork", save_id=UUID(int=save))
    assert place.reasons(1) == ("parent of fork@1", "parent of fork@2")


def test_a_child_of_a_version_that_is_retired_already_costs_no_request(place):
    place.prune()
    announce(place, 1, 71)
    place.storage.requests.clear()
    assert place.prune().retired == []
    assert not [key for key in place.storage.requests if key.startswith("runs/fork/")]


def test_where_a_childs_run_cannot_be_read_nothing_is_retired(place):
    announce(place, 1, 71)
    place.commit(1, "fork", save_id=UUID(int=71))
    place.storage.create(journal_key("fork", 1), b"damaged\n")
    with pytest.raises(IntegrityError):
        place.prune()
    assert len(place.journal()) == 1


def costs(place: Place) -> list[str]:
    """Prune, and return what that asked the storage for."""
    place.storage.requests.clear()
    place.prune()
    return list(place.storage.requests)


def test_children_that_never_came_cost_nothing_once_they_were_looked_for(place):
    place.prune(Keep(last=1, best=2))
    before = [key for key in costs(place) if "/_journal/" not in key]
    for save in range(70, 80):
        announce(place, 2, save)
    place.storage.now += timedelta(days=8)
    first = costs(place)
    assert first.count(version_key("fork", 1)) <= 2  # one look
    assert sum(key.startswith("clock/") for key in first) == 3
    assert first.count(STORE_KEY) == 1
    assert [key for key in costs(place) if "/_journal/" not in key] == before


def test_children_that_came_cost_one_look_at_their_run(place):
    for number in range(1, 11):
        announce(place, 1, 70 + number)
        place.commit(number, "fork", save_id=UUID(int=70 + number))
    place.prune()
    assert costs(place).count(version_key("fork", 11)) == 1


def test_a_child_that_never_came_is_told_from_one_that_did(place):
    announce(place, 1, 71)
    announce(place, 3, 72)
    place.commit(1, "fork", save_id=UUID(int=72))
    place.storage.now += timedelta(days=8)
    for _ in range(2):
        assert place.prune(Keep(last=1)).kept == [5, 3, 2]


def test_an_announcement_that_is_gone_keeps_the_parent(place, monkeypatch):
    """The run is being moved or deleted just now; no bare FileNotFoundError leaves a save."""
    announce(place, 1, 71)
    place.storage.now += timedelta(days=400)

    def gone(key: str) -> None:
        raise FileNotFoundError(key)

    monkeypatch.setattr(place.storage, "written_at", gone)
    assert place.prune().kept == [5, 2, 1]


def test_a_store_that_is_gone_says_so(place, monkeypatch):
    announce(place, 1, 71)
    place.storage.now += timedelta(days=400)
    read = place.storage.read

    def without(key: str) -> bytes:
        if key == STORE_KEY:
            raise FileNotFoundError(key)
        return read(key)

    monkeypatch.setattr(place.storage, "read", without)
    with pytest.raises(CkptStoreError, match=STORE_KEY):
        place.prune()


# ------------------------------------------------------------ others at the same time


def test_what_is_tagged_before_the_entry_gets_its_number_stays(place, monkeypatch):
    create, tried = place.storage.create, []

    def late(key: str, data: bytes) -> None:
        if not tried:
            tried.append(key)
            create(key, b"")  # the number is taken: by a tag, as is found when it is read
            place.storage.objects.pop(key)
            note(place.storage, "digits", 1, tag_entry("prod", 1))
        create(key, data)

    monkeypatch.setattr(place.storage, "create", late)
    pruned = place.prune()
    assert pruned.kept == [5, 2, 1]
    assert place.journal()[1].reasons.keys() == {3, 4}


def test_what_is_tagged_and_indexed_while_it_is_decided_stays(place, monkeypatch):
    """Two processes with one catalog: the other's entry is indexed between look and number."""
    live, looked = place.catalog.live, []

    def slowly(path: str) -> Any:
        found = live(path)
        if not looked:
            looked.append(path)
            append(place.storage, place.catalog, path, set_tag("prod", 1))
        return found

    monkeypatch.setattr(place.catalog, "live", slowly)
    pruned = place.prune()
    assert pruned.kept == [5, 2, 1]
    assert place.journal()[1].reasons.keys() == {3, 4}


def test_two_at_once_retire_each_version_once(place, monkeypatch):
    live, looked = place.catalog.live, []

    def slowly(path: str) -> Any:
        found = live(path)
        if not looked:
            looked.append(path)
            place.prune(Keep(last=2))
        return found

    monkeypatch.setattr(place.catalog, "live", slowly)
    assert place.prune().retired == [4]
    assert [entry.reasons.keys() for entry in place.journal()] == [{1, 3}, {4}]


# ------------------------------------------------------------ faults


def test_what_a_newer_ckptstore_made_stops_pruning(place):
    place.storage.create(version_key("digits", 6), newer(6))
    with pytest.raises(NewerFormatError):
        place.prune()
    assert place.journal() == []


def test_storage_that_fails_stops_pruning(place):
    place.storage.is_down = True
    with pytest.raises(StorageError):
        place.prune()
    place.storage.is_down = False
    assert place.journal() == []


def test_where_there_is_no_store_nothing_is_made():
    place = Place()
    place.storage.objects.clear()
    with pytest.raises(NotAStoreError):
        place.prune()
    assert place.storage.objects == {}


def test_a_run_without_versions_has_nothing_to_prune():
    place = Place()
    assert place.prune().decisions == []
    assert place.journal() == []
