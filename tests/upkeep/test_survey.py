from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ckptstore.errors import StorageError
from ckptstore.format.journal import (
    ChildEntry,
    LogEntry,
    NoteEntry,
    Place,
    UndeleteEntry,
    encode_entry,
)
from ckptstore.format.layout import journal_key, version_key
from ckptstore.manifest import FIRST_READ_BYTES, OpenManifest
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep.survey import BATCH, Surveyor
from tests.catalog.places import commit, make_head, note, tag_entry
from tests.faults import Failing

SIGNED = (datetime(2026, 1, 1, tzinfo=UTC), UUID(int=5))


@pytest.fixture
def storage(tmp_path):
    storage = LocalStorage(tmp_path)
    for number in (1, 2, 3):
        commit(storage, make_head("Digits", number))
    return storage


def surveyed(storage, only=None, *, in_place=False):
    """What a run is found to be, and what is found about it."""
    found = []
    surveyor = Surveyor(storage, in_place=in_place, note=found.append)
    return surveyor.run("digits", only), found


def test_a_whole_run_is_read_without_a_finding(storage):
    note(storage, "digits", 1, tag_entry("prod", 2))

    survey, found = surveyed(storage)

    assert found == []
    assert (survey.name, survey.last, sorted(survey.versions)) == ("Digits", 3, [1, 2, 3])
    assert survey.versions[2].ref == "Digits@2"
    assert survey.facts.tags == {"prod": 2}
    assert surveyed(storage, only=2)[0].versions.keys() == {2}


@pytest.mark.parametrize("number", [1, 2])
def test_a_missing_version_is_a_hole(storage, tmp_path, number):
    (tmp_path / version_key("digits", number)).unlink()

    survey, (hole,) = surveyed(storage)

    assert (hole.kind, hole.severity, hole.key) == ("hole", "damage", version_key("digits", number))
    assert "Bring that file back from a copy" in hole.message
    assert survey.last == 3


def test_a_missing_journal_entry_is_a_hole(storage):
    note(storage, "digits", 3, tag_entry("prod", 1))

    assert [each.key for each in surveyed(storage)[1]] == [
        journal_key("digits", 1),
        journal_key("digits", 2),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        tag_entry("prod", 5),
        LogEntry(5, None, None, {"acc": 1.0}, *SIGNED),
        NoteEntry(5, "good", *SIGNED),
        UndeleteEntry((1, 5), *SIGNED),
        ChildEntry(5, "other", UUID(int=9), *SIGNED),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_an_entry_about_a_version_that_is_not_there_tells_of_its_loss(storage, entry):
    note(storage, "digits", 1, entry)
    note(storage, "digits", 2, replace(tag_entry("other", 5), writer=UUID(int=6)))

    _, (lost,) = surveyed(storage)

    assert (lost.kind, lost.severity, lost.ref) == ("hole", "damage", "Digits@5")
    assert "journal entry 1 is about version 5, and the last one there is 3" in lost.message


def test_an_entry_about_an_epoch_without_weights_is_about_no_version(storage):
    note(storage, "digits", 1, LogEntry(None, 9, None, {"train_loss": 1.0}, *SIGNED))
    note(storage, "digits", 2, tag_entry("prod", None))

    assert surveyed(storage)[1] == []


def test_a_listing_that_lacks_what_is_there_makes_no_hole(storage):
    for number in (1, 2):
        note(storage, "digits", number, replace(tag_entry("a", number), writer=UUID(int=number)))

    class Short(LocalStorage):
        def list_folder(self, key):
            listing = super().list_folder(key)
            return listing._replace(
                files=tuple(each for each in listing.files if "0001" not in each)
            )

    survey, found = surveyed(Short(storage.local_folder))

    assert found == []
    assert sorted(survey.versions) == [1, 2, 3]
    assert sorted(survey.journal) == [1, 2]


def test_a_stray_number_is_one_finding(storage, tmp_path):
    (tmp_path / version_key("digits", 10**17)).write_text("stray")

    _, found = surveyed(storage)

    (hole,) = [each for each in found if each.kind == "hole"]
    assert "is there, and more than 1000 before it are not" in hole.message


def test_an_entry_of_another_place_is_damage(storage):
    entry = encode_entry(tag_entry("prod", 1), Place("other", 1))
    storage.create(journal_key("digits", 1), entry)

    (damage,) = surveyed(storage)[1]

    assert (damage.kind, damage.severity) == ("journal", "damage")
    assert "it is entry 1 of the journal of run 'other'" in damage.message


def test_an_old_entry_that_lies_there_twice_is_damage(storage):
    for number in (1, 2):
        note(storage, "digits", number, tag_entry("prod", 1))

    (damage,) = surveyed(storage)[1]

    assert (damage.kind, damage.severity) == ("journal", "damage")
    assert damage.key == journal_key("digits", 2)
    assert "is the same entry as 1" in damage.message


def test_what_still_works_beside_a_hole_is_said(storage, tmp_path):
    note(storage, "digits", 2, tag_entry("prod", 1))
    (tmp_path / version_key("digits", 2)).unlink()

    entry, version = surveyed(storage)[1]

    assert "A training resumes and saves all the same" in entry.message
    assert "no process begins to save into this run" in version.message


def test_a_damaged_journal_entry_is_said_and_the_others_count(storage, tmp_path):
    for number, tag in enumerate(("a", "b", "c"), 1):
        note(storage, "digits", number, replace(tag_entry(tag, number), writer=UUID(int=number)))
    path = tmp_path / journal_key("digits", 2)
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"z"'))

    survey, (damage,) = surveyed(storage)

    assert (damage.kind, damage.severity, damage.ref) == ("journal", "damage", "digits")
    assert "What it said is unknown" in damage.message
    assert survey.facts.tags == {"a": 1, "c": 3}


def test_a_journal_entry_of_any_length_is_read_whole(storage):
    entry = NoteEntry(1, "x" * FIRST_READ_BYTES, *SIGNED)
    storage.create(journal_key("digits", 1), encode_entry(entry))

    survey, found = surveyed(storage)

    assert found == []
    assert survey.of(1).note == entry.text


def test_a_head_of_any_length_is_read_whole(storage):
    commit(storage, make_head("Digits", 4, config={"text": "x" * 10 * FIRST_READ_BYTES}))

    survey, found = surveyed(storage)

    assert found == []
    assert 4 in survey.versions


def test_a_head_without_its_digest_is_damage_or_void(storage, tmp_path):
    path = tmp_path / version_key("digits", 3)
    path.write_bytes(path.read_bytes()[:100])

    survey, (damage,) = surveyed(storage)
    assert (damage.kind, damage.severity) == ("manifest", "damage")
    assert survey.unreadable.keys() == {3}

    survey, (void,) = surveyed(storage, in_place=True)
    assert (void.kind, void.severity) == ("void", "note")
    assert survey.last == 3
    assert not survey.unreadable


def test_manifests_are_asked_for_some_at_a_time(storage):
    for number in range(4, 2 * BATCH + 2):
        commit(storage, make_head("Digits", number))
    counted = Failing(storage)

    opened = list(
        Surveyor(counted, in_place=False, note=None).opened("digits", range(1, 2 * BATCH + 2))
    )

    assert [number for number, _ in opened] == list(range(1, 2 * BATCH + 2))
    assert all(isinstance(each, OpenManifest) for _, each in opened)
    assert len(counted.done) == 3


def test_a_manifest_on_a_bad_sector_is_damage_and_the_others_are_read(storage):
    bad = version_key("digits", 2)

    class Failed(Failing):
        def read_many(self, keys, length):
            if bad in keys:
                error = StorageError("the device failed")
                error.errno = 5
                raise error
            return super().read_many(keys, length)

    survey, (damage,) = surveyed(Failed(storage))

    assert (damage.kind, damage.ref) == ("manifest", "Digits@2")
    assert "can't be read: the device failed" in damage.message
    assert sorted(survey.versions) == [1, 3]
