"""What a copy says it did."""

from __future__ import annotations

import json

from ckptstore.upkeep.copied import Copied, CopiedVersion

DONE = Copied(
    "here",
    "s3://bucket/there",
    (
        CopiedVersion("a@1", "b@4", "checkpoint", is_new=False),
        CopiedVersion(
            "a@\x1b2", "b@5", "package", is_new=True, bytes_written=1500, bytes_shared=2000
        ),
    ),
    retired=("a@3",),
    entries=1,
    left=("tag 'prod' stays\x1b",),
)


def test_what_was_copied_and_what_was_there_are_told_apart():
    assert DONE.copied == [("a@\x1b2", "b@5")]
    assert DONE.there == [("a@1", "b@4")]
    assert (DONE.bytes_written, DONE.bytes_shared) == (1500, 2000)


def test_people_see_a_table_without_control_characters():
    header, there, new, left, summary = repr(DONE).splitlines()
    assert header.split() == ["ref", "kind", "written", "shared", "copy"]
    assert there.split() == ["a@1", "checkpoint", "b@4", "(there", "already)"]
    assert new.split() == ["a@\\x1b2", "package", "1.5", "kB", "2.0", "kB", "b@5"]
    assert left == "tag 'prod' stays\\x1b"
    assert summary == (
        "here to s3://bucket/there: 1 copied, 1 there already, 1 retired and not copied, "
        "1.5 kB written, 2.0 kB shared, 1 journal entry added"
    )


def test_nothing_copied_is_one_line():
    assert repr(Copied("a", "b", ())) == (
        "a to b: 0 copied, 0 there already, 0 B written, 0 B shared, 0 journal entries added"
    )


def test_programs_get_plain_data():
    assert json.loads(json.dumps(DONE.to_json())) == {
        "format": 1,
        "source": "here",
        "target": "s3://bucket/there",
        "versions": [
            {
                "ref": "a@1",
                "copy": "b@4",
                "kind": "checkpoint",
                "new": False,
                "bytes_written": 0,
                "bytes_shared": 0,
            },
            {
                "ref": "a@\x1b2",
                "copy": "b@5",
                "kind": "package",
                "new": True,
                "bytes_written": 1500,
                "bytes_shared": 2000,
            },
        ],
        "retired": ["a@3"],
        "journal_entries": 1,
        "left": ["tag 'prod' stays\x1b"],
    }
