"""Times as storages tell them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ckptstore.storage.times import in_utc, latest_named

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "told",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=5))),
        NOON.timestamp(),
        int(NOON.timestamp()),
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.000Z",
        "2026-01-31 17:00:00+05:00",
    ],
)
def test_a_time_is_understood_however_it_is_told(told):
    time = in_utc(told)

    assert time == NOON
    assert time.tzinfo is UTC


@pytest.mark.parametrize("told", [None, "", "yesterday", True, b"x", 1e300, float("nan"), [NOON]])
def test_what_is_no_time_is_none(told):
    assert in_utc(told) is None


@pytest.mark.parametrize(
    "info",
    [
        {"LastModified": NOON},
        {"last_modified": NOON},
        {"updated": "2026-01-31T12:00:00Z"},
        {"mtime": NOON.timestamp()},
        {"created": NOON.timestamp(), "mtime": None},
        {"created": 0.0, "mtime": NOON},
        {"created": NOON, "mtime": 0},
    ],
)
def test_the_latest_time_that_a_filesystem_names_counts(info):
    assert latest_named(info) == NOON


def test_a_file_of_which_no_time_is_told_has_none():
    assert latest_named({"name": "x", "size": 3, "atime": NOON.timestamp()}) is None
