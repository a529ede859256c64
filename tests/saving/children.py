"""Processes that are forked from a test, and what becomes of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

PATIENCE_S = 60


def in_a_child(work: Callable[[], object]) -> int:
    """Do something in a forked child; one that waits for ever is ended by a signal.

    Returns:
        0 if it returned, the number of the signal below 0 if one ended it, else 1.
    """
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_S)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
