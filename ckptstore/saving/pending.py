"""Saves that go on while the training does: one store's queue, and the thread that works it off.

The thread lives while there is work, and is no daemon: a process ends once all is saved, or Ctrl-C
says that it shall not. A failure is told once: to whoever asks for the result, else to the next
save of the store, else to whoever waits for it or closes it, else at the interpreter's exit.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - what it does at exit must come after ours: see below
import os
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, Literal

from ckptstore.errors import (
    ArgumentError,
    StillPendingError,
    UsageError,
)
from ckptstore.saving.exit_code import end_as_failed
from ckptstore.saving.job import Job

WhenBusy = Literal["wait", "skip"]
POLICIES: tuple[WhenBusy, ...] = ("wait", "skip")

# After so long at the interpreter's exit a word says what it waits for, and again each minute.
PATIENCE_S = 5.0
REMIND_S = 60.0
# After so long a word says that an error waits for them.
WORD_S = 1.0

NOT_BEGUN = "this call has not begun"

_this_thread = threading.local()
_queues: weakref.WeakSet[Queue] = weakref.WeakSet()
_unsettled: set[Queue] = set()
"""Queues with work or with failures that nobody was told of: they must not be forgotten."""
_has_ended = False
"""Whether the interpreter's exit has waited for all: whatever comes now is saved at once."""


class Queue:
    """The saves of one store that are under way, worked off in the order in which they came.

    Args:
        url: Where the store is; readers of that place wait for it.
        max_pending: How many may be under way.
        when_busy: Whether one too many waits or is skipped.
        staging_bytes: How much memory they may hold together; None means any amount.

    Raises:
        ArgumentError: One of them can't be.
    """

    def __init__(
        self,
        url: str,
        *,
        max_pending: int = 1,
        when_busy: WhenBusy = "wait",
        staging_bytes: int | None = None,
    ) -> None:
        if not _is_whole(max_pending, least=1):
            raise ArgumentError(f"max_pending={max_pending!r:.80}: takes a whole number from 1")
        if when_busy not in POLICIES:
            raise ArgumentError(
                f"when_busy={when_busy!r:.80}: takes 'wait' (until an earlier save is done) or "
                "'skip' (that save)"
            )
        if staging_bytes is not None and not _is_whole(staging_bytes, least=0):
            raise ArgumentError(f"staging_bytes={staging_bytes!r:.80}: takes bytes, or None")
        self.url = url
        self._max_pending = max_pending
        self._skips = when_busy == "skip"
        self.staging_bytes = staging_bytes
        self._begin()
        _queues.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._failed: list[Job] = []
        self._entered = 0
        self._held_bytes = 0
        self._worker: threading.Thread | None = None

    # ------------------------------------------------------------ from the saving thread

    def enter(self) -> bool:
        """Take one of the places; :meth:`put` or :meth:`leave` must follow.

        Returns:
            False if there is none and whoever is too many is skipped.
        """
        self._see_to_it()
        with self._changed:
            if self._skips and self._entered >= self._max_pending:
                return False
            self._changed.wait_for(lambda: self._entered < self._max_pending)
            self._entered += 1
            return True

    def leave(self, size_bytes: int = 0) -> None:
        """Give a place back, and what was reserved, as nothing comes of it."""
        with self._changed:
            self._entered -= 1
            self._held_bytes -= size_bytes
            self._changed.notify_all()

    def reserve(self, size_bytes: int) -> bool:
        """Take so much of the memory there may be.

        Returns:
            False if there is too little just now and whoever is too much is skipped.
        """
        self._see_to_it()
        with self._changed:
            if self._skips and not self._has_room(size_bytes):
                return False
            self._changed.wait_for(lambda: self._has_room(size_bytes))
            self._held_bytes += size_bytes
            return True

    def _has_room(self, size_bytes: int) -> bool:
        return self.staging_bytes is None or self._held_bytes + size_bytes <= self.staging_bytes

    def put(self, job: Job) -> None:
        """Have a save made that has a place; its memory was reserved."""
        with self._changed:
            self._jobs.append(job)
            _unsettled.add(self)
        self._see_to_it()
        if _has_ended:
            self.raise_failures("nobody would be told later, as this process ends")

    def _see_to_it(self) -> None:
        """Have a thread make what is to be made; without one this thread makes it.

        Each that waits calls it too: an interrupt that comes while the thread is being started may
        have left none. If it left two, the second finds the work taken and ends.
        """
        if not self._jobs or self._worker is not None:
            return
        if not _has_ended:
            with suppress(RuntimeError):  # the system has no more threads
                threading.Thread(target=self._work_off, name="ckptstore save").start()
                return
        self._work_off()

    def raise_failure(self) -> None:
        """Raise the failure that came first of those that nobody was told of, if there is one."""
        with self._changed:
            failed = self._failed[:1]
            self._forget(failed)
        self._raise(failed, NOT_BEGUN)

    def settle(self) -> None:
        """Wait for all saves at this place, then raise what nobody was told of.

        Raises:
            BaseException: As :meth:`raise_failures`.
        """
        wait_for(self.url)
        self.raise_failures(NOT_BEGUN)

    def raise_failures(self, why: str = "") -> None:
        """Raise what nobody was told of.

        Args:
            why: Said of the first.

        Raises:
            BaseException: The first failure; the others stand in its notes.
        """
        self._raise(self.take_failures(), why)

    # ------------------------------------------------------------ from any thread

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the saves that are under way now. An interrupt ends the waiting, not the saves.

        Returns:
            Whether all of them are done.
        """
        self._see_to_it()
        with self._changed:
            if not self._jobs:
                return True
            last = self._jobs[-1]
            return self._changed.wait_for(lambda: last.is_done, timeout_s)

    def wait_beside(self, error: BaseException) -> bool:
        """Wait as :meth:`wait`, while an error is on its way; say so where it takes a while.

        Returns:
            Whether all are done. An interrupt ends the waiting and is a note of *error*: what was
            raised first is what is to be seen.
        """
        try:
            if self.wait(WORD_S):
                return True
            _say(
                f"{type(error).__name__} ({error!s:.200}) ends the block of the store at "
                f"{self.url}; it is raised once {self.count} save(s) are made. Ctrl-C raises it now"
            )
            return self.wait()
        except KeyboardInterrupt:
            error.add_note(f"ckptstore: interrupted; {self.count} save(s) into {self.url} go on")
            return False

    def wait_for(self, job: Job, timeout_s: float | None = None) -> bool:
        """Wait for one save; say whether it is done."""
        self._see_to_it()
        with self._changed:
            return self._changed.wait_for(lambda: job.is_done, timeout_s)

    def result(self, job: Job, timeout_s: float | None = None) -> Any:
        """Return what a save made.

        Raises:
            UsageError: It is the parent's of this process.
            StillPendingError: It isn't done yet.
            BaseException: Whatever it failed with; nobody else is told then.
        """
        if job.is_elsewhere:
            raise UsageError(f"{job.what} is the parent's of this forked process: ask there")
        if not self.wait_for(job, timeout_s):
            raise StillPendingError(
                f"{job.what} isn't done after {timeout_s} s; it goes on, ask again"
            )
        error = job.noted()
        if error is not None:
            with self._changed:
                self._forget([job])
            raise error
        return job.result

    def was_told(self, job: Job, error: BaseException) -> None:
        """Tell nobody else of an error that a save fails with, or will."""
        with self._changed:
            job.told_error = error
            if job.error is error:
                self._forget([job])

    def take_failures(self) -> list[Job]:
        """Return the saves that failed and that nobody was told of; whoever calls this tells."""
        with self._changed:
            failed = list(self._failed)
            self._forget(failed)
            return failed

    @property
    def count(self) -> int:
        """How many saves are under way."""
        return len(self._jobs)

    # ------------------------------------------------------------ how

    def _work_off(self) -> None:
        me = threading.current_thread()
        with self._changed:
            if self._worker is not None:
                return
            self._worker = me
        _this_thread.is_worker = True
        try:
            while True:
                with self._changed:
                    if not self._jobs:
                        self._worker = None
                        return
                    job = self._jobs[0]
                job.do()
                self._finish(job)
        finally:
            _this_thread.is_worker = False
            if self._worker is me:
                self._worker = None

    def _finish(self, job: Job) -> None:
        with self._changed:
            self._jobs.popleft()
            self._entered -= 1
            self._held_bytes -= job.size_bytes
            if job.error is not None and job.error is not job.told_error:
                self._failed.append(job)
            elif not self._jobs and not self._failed:
                _unsettled.discard(self)
            job.is_done = True
            self._changed.notify_all()

    def _forget(self, failed: list[Job]) -> None:
        self._failed = [job for job in self._failed if job not in failed]
        if not self._jobs and not self._failed:
            _unsettled.discard(self)

    @staticmethod
    def _raise(failed: list[Job], why: str) -> None:
        if not failed:
            return
        first, *others = failed
        too = "".join(f"\n{job.told()} too: {job.error}" for job in others)
        error = first.noted((f"; {why}" if why else "") + too)
        if error is not None:
            raise error

    def _leave_to_parent(self) -> None:
        """Have none of the parent's saves in a forked child: they are made there."""
        jobs = [*self._jobs]
        self._begin()
        for job in jobs:
            job.is_elsewhere = True


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_worker() -> bool:
    """Say whether this thread is one that makes saves: it must wait for none."""
    return getattr(_this_thread, "is_worker", False)


def wait_for(url: str) -> None:
    """Wait until the saves at a place that are under way now are done, whichever store's they are.

    In a thread that makes saves nothing is waited for.
    """
    if is_worker():
        return
    for queue in list(_unsettled):
        if queue.url == url or _folder(queue.url) == _folder(url):
            queue.wait()


def _folder(url: str) -> str:
    """Return what a folder is called behind all links; a bucket has one name."""
    return url if "://" in url else os.path.realpath(url)


# ---------------------------------------------------------------- exit and fork


def _wait_at_exit() -> None:
    global _has_ended  # noqa: PLW0603 - a process ends once
    begun, told = time.monotonic(), PATIENCE_S
    try:
        for queue in list(_unsettled):
            while not queue.wait(1.0):
                waited_s = time.monotonic() - begun
                if waited_s >= told:
                    told = waited_s + REMIND_S
                    _say(
                        f"this process ends once {queue.count} save(s) into {queue.url} are made; "
                        f"it has waited for {waited_s:.0f} s. Ctrl-C gives up what isn't saved yet"
                    )
    except KeyboardInterrupt:
        left = {queue.url: queue.count for queue in _unsettled if queue.count}
        _say(f"interrupted at exit; not saved: {left}")
        end_as_failed()
        raise
    finally:
        _has_ended = True
        for queue in list(_unsettled):
            for job in queue.take_failures():
                error = job.noted()
                if error is not None:
                    sys.excepthook(type(error), error, error.__traceback__)
                    end_as_failed()


def _say(message: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"ckptstore: {message}\n")
        sys.stderr.flush()


def _leave_saves_to_parent() -> None:
    for queue in list(_queues):
        queue._leave_to_parent()  # noqa: SLF001 - this module's own class
    _unsettled.clear()
    _this_thread.is_worker = False


# What is registered last is called first: when this waits, the pools that saves use (and fsspec's
# loop, which lives until the very end) must not have been closed by concurrent.futures.thread. An
# atexit callback would come too late.
try:
    getattr(threading, "_register_atexit", atexit.register)(_wait_at_exit)
except RuntimeError:  # imported while the interpreter ends
    _has_ended = True

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_saves_to_parent)
