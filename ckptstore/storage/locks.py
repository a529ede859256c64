"""Locks between processes that a killed one does not leave behind.

The kernel holds them on an open file, and lets go when the process ends, however it ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ckptstore.storage.private import FILE_MODE, NO_FOLLOW

if sys.platform != "win32":
    import fcntl

POLL_S = 0.05
STALLED_S = 60.0
"""How long a holder may show no sign of life before nobody waits for it any more."""


class Lock:
    """A lock file that this process holds."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def beat(self) -> None:
        """Show those who wait that work goes on."""
        with suppress(OSError):  # they will stop waiting, no more
            os.utime(self._fd)

    def release(self) -> None:
        """Let go, and leave no file behind."""
        with suppress(OSError):  # a lock file without a holder is cleaned up by whoever finds it
            self._path.unlink()
        with suppress(OSError):
            if sys.platform != "win32":
                # Closing alone would not do: a child that was forked meanwhile has it open too.
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        with suppress(OSError):
            os.close(self._fd)


def try_lock(path: Path) -> Lock | None:
    """Take a lock, or return None where somebody has it.

    On Windows nobody ever has it: two processes may then do the same work.

    Raises:
        OSError: Its file can't be made, or the filesystem knows no locks.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, FILE_MODE)
        try:
            if sys.platform != "win32":
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it before removed its name in letting go: then this is a lock on nothing.
            if _is_named(fd, path):
                return Lock(path, fd)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def wait_for_lock(path: Path, done: Callable[[], bool]) -> Lock | None:
    """Wait for a lock, for as long as its holder shows signs of life.

    Args:
        path: The lock's file.
        done: Says whether waiting has become pointless, as the work is done.

    Returns:
        The lock, or None where the work is done.

    Raises:
        TimeoutError: The holder has shown no sign of life for :data:`STALLED_S`.
        OSError: As :func:`try_lock`.
    """
    seen, since = None, time.monotonic()
    while (lock := try_lock(path)) is None:
        if done():
            return None
        beat = _beat(path)
        if beat != seen:
            seen, since = beat, time.monotonic()
        elif time.monotonic() - since > STALLED_S:
            raise TimeoutError(f"whoever holds {path} has stopped working on it")
        time.sleep(POLL_S)
    return lock


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _beat(path: Path) -> int | None:
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return None
