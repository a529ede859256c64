"""Manifests and journals read past the catalog, and no listing believed."""

from __future__ import annotations

from uuid import UUID

import pytest

from ckptstore.errors import CollectionRefusedError, StorageError
from ckptstore.format.journal import RetireEntry, TagEntry
from ckptstore.format.layout import journal_key, version_key
from ckptstore.upkeep import inventory
from ckptstore.upkeep.inventory import read_journal, read_runs
from tests.catalog.places import START, tag_entry
from tests.upkeep.histories import DAY, RUN, History


def read(history, known=None, told=None):
    steps = [] if told is None else told
    return read_runs(
        history.storage,
        history.storage.now,
        known or {},
        in_place=False,
        progress=lambda *step: steps.append(step),
    )


@pytest.fixture
def history():
    return History()


def test_every_run_is_read_with_what_its_versions_name(history):
    _, first = history.save()
    _, second = history.save(first)
    file = history.file()
    history.commit(file, run="a/b")
    runs = {run.path: run for run in read(history)}
    assert {n: set(version.names) for n, version in runs[RUN].versions.items()} == {
        1: {first},
        2: {first, second},
    }
    assert runs["a/b"].versions[1].names == (file,)


def test_retirement_has_the_time_of_its_entry_in_the_storage(history):
    history.save()
    history.save()
    history.note(tag_entry("prod", 1))
    at = history.wait(3 * DAY)
    history.retire(1)
    history.wait(DAY)
    history.retire(1, 2)
    history.undelete(2)
    (run,) = read(history)
    assert run.retired() == {1: at}


def test_batches_make_no_difference(history, monkeypatch):
    monkeypatch.setattr(inventory, "BATCH", 3)
    for _ in range(7):
        history.save()
    history.retire(*range(1, 6))
    history.save(run="other")
    told = []
    small = read(history, told=told)
    assert [step for step in told if step[2] == "reading"] == [
        (done, 9, "reading") for done in (3, 6, 8, 9)
    ]
    monkeypatch.undo()
    assert small == read(history)


def test_a_run_without_versions_is_read_too(history):
    history.note(tag_entry("prod", 1), run="empty")
    (run,) = read(history)
    assert (run.path, dict(run.versions)) == ("empty", {})
    assert isinstance(run.journal[0].entry, TagEntry)


def test_what_was_created_since_the_listing_is_left_to_the_next_collection(history, monkeypatch):
    history.save()
    listed = inventory._listed

    def late(storage, progress):
        found = listed(storage, progress)
        history.wait(DAY)
        history.save()
        history.retire(1)
        return found

    now = history.storage.now
    monkeypatch.setattr(inventory, "_listed", late)
    (run,) = read_runs(history.storage, now, {}, in_place=False, progress=lambda *_: None)
    assert list(run.versions) == [1]
    assert run.journal == []


def test_an_entry_the_listing_missed_gets_its_time_from_the_storage(history, monkeypatch):
    at = history.wait(DAY)
    history.retire(1)
    history.note(tag_entry("prod", 1))
    real = type(history.storage).walk
    monkeypatch.setattr(
        type(history.storage),
        "walk",
        lambda self, folder: (
            each for each in real(self, folder) if each.key != journal_key(RUN, 1)
        ),
    )
    assert read(history)[0].retired() == {1: at}
    assert read_journal(history.storage, RUN, in_place=False)[0].written_at == at


def test_one_journal_can_be_read_alone(history):
    assert read_journal(history.storage, RUN, in_place=False) == []
    history.note(tag_entry("prod", 1))
    at = history.wait(DAY)
    history.retire(1)
    history.retire(2, run="digits/other")
    journal = read_journal(history.storage, RUN, in_place=False)
    assert [noted.number for noted in journal] == [1, 2]
    assert journal[1].written_at == at
    assert isinstance(journal[1].entry, RetireEntry)


def test_what_lies_in_a_folder_of_the_journal_is_no_entry(history):
    history.note(tag_entry("prod", 1))
    history.storage.create(f"runs/{RUN}/_journal/x/00000009.json", b"{}")
    history.storage.create(f"runs/{RUN}/_journal/x/00000001.json", b"{}")
    assert [n.number for n in read_journal(history.storage, RUN, in_place=False)] == [1]
    assert [noted.number for noted in read(history)[0].journal] == [1]


def test_a_journal_with_a_hole_is_refused(history):
    history.note(tag_entry("a", 1))
    history.note(tag_entry("b", 1))
    del history.storage.objects[journal_key(RUN, 1)]
    with pytest.raises(CollectionRefusedError, match=r"00000001\.json is missing"):
        read_journal(history.storage, RUN, in_place=False)


def test_a_large_journal_entry_is_read_whole(history):
    reasons = dict.fromkeys(range(1, 1000), "x" * 100)
    history.note(RetireEntry(reasons, START, UUID(int=1)))
    assert len(history.storage.objects[journal_key(RUN, 1)]) > inventory.START_BYTES
    assert len(read(history)[0].retired()) == 999


def test_a_storage_that_fails_says_so(history):
    history.save()
    history.storage.is_down = True
    with pytest.raises(StorageError, match="does not answer"):
        read(history)


def test_a_listing_that_holds_what_the_catalog_knows_is_taken(history):
    history.save()
    history.retire(1)
    assert len(read(history, known={RUN: (1, 1)})) == 1
    with pytest.raises(CollectionRefusedError, match=version_key(RUN, 2)):
        read(history, known={RUN: (2, 1)})
