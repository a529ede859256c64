"""The journal: one order of later facts, whoever writes them at once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from ckptstore.catalog.index import Catalog
from ckptstore.errors import OutcomeUnknownError, SecondWriterError, StorageError
from ckptstore.format.facts import Facts, Settings
from ckptstore.format.journal import SettingsEntry, TagEntry, decode_entry
from ckptstore.format.layout import journal_key
from ckptstore.saving import journaling
from ckptstore.saving.founding import found
from ckptstore.saving.journaling import append, set_settings, set_tag
from ckptstore.saving.settings import GivenSettings
from ckptstore.storage.local import LocalStorage
from tests.faults import Failing

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def local(tmp_path):
    storage = LocalStorage(tmp_path)
    found(storage, single_writer=False)
    return storage


def catalog(storage):
    return Catalog("sqlite://", storage)


def facts(storage, path="a"):
    index = catalog(storage)
    index.sync(path)
    return index.facts(path)


def test_entries_are_numbered_from_one(local):
    index = catalog(local)
    for version in (1, 2):
        entry = append(local, index, "a", set_tag("prod", version))
        assert decode_entry(local.read(journal_key("a", version)), "x") == entry
    assert facts(local).tags == {"prod": 2}


def test_what_stands_there_already_is_not_written_again(local):
    index = catalog(local)
    assert append(local, index, "a", set_tag("prod", 1)) is not None
    assert append(local, index, "a", set_tag("prod", 1)) is None
    assert append(local, index, "a", set_tag("other", None)) is None
    assert local.list_folder("runs/a/_journal").files == ("00000001.json",)


def test_whoever_loses_the_number_decides_again_on_what_the_winner_wrote(local):
    slow = catalog(local)
    seen = []

    def decide(known, time, writer):
        seen.append(dict(known.tags))
        if len(seen) == 1:
            append(local, catalog(local), "a", set_tag("prod", 7))
        return TagEntry("prod", known.tags.get("prod", 0) + 1, time, writer)

    append(local, slow, "a", decide)
    assert seen == [{}, {"prod": 7}]
    assert facts(local).tags == {"prod": 8}


def test_two_who_set_different_settings_both_have_their_say(local):
    # The second was decided before the first was there.
    mine = GivenSettings(config={"lr": 0.1})
    decided = []

    def decide(known, time, writer):
        if not decided:
            decided.append(1)
            theirs = GivenSettings("acc", "max")
            append(local, catalog(local), "a", set_settings(theirs.over))
        return set_settings(mine.over)(known, time, writer)

    append(local, catalog(local), "a", decide)
    assert facts(local).settings == Settings("acc", "max", {"lr": 0.1})


def test_decisions_are_pure():
    writer = uuid4()
    given = GivenSettings("acc", "max")
    entry = set_settings(given.over)(Facts(), NOW, writer)
    assert entry == SettingsEntry(Settings("acc", "max"), NOW, writer)
    assert set_settings(given.over)(Facts(Settings("acc", "max")), NOW, writer) is None
    assert set_tag("a", 1)(Facts(None, {"a": 2}), NOW, writer) == TagEntry("a", 1, NOW, writer)
    assert set_tag("a", None)(Facts(None, {"a": 2}), NOW, writer) == TagEntry(
        "a", None, NOW, writer
    )


def test_a_lost_reply_writes_no_second_entry(local):
    storage = Failing(local, at=1, after=True, only={"create"})
    append(storage, catalog(storage), "a", set_tag("prod", 1))
    assert local.list_folder("runs/a/_journal").files == ("00000001.json",)


def test_failures_are_named(local):
    with pytest.raises(StorageError, match="connection broke"):
        append(Failing(local, at=1, only={"create"}), catalog(local), "a", set_tag("prod", 1))
    with pytest.raises(OutcomeUnknownError):
        append(
            Failing(local, at=1, always=True, only={"create", "read"}),
            catalog(local),
            "a",
            set_tag("prod", 1),
        )
    assert facts(local).tags == {}


def test_eight_threads_append_and_nothing_is_lost(local):
    start = threading.Barrier(8)

    def write(thread):
        index = catalog(local)
        start.wait()
        for number in range(3):
            append(local, index, "a", set_tag(f"t{thread}.{number}", thread + 1))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(facts(local).tags) == 24
    assert len(local.list_folder("runs/a/_journal").files) == 24


def test_a_taken_number_is_a_second_writer_where_there_must_be_one(local):
    local.exclusive = False

    def decide(_, time, writer):
        append(local, catalog(local), "a", set_tag("prod", 1))
        return TagEntry("mine", 1, time, writer)

    with pytest.raises(SecondWriterError, match="another process"):
        append(local, catalog(local), "a", decide)
    assert facts(local).tags == {"prod": 1}


def test_it_gives_up_after_very_many_lost_races(local, monkeypatch):
    monkeypatch.setattr(journaling, "MAX_LOST_RACES", 3)

    def decide(known, time, writer):
        append(local, catalog(local), "a", set_tag("prod", known.tags.get("prod", 0) + 1))
        return TagEntry("mine", 1, time, writer)

    with pytest.raises(StorageError, match="lost 3 races"):
        append(local, catalog(local), "a", decide)
