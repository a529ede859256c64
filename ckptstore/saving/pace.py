"""How long the next save will take, going by those that this process has made."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

# What is taken of a disk or network that nobody has measured. A general-purpose volume of AWS (gp3)
# gives 125 MiB/s unless more is paid for, and a gigabit network no more than 118 MB/s.
# https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
ASSUMED_BYTES_PER_S = 100e6
# A save may take so many times as long as one before it: others write to the same disk, above all
# when all jobs of a machine are told to stop at once.
MARGIN = 2.0
# A save of nothing takes fsyncs, a catalog's transaction, some requests.
LEAST_S = 1.0
# Below that size the time of a save does not depend on it.
SMALL_BYTES = 1_000_000
# How many saves are remembered: enough to have a slow one among them, few enough to forget it.
REMEMBERED = 5


class Pace:
    """What the last saves of one run took."""

    def __init__(self, measured: Iterable[tuple[int, float]] = ()) -> None:
        self._measured: deque[tuple[int, float]] = deque(measured, maxlen=REMEMBERED)

    def add(self, size_bytes: int, seconds: float) -> None:
        """Take note of a save: the bytes of its tensors, shared ones included, and its time."""
        self._measured.append((size_bytes, seconds))

    def estimate_s(self, size_bytes: int) -> float:
        """Return how many seconds a save of so many bytes may take: an upper estimate.

        That of the slowest of the last saves, by its size; a save that shares much is as fast as
        those before it that shared as much.
        """
        if not self._measured:
            return LEAST_S + MARGIN * size_bytes / ASSUMED_BYTES_PER_S
        # Small saves take their time for other things than bytes, and say nothing of large ones.
        slowest = max(
            seconds * max(size_bytes, SMALL_BYTES) / max(size, SMALL_BYTES)
            for size, seconds in self._measured
        )
        return LEAST_S + MARGIN * slowest
