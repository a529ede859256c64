"""What a collection says of itself."""

from __future__ import annotations

from ckptstore.storage.base import Leftover, Stored
from ckptstore.upkeep.collected import Collected
from ckptstore.upkeep.garbage import Tally
from tests.catalog.places import START

PACK = Stored("packs/01/x", 2_000_000, START)


def test_it_reads_well_on_a_terminal():
    done = Collected(
        START,
        604_800,
        dry_run=False,
        deleted=(PACK, PACK),
        leftovers=(Leftover("packs/.tmp", None, 500_000, START),),
        in_use=Tally(3, 9_000_000_000),
        retired=Tally(1, 1000),
    )
    assert repr(done).splitlines() == [
        "deleted 4.5 MB: 2 packs and files and 1 leftover",
        "kept 9.0 GB: 3 packs and files needed by versions",
        "kept 1.0 kB: 1 pack or file retired less than 7 days ago",
    ]


def test_a_dry_run_says_what_would_be():
    done = Collected(START, 60, dry_run=True, deleted=(), leftovers=(), recent=Tally(1, 5))
    assert repr(done).splitlines() == [
        "would delete 0 B: 0 packs and files and 0 leftovers",
        "kept 5 B: 1 pack or file too recent to tell",
    ]


def test_failures_are_listed_and_many_are_counted():
    failed = {f"packs/{number}\x1b": "it is\nlocked" for number in range(12)}
    done = Collected(START, 60, dry_run=False, deleted=(), leftovers=(), failed=failed)
    lines = repr(done).splitlines()
    assert lines[1] == "could not delete 12; collecting again tries again:"
    assert lines[2] == r"  packs/0\x1b: it is\nlocked"
    assert lines[-1] == "  … and 2 more"
    assert len(lines) == 2 + 10 + 1


def test_as_json_it_has_every_key():
    leftover = Leftover("packs/x", "upload-id", None, None)
    done = Collected(
        START, 60, dry_run=False, deleted=(PACK,), leftovers=(leftover,), failed={"a": "b"}
    )
    time = "2026-01-31T12:00:00.000000Z"
    assert done.to_json() == {
        "now": time,
        "grace_s": 60,
        "dry_run": False,
        "deleted_bytes": 2_000_000,
        "deleted": [{"key": "packs/01/x", "size_bytes": 2_000_000, "written_at": time}],
        "leftovers": [
            {"key": "packs/x", "size_bytes": None, "written_at": None, "upload": "upload-id"}
        ],
        "failed": {"a": "b"},
        "kept": {name: {"count": 0, "size_bytes": 0} for name in ("in_use", "retired", "recent")},
    }
