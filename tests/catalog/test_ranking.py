"""The best comes first, then what would be the best without it."""

from __future__ import annotations

from uuid import UUID

from ckptstore.catalog.ranking import Damaged
from tests.catalog.places import NAN, commit_many


def test_the_better_come_first_and_nan_never(storage, catalog):
    values = {1: 3, 2: 1, 3: NAN, 4: 1, 5: 2}
    commit_many(storage, "digits", {version: {"m": value} for version, value in values.items()})
    catalog.sync("digits")

    found = catalog.best_first(["digits"], "m", "min")
    assert [record.version for record in found] == [2, 4, 5, 1]
    found = catalog.best_first(["digits"], "m", "max")
    assert [record.version for record in found] == [1, 5, 2, 4]


def test_what_this_process_found_damaged_is_passed_over_and_told(storage, catalog):
    commit_many(storage, "digits", {1: {"m": 3}, 2: {"m": 1}, 3: {"m": 2}})
    catalog.sync("digits")
    for number in (2, 3):
        catalog.pass_over(UUID(int=number))

    assert catalog.best(["digits"], "m", "min").version == 1
    assert catalog.latest("digits", "checkpoint").version == 1
    assert catalog.is_passed_over(UUID(int=2))
    assert not catalog.is_passed_over(UUID(int=1))
    assert catalog.damaged(["digits"]) == [
        Damaged("digits", 2, "checkpoint"),
        Damaged("digits", 3, "checkpoint"),
    ]
