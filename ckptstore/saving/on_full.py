"""What a write does that finds no room: wait until there is some, retire first, or raise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from ckptstore.errors import ArgumentError, DurabilityError, RoomWarning, StorageError, warn
from ckptstore.storage.base import Storage
from ckptstore.storage.failures import is_full
from ckptstore.storage.free import free_bytes
from ckptstore.text import size

OnFull = Literal["wait", "retire", "raise"]
POLICIES: tuple[OnFull, ...] = ("wait", "retire", "raise")

# How often the room is looked at. That costs microseconds.
LOOK_S = 5.0
# How soon it is seen that nobody is to wait any longer: time.sleep goes on after a signal.
HEED_S = 0.5
# How often there is a warning, and an attempt where nobody can tell whether there is room.
WARN_S = 60.0
# How often there is an attempt though there is less room than is needed, as far as the system says.
# A filesystem that compresses takes more than that; but on any other an attempt takes, for a while,
# what room is left from everybody else.
ANYWAY_S = 600.0
# How often is collected what is collectible: more becomes so as time goes by.
COLLECT_S = 3600.0
# Beside tensors there is a manifest, and a filesystem's own tables grow: so much, and a hundredth.
BESIDE_BYTES = 64 * 1024

Result = TypeVar("Result")
Retire = Callable[[], str]
"""Applies what a run keeps, collects what is collectible, and says what came of it."""


def check_on_full(on_full: object) -> OnFull:
    """Return ``on_full=`` checked.

    Raises:
        ArgumentError: It is no policy.
    """
    for policy in POLICIES:
        if on_full == policy:
            return policy
    raise ArgumentError(
        f"on_full={on_full!r:.80}: takes 'wait' (until there is room), 'retire' (first retire and "
        "collect what the run doesn't keep, then wait) or 'raise'"
    )


# Process-wide, as signals are.
_impatient: list[Callable[[], float]] = []


@contextmanager
def impatient(left_s: Callable[[], float]) -> Iterator[None]:
    """Let nobody in this process wait for room longer than *left_s* gives, in seconds."""
    _impatient.append(left_s)
    try:
        yield
    finally:
        _impatient.remove(left_s)


def _left_s() -> float:
    return min((left_s() for left_s in _impatient), default=float("inf"))


@dataclass
class WhenFull:
    """How the writes into one run wait for room."""

    storage: Storage
    on_full: OnFull = "raise"
    """The policy."""
    retire: Retire | None = None
    """For the policy of that name: what is done before waiting."""

    def write(self, what: str, work: Callable[[], Result]) -> Result:
        """Do some work, and again whenever there may be room for it.

        The caller's thread sleeps in between, so a training that called ``save`` is paused and
        what it saves does not change. Ctrl-C ends the waiting as it ends anything else.

        Args:
            what: What is written, for messages, as in "no room for *a version of run 'digits'*".
            work: Writes all of it or leaves nothing, and does the same the next time.

        Returns:
            What *work* returned.

        Raises:
            StorageError: There is no room and the policy is to raise, or whoever is
                :func:`impatient` waits no longer; and whatever else *work* raises.
        """
        begun, warned, collected, did = time.monotonic(), -WARN_S, -COLLECT_S, ""
        while True:
            try:
                return work()
            except StorageError as error:
                if self.on_full == "raise" or not may_be_repeated(error):
                    raise
                full = error
            tried, before = time.monotonic(), self._free()
            while not is_due(full, before, self._free(), time.monotonic() - tried):
                waited_s = time.monotonic() - begun
                if _left_s() <= 0:
                    full.add_note(f"ckptstore: waited {waited_s:.0f} s for room, and no longer")
                    raise full
                if self._retires and waited_s - collected >= COLLECT_S:
                    collected, did = waited_s, self._retire()
                    continue
                if waited_s - warned >= WARN_S:
                    warned = waited_s
                    minutes = f", for {waited_s / 60:.0f} min" if waited_s >= WARN_S else ""
                    warn(f"no room for {what}{minutes}: {self._said(full, did)}", RoomWarning)
                _sleep()

    @property
    def _retires(self) -> bool:
        return self.on_full == "retire" and self.retire is not None

    def _retire(self) -> str:
        return "" if self.retire is None else self.retire()

    def _free(self) -> int | None:
        return free_bytes(self.storage.local_folder)

    def _said(self, error: StorageError, did: str) -> str:
        needed = f", {size(error.needed_bytes)} are needed" if error.needed_bytes else ""
        free = self._free()
        room = "how much is free can't be told" if free is None else f"{size(free)} are free"
        done = f" ({did})" if did else ""
        return (
            f"{error}. At {self.storage.url} {room}{needed}{done}. This process waits, and goes on "
            "by itself once there is room: delete something there, or have the quota raised. To "
            "have it raise an error instead: on_full='raise'"
        )


def _sleep() -> None:
    """Sleep until it is time to look again, or nobody is to wait any longer."""
    until = time.monotonic() + LOOK_S
    while (rest_s := min(until - time.monotonic(), _left_s())) > 0:
        time.sleep(min(rest_s, HEED_S))


def may_be_repeated(error: StorageError) -> bool:
    """Say whether a write found no room and left nothing, so that it may be made again.

    After a failed fsync the version, or the entry, may be there; only whoever looked can tell, and
    says so by ``needed_bytes``.
    """
    return is_full(error) and (
        error.needed_bytes is not None or not isinstance(error, DurabilityError)
    )


def is_due(error: StorageError, before: int | None, now: int | None, since_s: float) -> bool:
    """Say whether it is time for another attempt. Pure.

    Args:
        error: How the last one ended.
        before: How many bytes were free right after it, None where nobody can tell.
        now: How many are.
        since_s: Seconds since it ended.
    """
    if before is None or now is None:
        return since_s >= WARN_S
    tensors = error.needed_bytes or 0
    needed = tensors + tensors // 100 + BESIDE_BYTES
    if now < needed:
        return since_s >= ANYWAY_S
    # There was as much room as now, and it was not enough: a quota that isn't seen, or inodes.
    return before < needed or since_s >= WARN_S
