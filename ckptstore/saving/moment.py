"""How long ago something was, by two clocks: neither a sleeping laptop nor a set clock lies.

``CLOCK_MONOTONIC`` stands still while a machine sleeps; the wall clock may be set back. The longer
of the two spans is what counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Moment:
    """A point in time of this process."""

    wall_s: float
    monotonic_s: float

    @classmethod
    def now(cls) -> Self:
        """Return this moment."""
        return cls(time.time(), time.monotonic())

    def elapsed_s(self) -> float:
        """Return how many seconds ago it was, by whichever clock says longer."""
        now = Moment.now()
        return max(now.wall_s - self.wall_s, now.monotonic_s - self.monotonic_s)


def earliest(moments: Iterable[Moment]) -> Moment:
    """Return the moment that is longest ago."""
    return max(moments, key=Moment.elapsed_s)
