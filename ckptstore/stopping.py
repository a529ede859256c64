"""How a training is to be stopped: what a guard may be told, and the signals it may watch for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import FrameType
from typing import Any

from ckptstore.errors import ArgumentError

LARGEST_CODE = 255
UNCATCHABLE = {getattr(signal, name) for name in ("SIGKILL", "SIGSTOP") if hasattr(signal, name)}

Handler = Callable[[int, FrameType | None], Any] | int


def handler_of(number: int) -> Handler:
    """Return a signal's handler, to be put back.

    Raises:
        ArgumentError: It is none of Python's, which Python can't put back.
    """
    handler = signal.getsignal(number)
    if handler is None:
        raise ArgumentError(
            f"guard(): {name_of(number)} has a handler that was not installed by Python, so it "
            "could not be put back: leave that signal out (signals=), or enter the guard earlier"
        )
    return handler


def seconds(deadline: object) -> float | None:
    """Return a deadline in seconds, None for none.

    Raises:
        ArgumentError: It is no time above 0.
    """
    if deadline is None:
        return None
    if not isinstance(deadline, timedelta) or deadline <= timedelta(0):
        raise ArgumentError(
            f"guard(deadline={deadline!r}): takes a timedelta above 0, as timedelta(seconds=30): "
            "how long after the signal the process may still run; None if for ever"
        )
    return deadline.total_seconds()


def code(exit_code: object) -> int:
    """Return an exit code checked.

    Raises:
        ArgumentError: A process can't end with it.
    """
    if isinstance(exit_code, bool) or not isinstance(exit_code, int):
        raise ArgumentError(f"guard(exit_code={exit_code!r}): takes a whole number from 0 to 255")
    if not 0 <= exit_code <= LARGEST_CODE:
        raise ArgumentError(f"guard(exit_code={exit_code}): takes a whole number from 0 to 255")
    return exit_code


def known(signals: Iterable[int]) -> tuple[int, ...]:
    """Return signals checked, each once.

    Raises:
        ArgumentError: There is none, or one that can't be watched for.
    """
    valid = signal.valid_signals() - UNCATCHABLE
    numbers = tuple(dict.fromkeys(signals))
    wrong = [each for each in numbers if each not in valid]
    if wrong or not numbers:
        raise ArgumentError(
            f"guard(signals=…): {', '.join(map(repr, wrong)) or 'nothing'} can't be watched for on "
            "this system; take signals such as signal.SIGTERM"
        )
    return numbers


def name_of(number: int) -> str:
    """Return a signal's name, e.g. ``SIGTERM``."""
    return signal.Signals(number).name
