"""A loader's worker outlives a signal to all of a training's processes, as its guard does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from ckptstore.errors import GuardWarning, warn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""What schedulers and clouds send; Windows has no SIGUSR1."""
WAITING = "ckptstore signals"
"""What :func:`heed_alone` calls its threads."""
# How many calls lie at most between a process's start and its fork.
NEAR = 16


def leave_to_guard(worker_id: int = 0) -> None:  # noqa: ARG001 - what a worker_init_fn is given
    """Let a loader's worker go on when its whole process group is told to stop.

    ::

        loader = DataLoader(
            dataset, num_workers=4, multiprocessing_context="spawn", worker_init_fn=leave_to_guard
        )

    SIGTERM and SIGUSR1 end the worker only if its own process sends them, as a loader does at its
    end, or once that process is gone. For workers that are forked while a guard is in place this is
    done by itself; this is for those that are spawned, or were forked before. Call it in the
    worker. Where the system doesn't tell who sent a signal (macOS, Windows) nothing is done.

    A thread that runs already goes on taking signals, and nobody can tell it not to. NumPy starts
    some when it is imported, unless OMP_NUM_THREADS=1 is in the environment; if there are any,
    there is a :class:`~ckptstore.errors.GuardWarning`.

    Args:
        worker_id: Ignored; what a ``worker_init_fn`` is given.
    """
    started_by = multiprocessing.parent_process()  # with "forkserver" not who forked it
    heedless = other_threads_that_take(SIGNALS)
    heed_alone(os.getppid() if started_by is None else started_by.pid or 0, SIGNALS)
    if heedless:
        warn(
            f"leave_to_guard(): {heedless} of this worker's threads, begun before it was called, "
            "still take signals, so one to the whole process group ends the worker, and its "
            "training before anything is saved: set OMP_NUM_THREADS=1 in the environment of "
            "the training, or fork the workers",
            GuardWarning,
        )


def heed_alone(parent: int, numbers: Iterable[int]) -> None:
    """Let signals end this process only if *parent* sends them, or whoever forked it is gone."""
    if not hasattr(signal, "sigwaitinfo"):
        return
    # PyTorch gives its workers handlers of its own, after this if they are forked. So the signals
    # are kept from any handler: blocked ones reach only who waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, set(numbers))
    threading.Thread(
        target=_wait,
        args=(set(numbers), parent, os.getppid()),
        name=WAITING,
        daemon=True,
    ).start()


def other_threads_that_take(numbers: Iterable[int]) -> int:
    """Return how many threads but this one have one of these signals not blocked.

    Linux tells (``SigBlk`` in proc(5)); 0 elsewhere. Those of :func:`heed_alone` don't count.
    """
    # While a thread waits for signals, Linux shows them as not blocked there.
    ours = {each.native_id for each in threading.enumerate() if each.name == WAITING}
    ours.add(threading.get_native_id())
    wanted = sum(1 << (number - 1) for number in numbers)
    found = 0
    for status in Path("/proc/self/task").glob("*/status"):
        if int(status.parent.name) in ours:
            continue
        try:
            blocked = int(status.read_text().partition("SigBlk:")[2].split(maxsplit=1)[0], 16)
        except OSError:
            continue  # it has ended meanwhile
        found += blocked & wanted != wanted
    return found


def _wait(numbers: set[int], parent: int, forked_by: int) -> None:
    while True:
        came = signal.sigwaitinfo(numbers)
        if came.si_pid == parent or os.getppid() != forked_by:
            os._exit(0)  # as PyTorch's own handler does


def is_starting_loader_worker() -> bool:
    """Say whether this process was forked right now, to be a worker of PyTorch's ``DataLoader``."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - nothing else says what it will be
    for _ in range(NEAR):
        if frame is None:
            return False
        target: Any = getattr(frame.f_locals.get("process_obj"), "_target", None)
        if target is not None:
            found = getattr(target, "__module__", None), getattr(target, "__name__", None)
            return found == ("torch.utils.data._utils.worker", "_worker_loop")
        frame = frame.f_back
    return False
