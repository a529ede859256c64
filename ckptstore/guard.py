"""A training that is told to stop saves at its next step boundary and exits."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from ckptstore.errors import (
    ArgumentError,
    GuardWarning,
    StorageError,
    UnsupportedValueError,
    warn,
)
from ckptstore.format.manifest import Head
from ckptstore.saving.on_full import impatient, may_be_repeated
from ckptstore.text import size

if TYPE_CHECKING:
    from ckptstore.run import Run
    from ckptstore.saving.leaner import Rung
    from ckptstore.state.ranks import Largest

EXIT_CODE = 143
"""128 + SIGTERM: what shells, Slurm and Kubernetes show of a process that SIGTERM ended. It is not
0, as the training isn't complete: a Kubernetes Job that ends with 0 is never started again."""
DEADLINE = timedelta(seconds=30)
"""Kubernetes' grace period, Slurm's KillWait and Google's notice of preemption, by default."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What schedulers and clouds send; Windows has no SIGUSR1."""
LARGEST_CODE = 255

Handler = Callable[[int, FrameType | None], Any] | int
_active: list[Guard] = []


class Guard:
    """Watches for signals that ask a training to stop, as :meth:`ckptstore.run.Run.guard` has it.

    Entering the block installs handlers, which do nothing but take note; leaving it puts those back
    that were there. So it must be entered in the main thread, and only one at a time.
    """

    def __init__(
        self,
        run: Run,
        *,
        deadline: timedelta | None = DEADLINE,
        exit_code: int = EXIT_CODE,
        signals: Iterable[int] = SIGNALS,
    ) -> None:
        self._run = run
        self._deadline_s = _seconds(deadline)
        self._exit_code = _code(exit_code)
        self._signals = _known(signals)
        self._before: dict[int, Handler] = {}
        self._is_installed = False
        self._came: list[int] = []
        self._since_s: float | None = None
        """When the first signal came, to whichever rank, by this process's clock."""
        self._alone = False
        self._is_checked = False
        self._hurrying = False
        self._noticed = False
        self._asked: Largest | None = None
        self._waiting = ExitStack()

    @property
    def run_name(self) -> str:
        """The run that it saves into."""
        return self._run.name

    @property
    def stopping(self) -> bool:
        """Whether a signal came to this process. For loops that act on it themselves.

        Once it was True, whoever asked is taken to act on it, and leaving the block passes the
        signal on to nobody. In a process group it may be True on one rank alone.
        """
        self._noticed = self._noticed or bool(self._came)
        return bool(self._came)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise ArgumentError(
                "guard() was entered in a thread, and Python runs signal handlers in the main "
                "thread alone: enter it there; step() may be called anywhere"
            )
        if _active:
            raise ArgumentError(
                f"guard() of run {self._run.name!r} was entered while that of run "
                f"{_active[0].run_name!r} is in place: a signal ends one process, once; use that "
                "one, and save further runs before its step()"
            )
        self._before = {number: _handler(number) for number in self._signals}
        self._is_installed = True
        try:
            for number in self._signals:
                signal.signal(number, self._take_note)
        except BaseException:
            self._put_back()
            raise
        _active.append(self)
        self._waiting.enter_context(impatient(self._is_over))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self not in _active:  # in a child, or left already
            return
        self._waiting.close()
        self._put_back()
        _active.remove(self)
        if error is None:
            if self._asked is not None:
                self._asked.result()
            if self._came and not self._noticed:
                # Nobody acted on it: let it do what it would have done without a guard.
                signal.raise_signal(self._came[0])

    def step(self, model: Any = None, optimizer: Any = None, **what: Any) -> None:
        """Mark a step boundary. If a signal came, save and exit; else do nothing.

        Where a save of this step was under way when the signal came, or was made since, it counts:
        what has the same ``epoch`` and ``step`` is not saved twice.

        In a process group every rank must call this equally often. All learn of a signal that came
        to one of them, rank 0 saves, and all exit at the same step.

        The first call looks whether ``save`` will take what it is given: not when the signal comes.

        Args:
            model: As for ``save``.
            optimizer: As for ``save``.
            **what: All that ``save`` takes.

        Raises:
            UsageError: Something is no part, metric or option, or can't be kept.
            SystemExit: A signal came, and all is saved that could be.
            CkptStoreError: A signal came, and saving failed, as ``save`` says.
        """
        if self._alone and not self._came:
            return
        if not self._is_checked:
            self._is_checked = True
            _check(self._run, {"model": model, "optimizer": optimizer, **what})
        elapsed_s = self._agreed()
        if elapsed_s is None:
            return
        self._noticed = True
        self._save_together(elapsed_s, {"model": model, "optimizer": optimizer, **what})
        self._put_back()
        for number in dict.fromkeys(self._came):
            handler = self._before.get(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, sys._getframe())  # noqa: SLF001 - what a handler is given
        raise SystemExit(self._exit_code)

    # ------------------------------------------------------------ signals

    def _take_note(self, number: int, _: FrameType | None) -> None:
        if self._since_s is None:
            self._since_s = time.monotonic()
        self._came.append(number)

    def _put_back(self) -> None:
        if self._is_installed:
            self._is_installed = False
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _leave_to_parent(self) -> None:
        """Be no guard in a forked child: whoever ends that must not be kept from it."""
        self._waiting.close()
        self._put_back()
        self._came.clear()
        self._since_s, self._alone = None, True

    def _is_over(self) -> bool:
        """Say whether nobody is to wait for room any longer."""
        return self._hurrying or self._left_s() <= 0

    def _left_s(self) -> float:
        if self._deadline_s is None or self._since_s is None:
            return float("inf")
        return self._deadline_s - (time.monotonic() - self._since_s)

    # ------------------------------------------------------------ ranks

    def _agreed(self) -> float | None:
        """Return how many seconds ago the first rank got a signal, None if none did.

        Each call asks, and learns what was asked at the call before: so no rank waits for another.
        """
        from ckptstore.state.ranks import Largest, are_several

        mine_s = None if self._since_s is None else time.monotonic() - self._since_s
        if not are_several():
            self._alone = True
            return mine_s
        before, self._asked = self._asked, Largest(0 if mine_s is None else 1 + int(mine_s * 1000))
        if before is None or not before.result():
            return None
        latest, self._asked = self._asked.result(), None  # every rank has asked, and stops here
        return (latest - 1) / 1000

    def _save_together(self, elapsed_s: float, what: dict[str, Any]) -> None:
        from ckptstore.state.environment import rank
        from ckptstore.state.ranks import are_several, from_rank_zero

        self._since_s = time.monotonic() - elapsed_s  # another rank may have got it earlier
        if not are_several():
            self._save(what)
            return
        if rank() == 0:
            is_saved = False
            try:
                self._save(what)
                is_saved = True
            finally:  # whatever became of it, the others wait to hear
                from_rank_zero(int(is_saved))
        elif not from_rank_zero(0):
            raise StorageError(
                f"run {self._run.name!r}: a signal came and rank 0 could not save; see its error"
            )

    # ------------------------------------------------------------ saving

    def _save(self, what: dict[str, Any]) -> None:
        """Save as much as there is time for, unless this very step was saved since the signal."""
        import torch

        from ckptstore.saving.leaner import first_that_fits, ladder
        from ckptstore.state.keywords import is_part

        since = self._saved_since()
        if since is not None and (since.epoch, since.step) == (what.get("epoch"), what.get("step")):
            return
        writer = self._run._store._writer(self._run.name)  # noqa: SLF001 - a guard is part of its run
        parts = {
            name: value
            for name, value in what.items()
            if value is not None and (name in {"model", "extra"} or is_part(value))
        }
        rungs = ladder(parts)
        left_s = self._left_s()
        place = first_that_fits(rungs, left_s, writer.pace.estimate_s)
        if place and since is not None:
            self._tell(rungs[0], left_s, f"nothing more was saved than {since.ref}, just before")
            return
        for index, rung in enumerate(rungs[place:], start=place):
            self._hurrying = self._deadline_s is not None and index + 1 < len(rungs)
            try:
                saved = self._run._without(rung.left_out).save(**_less(what, rung))  # noqa: SLF001 - as above
            except StorageError as error:
                if not self._hurrying or not may_be_repeated(error):
                    raise  # else less may find room
            except (MemoryError, torch.OutOfMemoryError, UnsupportedValueError):
                if not self._hurrying:
                    raise  # else less may do without the memory, or without that value
            else:
                if index:
                    self._tell(rungs[0], left_s, f"{rung.said} was saved, as {saved.ref}")
                return

    def _saved_since(self) -> Head | None:
        """Return the checkpoint of this run that was committed last, if after the signal."""
        last = self._run._store._writer(self._run.name).last_saved  # noqa: SLF001 - as above
        if last is None or self._since_s is None or last.at_s <= self._since_s:
            return None
        return last.head

    def _tell(self, whole: Rung, left_s: float, done: str) -> None:
        warn(
            f"run {self._run.name!r} was told to stop, with {left_s:.0f} s left, and {whole.said} "
            f"({size(whole.size_bytes)}) might take longer, can't be kept or found no room: {done}",
            GuardWarning,
        )


def _check(run: Run, what: Mapping[str, Any]) -> None:
    """Refuse what ``save`` would refuse.

    Raises:
        UsageError: As ``save`` says.
    """
    from ckptstore.saving.capture import capture
    from ckptstore.state.keywords import check_model, check_optimizer, sort

    options = inspect.signature(run.save).parameters
    parts, _ = sort({name: each for name, each in what.items() if name not in options})
    if (model := what.get("model")) is not None:
        check_model(model)
        parts["model"] = model
    if (optimizer := what.get("optimizer")) is not None:
        check_optimizer(optimizer)
        parts["optimizer"] = optimizer
    capture(parts, what.get("model_config"))


def _less(what: Mapping[str, Any], rung: Rung) -> dict[str, Any]:
    """Return what to hand to ``save`` instead of *what*."""
    import torch

    less = {name: each for name, each in what.items() if name not in rung.left_out}
    dtypes = dict(what.get("dtype") or {})
    if rung.narrowed or dtypes:
        narrowed = dict.fromkeys(rung.narrowed, torch.bfloat16) | dtypes
        less["dtype"] = {name: each for name, each in narrowed.items() if name not in rung.left_out}
    return less


def _leave_guards_to_parent() -> None:
    for guard in _active:
        guard._leave_to_parent()  # noqa: SLF001 - this module's own class
    _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_guards_to_parent)


def _handler(number: int) -> Handler:
    """Return a signal's handler, to be put back.

    Raises:
        ArgumentError: It is none of Python's, which Python can't put back.
    """
    handler = signal.getsignal(number)
    if handler is None:
        raise ArgumentError(
            f"guard(): {_name(number)} has a handler that was not installed by Python, so it could "
            "not be put back: leave that signal out (signals=), or enter the guard earlier"
        )
    return handler


def _seconds(deadline: object) -> float | None:
    if deadline is None:
        return None
    if not isinstance(deadline, timedelta) or deadline <= timedelta(0):
        raise ArgumentError(
            f"guard(deadline={deadline!r}): takes a timedelta above 0, as timedelta(seconds=30): "
            "how long after the signal the process may still run; None if for ever"
        )
    return deadline.total_seconds()


def _code(exit_code: object) -> int:
    if isinstance(exit_code, bool) or not isinstance(exit_code, int):
        raise ArgumentError(f"guard(exit_code={exit_code!r}): takes a whole number from 0 to 255")
    if not 0 <= exit_code <= LARGEST_CODE:
        raise ArgumentError(f"guard(exit_code={exit_code}): takes a whole number from 0 to 255")
    return exit_code


def _known(signals: Iterable[int]) -> tuple[int, ...]:
    valid = signal.valid_signals() - _UNCATCHABLE
    numbers = tuple(dict.fromkeys(signals))
    wrong = [each for each in numbers if each not in valid]
    if wrong or not numbers:
        raise ArgumentError(
            f"guard(signals=…): {', '.join(map(repr, wrong)) or 'nothing'} can't be watched for on "
            "this system; take signals such as signal.SIGTERM"
        )
    return numbers


_UNCATCHABLE = {getattr(signal, name) for name in ("SIGKILL", "SIGSTOP") if hasattr(signal, name)}


def _name(number: int) -> str:
    return signal.Signals(number).name
