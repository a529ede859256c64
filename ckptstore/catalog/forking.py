"""No fork while a transaction is under way in this process.

SQLite keeps the locks it holds on a file in the process's memory. A child forked amid another
thread's transaction inherits that memory and not the thread, so it would find the file locked for
ever (https://www.sqlite.org/howtocorrupt.html, section 2.6).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Any number of threads are inside at once; whoever shuts it waits until none is."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside, once the gate is open."""
        thread = threading.get_ident()
        with self._changed:
            self._inside[thread] = self._inside.get(thread, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[thread] -= 1
                if not self._inside[thread]:
                    del self._inside[thread]
                self._changed.notify_all()

    def shut(self) -> None:
        """Wait until no other thread is inside, and let none in."""
        # Whoever wants in or out needs this lock, which waiting gives away for the time being.
        self._changed.acquire()
        while self._inside.keys() - {threading.get_ident()}:
            self._changed.wait()

    def open(self) -> None:
        """Let threads in again."""
        self._changed.release()


transactions = Gate()
"""Where every transaction of this process is."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=transactions.shut,
        after_in_parent=transactions.open,
        after_in_child=transactions.open,
    )
