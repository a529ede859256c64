"""Ending a process that ran what a file said, and what it started."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
MAX_ROUNDS = 20
"""How often it is looked for more: processes may start others meanwhile."""


def end_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a process, its session, and on Linux whatever else inherited its environment.

    One that began a session of its own and emptied its environment isn't found: who would do that
    may do all else that this user may.

    Args:
        process: The process, the first of its session.
        mark: A line ``NAME=value`` of its environment that no other process has.
    """
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    if hasattr(os, "pidfd_open"):
        for _ in range(MAX_ROUNDS):
            if not _end_marked(mark.encode("utf-8", "surrogateescape")):
                return


def _end_marked(mark: bytes) -> bool:
    """End all processes that have a line in their environment; say whether there were any."""
    found = False
    for folder in PROC.iterdir() if PROC.is_dir() else ():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        # Opened before it is looked at: its number may be another's by the time of the signal.
        with suppress(OSError):
            handle = os.pidfd_open(int(folder.name))
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    found = True
            finally:
                os.close(handle)
    return found
