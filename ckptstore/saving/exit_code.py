"""A process that lost a save ends with another code than 0."""

from __future__ import annotations

import atexit
import io
import sys
from typing import Any, TextIO, cast

EXIT_CODE = 120
"""What Python itself ends with if "an error occurs in the cleanup" (see ``sys.exit``)."""


def end_as_failed() -> None:
    """Have this process end with :data:`EXIT_CODE`, once all is done that is done at exit.

    Python lets nobody choose the code of an exit that is under way, and to end the process here
    would take from others what they do later: ``atexit`` callbacks, files that are closed where
    their module is torn down, libraries in C. But it ends with that code if it can't flush stderr
    at the very end, and says nothing of it.

    A child that ``multiprocessing`` forked never gets there: its code stays what it is.
    """
    if not isinstance(sys.stderr, _Unflushed):
        sys.stderr = cast("TextIO", _Unflushed(sys.stderr))


class _Unflushed:
    """Standard error, as it is until Python itself flushes it at the end of a process."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = io.StringIO() if stream is None else stream
        self._is_over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def flush(self) -> None:
        self._stream.flush()
        if self._is_over:
            return
        try:
            sys._getframe(1)  # noqa: SLF001 - the only way to tell who calls
        except ValueError:  # not Python code; Python itself may also tell of a callback that failed
            if not atexit._ncallbacks():  # noqa: SLF001 - as above
                self._is_over = True
                raise OSError(f"a save was lost: this process ends with {EXIT_CODE}") from None
