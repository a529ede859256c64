"""A training that is told to stop saves at its next step boundary and exits."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ckptstore.errors import GuardWarning, StorageError, UnsupportedValueError, warn
from ckptstore.saving.on_full import impatient, may_be_repeated
from ckptstore.stopping import (
    Handler,
    check_entering,
    check_step,
    code,
    handler_of,
    known,
    not_passed_on,
    seconds,
)
from ckptstore.text import size
from ckptstore.workers import SIGNALS, heed_alone, is_starting_loader_worker

if TYPE_CHECKING:
    from ckptstore.run import Run
    from ckptstore.saving.leaner import Rung
    from ckptstore.saving.pending import Queue
    from ckptstore.saving.run_writer import LastSaved, RunWriter
    from ckptstore.state.ranks import Largest

Saved = TypeVar("Saved")

EXIT_CODE = 143
"""128 + SIGTERM: what shells, Slurm and Kubernetes show of a process that SIGTERM ended. It is not
0, as the training isn't complete: a Kubernetes Job that ends with 0 is never started again."""
DEADLINE = timedelta(seconds=30)
"""Kubernetes' grace period, Slurm's KillWait and Google's notice of preemption, by default."""

_active: list[Guard] = []


class Guard:
    """Watches for signals that ask a training to stop, as :meth:`ckptstore.run.Run.guard` has it.

    Entering the block installs handlers, which do nothing but take note; leaving it puts those back
    that were there. So it must be entered in the main thread, and only one at a time. Entered again
    later, it knows nothing of what came before.
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
        self._deadline_s = seconds(deadline)
        self._exit_code = code(exit_code)
        self._signals = known(signals)
        self._before: dict[int, Handler] = {}
        self._is_installed = False
        self._was_entered = False
        self._waiting = ExitStack()
        self._begin()

    def _begin(self) -> None:
        """Forget what came while this guard was in place before."""
        self._came: list[int] = []
        self._since_s: float | None = None
        """When the first signal came, to whichever rank, by this process's clock."""
        self._alone = False
        self._is_checked = False
        self._hurrying = False
        self._is_saving = False
        """Whether it saves, rather than the training."""
        self._giving_way = False
        """Whether the training itself saves: if that finds no room, less is tried at once."""
        self._noticed = False
        self._asked: Largest | None = None

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
        check_entering(self._run.name, [each.run_name for each in _active])
        self._before = {number: handler_of(number) for number in self._signals}
        self._begin()
        self._is_installed = self._was_entered = True
        try:
            for number in self._signals:
                signal.signal(number, self._take_note)
        except BaseException:
            self._put_back()
            raise
        _active.append(self)
        self._waiting.enter_context(impatient(self._waits_s))
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
        self._alone = self._is_checked = False  # so that a step() from now on is looked at
        if error is None and self._asked is not None:
            self._asked.result()
        if self._came and not self._noticed:
            # What is passed on may end the process, and with it what is still being saved.
            self._pending.wait(self._patience_s)
            self._pass_on(self._came[0], error)

    def _pass_on(self, number: int, error: BaseException | None) -> None:
        """Let a signal that nobody acted on do what it would have done without a guard."""
        if error is not None and self._before[number] is signal.SIG_DFL:
            # That would end the process here and now, and nobody would learn of the error.
            error.add_note(not_passed_on(number))
            return
        signal.raise_signal(number)

    def step(self, model: Any = None, optimizer: Any = None, **what: Any) -> None:
        """Mark a step boundary. If a signal came, save and exit; else do nothing.

        Where a save of this step was under way when the signal came, or was made since, it counts,
        and those in the background are waited for: what has the same ``epoch`` and ``step``, and
        every part given here, is not saved twice. Where no ``step`` is named, one in the background
        counts only if it was asked for after the signal: an epoch has many steps.

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
            self._check({"model": model, "optimizer": optimizer, **what})
        elapsed_s = self._agreed()
        if elapsed_s is None:
            return
        self._noticed = True
        self._save_together(elapsed_s, {"model": model, "optimizer": optimizer, **what})
        raise self._ended()

    def _check(self, what: Mapping[str, Any]) -> None:
        """Look once whether this guard is in place, and ``save`` will take what it is given."""
        from ckptstore.saving.checkpoint import check_given

        heeds = self in _active or bool(self._came)
        check_step(self._run.name, was_entered=self._was_entered, still_heeds=heeds)
        self._is_checked = True
        check_given(self._run.save, what)

    def _ended(self) -> SystemExit:
        """Call the handlers that were there before. Return what is to be raised then."""
        self._put_back()
        for number in dict.fromkeys(self._came):
            handler = self._before.get(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, sys._getframe())  # noqa: SLF001 - what a handler is given
        return SystemExit(self._exit_code)

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
        """Be no guard in a forked child: whoever ends that must not be kept from it.

        But a loader's worker works for this training until that has saved, and ends with it.
        """
        if is_starting_loader_worker():
            heed_alone(os.getppid(), self._signals)
        self._waiting.close()
        self._put_back()
        self._came.clear()
        self._since_s, self._alone = None, True

    def _waits_s(self) -> float:
        """Return how many seconds may still be waited for room."""
        gives_way = self._giving_way and bool(self._came)
        return 0.0 if self._hurrying or gives_way else self._left_s()

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
        from ckptstore.saving.leaner import first_that_fits, ladder
        from ckptstore.state.keywords import is_part

        self._is_saving = True
        self._settle_pending()
        parts = {
            name: value
            for name, value in what.items()
            if value is not None and (name in {"model", "extra"} or is_part(value))
        }
        since = self._saved_since(parts)
        if since is not None and self._is_of_here(since, what.get("epoch"), what.get("step")):
            return
        rungs = ladder(parts)
        left_s = self._left_s()
        place = first_that_fits(rungs, left_s, self._writer.pace.estimate_s)
        if place and since is not None:
            ref = since.head.ref
            self._tell(rungs[0], left_s, f"nothing more was saved than {ref}, just before")
            return
        self._save_what_fits(what, rungs, place, left_s)

    def _settle_pending(self) -> None:
        """Wait for saves in the background; those that find no room make way for less."""
        self._hurrying = self._deadline_s is not None
        self._pending.wait(self._patience_s)
        self._hurrying = False
        for job in self._pending.take_failures():
            warn(f"{job.told()}, and what there is now is saved: {job.error}", GuardWarning)

    def _save_what_fits(
        self, what: Mapping[str, Any], rungs: Sequence[Rung], place: int, left_s: float
    ) -> None:
        import torch

        from ckptstore.saving.leaner import less_of

        before = self._writer.last_saved
        for index, rung in enumerate(rungs[place:], start=place):
            self._hurrying = self._deadline_s is not None and index + 1 < len(rungs)
            try:
                saved = self._run._without(rung.left_out).save(**less_of(what, rung))  # noqa: SLF001 - as above
            except StorageError as error:
                if self._is_there(before, error):
                    return
                if not self._hurrying or not may_be_repeated(error):
                    raise  # else less may find room
            except (MemoryError, torch.OutOfMemoryError, UnsupportedValueError):
                if not self._hurrying:
                    raise  # else less may do without the memory, or without that value
            else:
                if index:
                    self._tell(rungs[0], left_s, f"{rung.said} was saved, as {saved.ref}")
                return

    @property
    def _patience_s(self) -> float | None:
        """How long to wait for what ends by itself, None for as long as it takes."""
        left_s = self._left_s()
        return None if left_s == float("inf") else max(left_s, 0.0)

    @property
    def _pending(self) -> Queue:
        return self._run._store._pending  # noqa: SLF001 - a guard is part of its run

    @property
    def _writer(self) -> RunWriter:
        return self._run._store._writer(self._run.name)  # noqa: SLF001 - a guard is part of its run

    def _saved_since(self, parts: Collection[str]) -> LastSaved | None:
        """Return the checkpoint that was committed last, if after the signal and with all parts."""
        last = self._writer.last_saved
        if last is None or self._since_s is None or last.at_s <= self._since_s:
            return None
        return last if set(parts) <= {each.name for each in last.head.parts} else None

    def _is_of_here(self, last: LastSaved, epoch: object, step: object) -> bool:
        """Say whether a version has the state at this step boundary.

        An epoch has many steps. So where no step is named, one that was asked for before the signal
        and made in the background meanwhile may lack what was trained since.
        """
        if (epoch, step) == (None, None) or (last.head.epoch, last.head.step) != (epoch, step):
            return False
        return step is not None or self._since_s is None or last.as_of_s > self._since_s

    def _let_save(self, save: Callable[[], Saved], what: dict[str, Any]) -> Saved:
        """Let the training save; if a signal came and there is no room, save less of it and exit.

        Raises:
            SystemExit: A signal came while there was no room, and less was saved.
            CkptStoreError: As ``save`` says.
        """
        self._giving_way, before = True, self._writer.last_saved
        try:
            return save()
        except StorageError as error:
            if not self._came or not may_be_repeated(error):
                raise
            full = error
        finally:
            self._giving_way = False
        self._noticed = True
        if not self._is_there(before, full):
            self._save(what)
        raise self._ended()

    def _is_there(self, before: LastSaved | None, error: StorageError) -> bool:
        """Say whether a save that found no room has made its version nevertheless, and tell."""
        last = self._writer.last_saved
        if last is None or last is before:
            return False
        warn(
            f"{last.head.ref} is saved; only then was there no room: {error}",
            GuardWarning,
        )
        return True

    def _tell(self, whole: Rung, left_s: float, done: str) -> None:
        warn(
            f"run {self._run.name!r} was told to stop, with {max(left_s, 0.0):.0f} s left, and "
            f"{whole.said} ({size(whole.size_bytes)}) might take longer, can't be kept or found no "
            f"room: {done}",
            GuardWarning,
        )


def let_save(writer: RunWriter, save: Callable[[], Saved], what: dict[str, Any]) -> Saved:
    """Do what a training's ``save`` does, under the guard of its run if there is one in place.

    Args:
        writer: The run that it saves into.
        save: Saves all of it.
        what: What ``save`` was called with, by keyword.
    """
    for guard in _active:
        is_others = guard._is_saving or guard._writer is not writer  # noqa: SLF001 - this module's own class
        if not is_others and threading.current_thread() is threading.main_thread():
            return guard._let_save(save, what)  # noqa: SLF001 - as above
    return save()


def _leave_guards_to_parent() -> None:
    for guard in _active:
        guard._leave_to_parent()  # noqa: SLF001 - this module's own class
    _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_guards_to_parent)
