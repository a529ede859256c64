"""What is there already, and who may have brought it meanwhile."""

from __future__ import annotations

from uuid import UUID

import pytest

from ckptstore.catalog.index import Catalog
from ckptstore.format.facts import LATE
from ckptstore.format.journal import DamageEntry, RetireEntry
from ckptstore.format.manifest import CopiedFrom, Parent
from ckptstore.upkeep.arrivals import Arrivals, ThereMeanwhileError
from tests.catalog.places import START, DictStorage, commit, found_store, make_head, note

ORIGIN = UUID(int=52)
COPY = CopiedFrom(UUID(int=50), Parent("digits", 9, UUID(int=51)), ORIGIN, START)


@pytest.fixture
def storage():
    storage = DictStorage()
    found_store(storage)
    return storage


def arrivals(storage):
    return Arrivals(Catalog("sqlite://", storage), "digits")


def test_a_version_is_there_by_what_it_goes_back_to(storage):
    commit(storage, make_head("digits", 1))
    commit(storage, make_head("digits", 2, copied_from=COPY))
    found = arrivals(storage)
    assert found.get(UUID(int=1)).version == 1
    assert found.get(ORIGIN).version == 2
    assert found.get(UUID(int=2)) is None
    assert found.get(UUID(int=51)) is None


def test_nothing_is_there_where_there_is_no_store():
    assert arrivals(DictStorage()).get(ORIGIN) is None


@pytest.mark.parametrize(
    ("entry", "is_there"),
    [
        (RetireEntry({1: "last 1"}, START, UUID(int=7)), True),
        (RetireEntry({1: f"{LATE}it slept"}, START, UUID(int=7)), False),
        (DamageEntry(1, "a flipped bit", START, UUID(int=7)), False),
    ],
)
def test_what_was_retired_is_there_and_what_is_damaged_or_late_is_not(storage, entry, is_there):
    commit(storage, make_head("digits", 1))
    note(storage, "digits", 1, entry)
    assert (arrivals(storage).get(UUID(int=1)) is not None) == is_there


def test_a_number_is_refused_once_somebody_brought_it_under_a_smaller_one(storage):
    commit(storage, make_head("digits", 1))
    found = arrivals(storage)
    commit(storage, make_head("digits", 2, copied_from=COPY))
    found.check(2, ORIGIN)  # the number is taken, as will be found; nothing is looked at for it
    with pytest.raises(ThereMeanwhileError, match="digits@2 is it") as raised:
        found.check(3, ORIGIN)
    assert raised.value.there == ("digits", 2)
    found.check(3, UUID(int=99))


def test_what_was_just_committed_is_there_and_not_refused_to_itself(storage):
    found = arrivals(storage)
    head = make_head("digits", 1, copied_from=COPY)
    found.check(1, ORIGIN)
    commit(storage, head)
    found.check(1, ORIGIN)
    found.add(head)
    assert found.get(ORIGIN).version == 1
    assert found.get(ORIGIN).size_bytes == 1000
