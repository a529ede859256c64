"""Which save each version is, or is a copy of."""

from __future__ import annotations

from uuid import UUID

import pytest

from ckptstore.catalog.index import Catalog
from ckptstore.errors import NewerFormatError
from ckptstore.format.facts import Settings
from ckptstore.format.journal import DamageEntry, LogEntry, RetireEntry, SettingsEntry
from ckptstore.format.layout import version_key
from ckptstore.format.manifest import CopiedFrom, Parent
from tests.catalog.places import (
    START,
    DictStorage,
    commit,
    found_store,
    make_head,
    newer,
    note,
    tag_entry,
)

COPY = CopiedFrom(UUID(int=50), Parent("digits", 9, UUID(int=51)), UUID(int=52), START)


@pytest.fixture
def storage():
    storage = DictStorage()
    found_store(storage)
    return storage


@pytest.fixture
def catalog(storage):
    return Catalog("sqlite://", storage)


def test_copies_are_known_by_their_origin_and_others_by_their_save_id(storage, catalog):
    # A config that says the same letters makes nothing a copy.
    commit(storage, make_head("digits", 1, config={"copied_from": {"a": 1}}))
    commit(storage, make_head("digits", 2, copied_from=COPY, kind="package"))
    catalog.sync("digits")

    first, second = catalog.identities("digits")

    assert (first.version, first.kind, first.origin) == (1, "checkpoint", UUID(int=1))
    assert first.copied_from is None
    assert (second.version, second.kind, second.origin) == (2, "package", UUID(int=52))
    assert (second.save_id, second.copied_from) == (UUID(int=2), COPY)
    assert second.size_bytes == 2000
    assert second.created_at == make_head("digits", 2).created_at


def test_retired_and_damaged_versions_are_told_and_unreadable_ones_left_out(storage, catalog):
    for number in (1, 2):
        commit(storage, make_head("digits", number))
    storage.create(version_key("digits", 3), b"torn")
    note(storage, "digits", 1, RetireEntry({1: "last 1"}, START, UUID(int=7)))
    note(storage, "digits", 2, DamageEntry(2, "a flipped bit", START, UUID(int=8)))
    catalog.sync("digits")

    found = catalog.identities("digits")

    assert [(each.version, each.retired, each.damage) for each in found] == [
        (1, "last 1", None),
        (2, None, "a flipped bit"),
    ]


def test_only_later_versions_are_read_where_that_is_asked(storage, catalog):
    for number in (1, 2, 3):
        commit(storage, make_head("digits", number))
    commit(storage, make_head("other", 1))
    catalog.sync("digits")

    assert [each.version for each in catalog.identities("digits", after=1)] == [2, 3]
    assert catalog.identities("digits", after=3) == []


def test_a_version_of_a_newer_ckptstore_is_refused(storage, catalog):
    storage.create(version_key("digits", 1), newer(1))
    catalog.sync("digits")
    with pytest.raises(NewerFormatError):
        catalog.identities("digits")


def test_the_journal_is_read_by_kinds_and_from_a_number_on(storage, catalog):
    commit(storage, make_head("digits", 1))
    entries = [
        tag_entry("prod", 1),
        SettingsEntry(Settings("acc", "max"), START, UUID(int=8)),
        LogEntry(1, None, None, {"acc": 0.5}, START, UUID(int=9), "me@here"),
        tag_entry("prod", None),
    ]
    for number, entry in enumerate(entries, 1):
        note(storage, "digits", number, entry)
    catalog.sync("digits")

    assert catalog.journal("digits", ["tag"]) == [(1, entries[0]), (4, entries[3])]
    assert catalog.journal("digits", ["tag", "log"], after=1) == [(3, entries[2]), (4, entries[3])]
    assert catalog.journal("nowhere", ["tag"]) == []
