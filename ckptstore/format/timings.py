"""What a save cost: how long it held the training up, what it copied, hashed and wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckptstore.format.fields import Fields

# 300 years: what is more is no measurement, and a float of any size would be taken for one.
MAX_S = 1e10
_SECONDS = ("blocked_s", "copied_s", "hashed_s", "written_s")
_BYTES = ("copied_bytes", "hashed_bytes", "written_bytes")


@dataclass(frozen=True)
class Timings:
    """What one save took, by its own clock. The commit itself, which records this, is not in it.

    Attributes:
        blocked_s: For how many seconds ``save`` or ``save_async`` held its caller up; with
            ``overlap=True`` also for how many a step, or ``wait_copied``, waited for the copy.
        copied_bytes: How much was copied so that the training could go on: 0 of a blocking save.
        copied_s: The seconds that took, of all threads together.
        hashed_bytes: How much was hashed.
        hashed_s: The seconds that took, of all threads together.
        written_bytes: How much was written as packs and files.
        written_s: The seconds that took, until it was durable.
    """

    blocked_s: float = 0.0
    copied_bytes: int = 0
    copied_s: float = 0.0
    hashed_bytes: int = 0
    hashed_s: float = 0.0
    written_bytes: int = 0
    written_s: float = 0.0


def timings_json(timings: Timings | None) -> dict[str, Any]:
    """Return the head's member ``timings``; nothing where there is none."""
    if timings is None:
        return {}
    return {"timings": {name: getattr(timings, name) for name in sorted((*_SECONDS, *_BYTES))}}


def decode_timings(fields: Fields) -> Timings | None:
    """Read the head's member ``timings``.

    Raises:
        IntegrityError: It is not what format 1 says.
    """
    if fields.get("timings") is None:
        return None
    timings = fields.fields("timings")
    seconds: dict[str, float] = {}
    for name in _SECONDS:
        value = timings.get(name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= MAX_S:  # NaN isn't either
            raise timings.bad(name, f"a number of seconds from 0 to {MAX_S:.0e}")
        seconds[name] = float(value)
    # One after the other, so that the checker sees what each is.
    return Timings(
        seconds["blocked_s"],
        timings.number("copied_bytes"),
        seconds["copied_s"],
        timings.number("hashed_bytes"),
        seconds["hashed_s"],
        timings.number("written_bytes"),
        seconds["written_s"],
    )
