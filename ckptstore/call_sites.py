"""Lines of users' code: where it called ckptstore, and for which line another thread works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

_HERE = str(Path(__file__).parent)


class CallSite(NamedTuple):
    """A line of the user's code."""

    filename: str
    line: int
    names: dict[str, Any]
    """The globals of its module, where Python notes which warnings it has shown."""

    def __str__(self) -> str:
        return f"{self.filename}:{self.line}"


_behalf_of: ContextVar[CallSite | None] = ContextVar("behalf_of", default=None)


def asked_for_at() -> CallSite | None:
    """Return on behalf of which line this thread works, None if of the one that called it."""
    return _behalf_of.get()


def call_site() -> CallSite:
    """Return the line of the user's code that called ckptstore, from however deep."""
    _, frame = outside()
    return CallSite(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


@contextmanager
def on_behalf_of(site: CallSite) -> Iterator[None]:
    """Warn at *site* of whatever is done in the block: another thread asked for it there."""
    before = _behalf_of.set(site)
    try:
        yield
    finally:
        _behalf_of.reset(before)


def outside() -> tuple[int, FrameType]:
    """Return the innermost frame that isn't ours, and its stacklevel for whoever called this."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - warnings.warn() counts frames, so must we
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        level, frame = level + 1, frame.f_back
    return level, frame
