"""What one save costs, measured while it goes on; and how much of the machine it may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ckptstore.format.timings import Timings


class Meter:
    """Bytes and seconds of one kind of work, whatever threads do it."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.seconds = 0.0
        self._lock = threading.Lock()

    def add(self, size_bytes: int, seconds: float) -> None:
        """Take note of some work."""
        with self._lock:
            self.size_bytes += size_bytes
            self.seconds += seconds

    @contextmanager
    def timing(self, size_bytes: int) -> Iterator[None]:
        """Take note of the work done in the block, if it is done."""
        begun = time.perf_counter()
        yield
        self.add(size_bytes, time.perf_counter() - begun)


class Effort:
    """What one save costs.

    Attributes:
        begun_s: When the caller asked for it, by ``time.monotonic()``.
        hashed: What its current attempt has hashed.
        written: What its current attempt has written.
        blocked_s: For how long the caller was held up, None while it still is.
        copied_bytes: How much was copied, so that the caller could go on.
        copied_s: The seconds that took.
        waited_s: Says for how long it was held up again since, by what was left to copy.
    """

    def __init__(self) -> None:
        self.begun_s, self._begun = time.monotonic(), time.perf_counter()
        self.blocked_s: float | None = None
        self.copied_bytes = 0
        self.copied_s = 0.0
        self.waited_s: Callable[[], float] = float
        self.begin()

    def begin(self) -> None:
        """Begin an attempt: what an earlier one hashed and wrote is not of this version."""
        self.hashed, self.written = Meter(), Meter()

    def let_go(self) -> None:
        """Take note that the caller goes on from here."""
        self.blocked_s = self._elapsed_s()

    @property
    def is_in_background(self) -> bool:
        """Whether the caller goes on meanwhile, and needs its cores."""
        return self.blocked_s is not None

    def timings(self) -> Timings:
        """Return what it took so far, in whole microseconds."""
        blocked_s = self._elapsed_s() if self.blocked_s is None else self.blocked_s
        return Timings(
            round(blocked_s + self.waited_s(), 6),
            self.copied_bytes,
            round(self.copied_s, 6),
            self.hashed.size_bytes,
            round(self.hashed.seconds, 6),
            self.written.size_bytes,
            round(self.written.seconds, 6),
        )

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._begun
