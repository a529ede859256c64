"""When something was written, as each storage tells it, in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NAMES = (
    "LastModified",
    "last_modified",
    "updated",
    "modified",
    "mtime",
    "created",
    "timeCreated",
    "creation_time",
)
"""What fsspec's filesystems call it in what they tell of a file."""


def in_utc(time: object) -> datetime | None:
    """Return a point in time in UTC, None if it is none.

    Args:
        time: A datetime (in UTC if it names no zone), seconds since 1970, or ISO 8601.
    """
    try:
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        elif isinstance(time, int | float) and not isinstance(time, bool):
            return datetime.fromtimestamp(time, UTC)
    except (ValueError, OverflowError, OSError):  # not ISO 8601, or out of a calendar's range
        return None
    if not isinstance(time, datetime):
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def latest_named(info: Mapping[str, Any]) -> datetime | None:
    """Return the latest of the times that a filesystem of fsspec tells of a file.

    The latest, as an object is never written twice, and one that looks too young is kept too long
    while one that looks too old could be collected while it is being saved.
    """
    times = [time for name in _NAMES if (time := in_utc(info.get(name))) is not None]
    return max(times, default=None)
