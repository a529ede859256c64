"""The newest first, with and without what is damaged."""

from __future__ import annotations

from uuid import UUID

from ckptstore.format.journal import DamageEntry, RetireEntry
from tests.catalog.places import START, commit_many, note

SIGNED = (START, UUID(int=7))


def test_who_resumes_hears_of_what_is_damaged_and_not_of_what_is_retired(storage, catalog):
    commit_many(storage, "digits", {version: {} for version in range(1, 6)})
    note(storage, "digits", 1, DamageEntry(4, "a pack is short", *SIGNED))
    note(storage, "digits", 2, RetireEntry({3: "old"}, *SIGNED))
    catalog.sync("digits")
    catalog.pass_over(UUID(int=2))

    listed = list(catalog.newest_with_damaged("digits", "checkpoint"))

    assert [record.version for record in listed] == [5, 4, 2, 1]
    assert [record.head is None for record in listed] == [False, True, True, False]
    assert listed[1].damage == "a pack is short"
    assert "by this process" in listed[2].damage
    newest = catalog.newest_first("digits", "checkpoint")
    assert [record.version for record in newest] == [5, 1]
