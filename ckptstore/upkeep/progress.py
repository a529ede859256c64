"""How long work is told of."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None, str], object]
"""Called as ``progress(done, total, what)``: how much is done, how much there is in all or None
where that isn't known yet, and what is being done or what it is done to."""


def say_nothing(done: int, total: int | None, what: str) -> None:
    """Tell nobody."""
