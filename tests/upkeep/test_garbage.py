"""What may be deleted: a pure function, so every edge is a line."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from ckptstore.errors import CollectionRefusedError
from ckptstore.format.journal import RetireEntry, UndeleteEntry
from ckptstore.format.layout import pack_key
from ckptstore.storage.base import Stored
from ckptstore.upkeep.garbage import Tally, sort_out
from ckptstore.upkeep.inventory import Noted, RunContents, Version
from tests.catalog.places import START as NOW

DAY = timedelta(days=1)
GRACE = 7 * DAY
MOMENT = timedelta(microseconds=1)
A, B = (pack_key(UUID(int=number), 0) for number in (1, 2))


def stored(key, age):
    return Stored(key, 10, NOW - age)


def run(versions, *entries):
    """A run whose versions name those keys, with entries of that kind, version and age."""
    journal = []
    for number, (kind, version, age) in enumerate(entries, 1):
        entry = (
            RetireEntry({version: "old"}, NOW, UUID(int=1))
            if kind == "retire"
            else UndeleteEntry((version,), NOW, UUID(int=1))
        )
        journal.append(Noted(number, entry, NOW - age))
    return RunContents("a", {n: Version(tuple(keys)) for n, keys in versions.items()}, journal)


def pile_of(key, age, *runs):
    piles = sort_out([stored(key, age)], runs, NOW, GRACE)
    (name,) = [name for name, pile in vars(piles).items() if pile]
    return name


LIVE = run({1: [A]})
JUST_RETIRED = run({1: [A]}, ("retire", 1, GRACE))
LONG_RETIRED = run({1: [A]}, ("retire", 1, GRACE + MOMENT))
UNDELETED = run({1: [A]}, ("retire", 1, 3 * GRACE), ("undelete", 1, 2 * GRACE))
BACK = run({1: [A]}, ("retire", 1, 30 * DAY), ("undelete", 1, 29 * DAY), ("retire", 1, GRACE))


@pytest.mark.parametrize(
    ("runs", "age", "pile"),
    [
        ([], GRACE + MOMENT, "deletable"),
        ([], GRACE, "recent"),
        ([LIVE], 100 * DAY, "in_use"),
        ([JUST_RETIRED], 100 * DAY, "retired"),
        ([LONG_RETIRED], 100 * DAY, "deletable"),
        ([LONG_RETIRED], GRACE, "recent"),
        ([LONG_RETIRED, LIVE], 100 * DAY, "in_use"),
        ([LIVE, LONG_RETIRED], 100 * DAY, "in_use"),
        ([LONG_RETIRED, JUST_RETIRED], 100 * DAY, "retired"),
        ([UNDELETED], 100 * DAY, "in_use"),
        ([BACK], 100 * DAY, "retired"),
    ],
)
def test_what_becomes_of_a_pack(runs, age, pile):
    assert pile_of(A, age, *runs) == pile


def test_another_runs_version_of_that_number_is_another():
    assert pile_of(B, 100 * DAY, LONG_RETIRED, run({2: [B]})) == "in_use"


def test_an_entry_about_a_version_that_is_not_there_changes_nothing():
    assert pile_of(A, 100 * DAY, run({1: [A]}, ("retire", 2, 50 * DAY))) == "in_use"


def test_what_is_no_pack_or_file_is_in_no_pile():
    piles = sort_out([stored("packs/ab/notes.txt", 100 * DAY)], [], NOW, GRACE)
    assert not any(vars(piles).values())


def test_an_object_from_the_future_is_recent():
    assert pile_of(A, -DAY) == "recent"


def damaged(*entries):
    return RunContents("a", {1: Version(damage="it is damaged")}, run({}, *entries).journal)


def missing(*entries):
    gone = Version(damage="it is damaged", is_missing=True)
    return RunContents("a", {1: gone}, run({}, *entries).journal)


@pytest.mark.parametrize(
    ("contents", "advice"),
    [
        (damaged(), r"verify\(repair=True\)"),
        (missing(), "nobody can make it again.*copy_to"),
        (damaged(("retire", 1, GRACE)), "or wait"),
        (missing(("retire", 1, GRACE)), "or wait"),
        (damaged(("retire", 1, 9 * GRACE), ("undelete", 1, 8 * GRACE)), r"verify\(repair=True\)"),
    ],
)
def test_a_manifest_nobody_can_read_ends_it(contents, advice):
    with pytest.raises(CollectionRefusedError, match=f"it is damaged.*{advice}"):
        sort_out([stored(A, 100 * DAY)], [contents], NOW, GRACE)


def test_a_damaged_manifest_that_was_retired_long_ago_names_nothing():
    assert pile_of(A, 100 * DAY, damaged(("retire", 1, GRACE + MOMENT))) == "deletable"


def test_without_times_nothing_is_decided():
    with pytest.raises(CollectionRefusedError, match=f"when {A} was written"):
        sort_out([Stored(A, 10, None)], [], NOW, GRACE)
    timeless = RunContents(
        "a", {1: Version((A,))}, [Noted(1, RetireEntry({1: "old"}, NOW, UUID(int=1)), None)]
    )
    with pytest.raises(CollectionRefusedError, match="the retirement of a@1"):
        sort_out([stored(A, 100 * DAY)], [timeless], NOW, GRACE)


def test_a_tally_counts_objects_and_bytes():
    assert Tally.of([stored(A, DAY), stored(B, DAY)]) == Tally(2, 20)
