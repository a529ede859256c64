from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from ckptstore.format.layout import clock_key, pack_key
from ckptstore.storage.base import Leftover
from ckptstore.upkeep.leftovers import own_clocks, own_leftovers
from tests.upkeep.histories import Bucket

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PACK = pack_key(UUID(int=1), 0)
TEMPORARY = "runs/a/_versions/.tmp-0123456789abcdef"


def test_uploads_of_packs_and_temporary_files_by_their_names_are_ours():
    storage = Bucket()
    own = [Leftover(PACK, "upload", None, WHEN), Leftover(TEMPORARY, None, 1, WHEN)]
    others = [
        Leftover(TEMPORARY, "upload", None, WHEN),  # nothing uploads a temporary file
        Leftover(PACK, None, 1, WHEN),  # a whole pack is not left over
        Leftover(f"team2/{PACK}", "upload", None, WHEN),
        Leftover("data/.tmp-precious.csv", None, 1, WHEN),
    ]
    storage.left += [*others, *own]
    assert list(own_leftovers(storage)) == own


def test_the_second_name_of_an_object_is_let_be_for_the_sake_of_the_objects_time():
    storage, clock = Bucket(), "clock/.tmp-0123456789abcdef"
    storage.left += [
        Leftover(TEMPORARY, None, 1, WHEN, "runs/a/_versions/00000001.jsonl"),
        Leftover(clock, None, 1, WHEN, clock_key(UUID(int=1))),
    ]

    assert [each.key for each in own_leftovers(storage)] == [clock]


def test_clocks_are_known_by_their_names():
    storage = Bucket()
    for key in (clock_key(UUID(int=1)), "clock/mine", "clock/2026/x"):
        storage.create(key, b"x")
    assert [each.key for each in own_clocks(storage)] == [clock_key(UUID(int=1))]
