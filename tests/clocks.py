"""Clocks that a test sets: the storage's, and those of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ckptstore.storage.base import Leftover, Storage, Stored, Writer

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Clock:
    """A clock that moves when a test says so."""

    def __init__(self) -> None:
        self.now = START

    def pass_by(self, time: timedelta) -> None:
        self.now += time


class Clocked:
    """A storage whose objects are as old as a test's clock says; the work is another's.

    A large object has the time when it was begun, as in S3: that is the earliest it can be.
    """

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self.clock = clock
        self.times: dict[str, datetime] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("exclusive", "in_place"):
            setattr(self._storage, name, value)
        else:
            object.__setattr__(self, name, value)

    def create(self, key: str, data: bytes) -> None:
        self._storage.create(key, data)
        self.times[key] = self.clock.now

    def open_writer(self, key: str) -> Writer:
        self.times[key] = self.clock.now
        return self._storage.open_writer(key)

    def walk(self, folder: str) -> Iterator[Stored]:
        for stored in self._storage.walk(folder):
            yield stored._replace(written_at=self.times[stored.key])

    def written_at(self, key: str) -> datetime:
        self._storage.written_at(key)
        return self.times[key]

    def leftovers(self) -> Iterator[Leftover]:
        for leftover in self._storage.leftovers():
            yield leftover._replace(written_at=self.times.get(leftover.key, START))


class ProcessClocks:
    """The two clocks by which this process measures how long something took.

    Attributes:
        wall_s: What ``time.time()`` says.
        monotonic_s: What ``time.monotonic()`` says.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = 1_000_000.0
        self.monotonic_s = 1_000.0
        clocks = SimpleNamespace(time=lambda: self.wall_s, monotonic=lambda: self.monotonic_s)
        monkeypatch.setattr("ckptstore.saving.moment.time", clocks)

    def pass_by(self, time: timedelta) -> None:
        self.wall_s += time.total_seconds()
        self.monotonic_s += time.total_seconds()


class WaitingClock:
    """The clock of a module that waits by ``time.sleep``: it passes as fast as it is slept.

    Attributes:
        passed_s: How many seconds have passed.
        then: Is called after each sleep, with those seconds: what others do meanwhile.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.passed_s = 0.0
        self.then: Callable[[float], object] = bool
        clock = SimpleNamespace(monotonic=lambda: 5000.0 + self.passed_s, sleep=self._sleep)
        monkeypatch.setattr(f"{module}.time", clock)

    def _sleep(self, seconds: float) -> None:
        self.passed_s += seconds
        assert self.passed_s < 50_000, "it waits for ever"
        self.then(self.passed_s)


def pass_by(clocks: Sequence[Clock | ProcessClocks], time: timedelta) -> None:
    """Let time pass for several clocks."""
    for clock in clocks:
        clock.pass_by(time)
