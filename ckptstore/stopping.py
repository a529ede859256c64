"""How a training is to be stopped: what a guard may be told, and the signals it may watch for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from types import FrameType
from typing import Any

from ckptstore.errors import ArgumentError, GuardWarning, warn

LARGEST_CODE = 255
UNCATCHABLE = {getattr(signal, name) for name in ("SIGKILL", "SIGSTOP") if hasattr(signal, name)}

Handler = Callable[[int, FrameType | None], Any] | int


def check_entering(run: str, entered: Sequence[str]) -> None:
    """Refuse to enter a guard where it would not work.

    Args:
        run: Its run's name.
        entered: The names of the runs whose guards are in place.

    Raises:
        ArgumentError: There is one already, or this is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ArgumentError(
            "guard() was entered in a thread, and Python runs signal handlers in the main "
            "thread alone: enter it there; step() may be called anywhere"
        )
    if entered:
        raise ArgumentError(
            f"guard() of run {run!r} was entered while that of run {entered[0]!r} is in place: a "
            "signal ends one process, once; use that one, and save further runs before its step()"
        )


def check_step(run: str, *, was_entered: bool, still_heeds: bool) -> None:
    """Refuse a step of a guard that was never in place; warn if it is so no longer.

    Args:
        run: Its run's name.
        was_entered: Whether it was ever entered.
        still_heeds: Whether it is in place, or a signal came while it was.

    Raises:
        ArgumentError: It never was: nobody watches for signals.
    """
    if not was_entered:
        raise ArgumentError(
            f"step() of run {run!r}'s guard was called, and the guard was never entered, so nobody "
            "watches for signals: write `with run.guard() as guard:` around the loop"
        )
    if not still_heeds:
        warn(
            f"step() of run {run!r}'s guard was called after its block was left: nobody watches "
            "for signals any longer, so nothing is saved here; put the whole loop into the block",
            GuardWarning,
        )


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


def not_passed_on(number: int) -> str:
    """Say of an error that a signal had come before it, and was not passed on."""
    return (
        f"ckptstore: {name_of(number)} had come when this was raised. Nothing was saved, and the "
        "signal was not passed on, as that would have ended the process without a word"
    )


def name_of(number: int) -> str:
    """Return a signal's name, e.g. ``SIGTERM``."""
    return signal.Signals(number).name
