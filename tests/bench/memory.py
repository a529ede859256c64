"""How much a process grows while it does something."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch.optim import Optimizer

from . import savers, state
from .blocking import OURS, TORCH, OursBlocking, TorchSave
from .questions import Question, Target
from .savers import Saver

INTERVAL_S = 0.001
SAVES = 20
"""Saves in a row in the background whose memory is looked at; of the others' as many as FEW."""
FEW = 3
ALLOWED_BYTES = 64 * 2**20


def grown(folder: Path, size: state.Size) -> Question:
    """Look at what a process grows by while it saves."""
    folder.mkdir()
    model, optimizer = state.make(size)
    held = state.size_bytes(state.flat(model, optimizer).values())
    measured: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    kinds: dict[str, type[Saver]] = {OURS: OursBlocking, TORCH: TorchSave}
    for name, kind in (kinds | savers.OURS | savers.PEERS).items():
        saves = SAVES if name in savers.OURS else FEW
        place = folder / kind.__name__
        try:
            peak = peak_bytes(partial(saved, kind, place, model, optimizer, saves))
        except Exception as error:
            if name.startswith("ckptstore"):
                raise
            absent[name] = savers.reason(error)
        else:
            measured[name] = [float(peak)]
    shutil.rmtree(folder)
    return Question(
        key=f"memory-{size.slug}",
        title=f"Memory that saves of {size.name} take",
        asks=(
            "What the process grows by at most, sampled each millisecond, while it saves and "
            f"steps: ckptstore's in the background {SAVES} times, the others {FEW} times. What a "
            "process beside it takes for itself isn't in it."
        ),
        measured=measured,
        ours=(OURS, *savers.OURS),
        targets=tuple(Target(name, held + ALLOWED_BYTES) for name in savers.OURS),
        absent=absent,
        unit="B",
        remarks=(f"The state itself is {held / 1e9:.3g} GB.",),
    )


def saved(
    kind: type[Saver], folder: Path, model: state.Transformer, optimizer: Optimizer, saves: int
) -> None:
    """Save so many times, a step after each."""
    saver = kind(folder, model, optimizer)
    for _ in range(saves):
        savers.once(saver)
        state.step(model, optimizer)
    saver.close()


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much memory of its own this process takes more while *work* runs, at most.

    Sampled every millisecond. Mapped files aren't counted: they are the page cache's. Memory shared
    with other processes is.
    """
    gc.collect()
    before, peak, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident_bytes())
            time.sleep(INTERVAL_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(0, peak - before)


def resident_bytes() -> int:
    """Return the memory of this process that is its own or shared, resident, without files."""
    facts = Path("/proc/self/status").read_text()
    lines = (line.split() for line in facts.splitlines())
    return sum(1024 * int(line[1]) for line in lines if line[0] in {"RssAnon:", "RssShmem:"})
