"""How much a process grows while it does something."""

from __future__ import annotations

import ctypes
import gc
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import savers, state
from .blocking import OURS, TORCH, OursBlocking, TorchSave
from .questions import Question, Target
from .savers import Saver

INTERVAL_S = 0.001
SAVES = 20
"""Saves in a row in the background whose memory is looked at; of the others' as many as FEW."""
FEW = 3
ALLOWED_BYTES = 64 * 2**20
KINDS: dict[str, type[Saver]] = {
    OURS: OursBlocking,
    TORCH: TorchSave,
    **savers.OURS,
    **savers.PEERS,
}


def grown(folder: Path, size: state.Size) -> Question:
    """Look at what a process grows by while it saves, each in a process of its own."""
    folder.mkdir()
    held = state.size_bytes(state.flat(*state.make(size)).values())
    measured: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    for name, kind in KINDS.items():
        try:
            peak = elsewhere("tests.bench.memory", name, size.name, folder / kind.__name__)
        except RuntimeError as error:
            if name.startswith("ckptstore"):
                raise
            absent[name] = savers.reason(error)
        else:
            measured[name] = [peak]
    shutil.rmtree(folder)
    return Question(
        key=f"memory-{size.slug}",
        title=f"Memory that saves of {size.name} take",
        asks=(
            "What a fresh process grows by at most, sampled each millisecond, while it saves and "
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


def elsewhere(module: str, *arguments: object) -> float:
    """Return the number that a module prints last, run in a process of its own.

    Raises:
        RuntimeError: It failed; the message is the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Save again and again, and print how many bytes the process grew by."""
    name, size, folder = sys.argv[1], state.SIZES[sys.argv[2]], Path(sys.argv[3])
    model, optimizer = state.make(size)

    def work() -> None:
        saver = KINDS[name](folder, model, optimizer)
        for _ in range(SAVES if name in savers.OURS else FEW):
            savers.once(saver)
            state.step(model, optimizer)
        saver.close()

    # What is made once whatever is saved: modules, threads, an allocator's first pages.
    small, its = state.make(state.SIZES["10 MB"])
    warmed = KINDS[name](folder.with_name(f"{folder.name}-warmed"), small, its)
    savers.once(warmed)
    warmed.close()
    del small, its, warmed
    state.step(model, optimizer)
    print(json.dumps(peak_bytes(work)))


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much memory of its own this process takes more while *work* runs, at most.

    Sampled every millisecond. Mapped files aren't counted: they are the page cache's. Memory shared
    with other processes is.
    """
    gc.collect()
    # What was freed before must not hide what is taken now.
    ctypes.CDLL(None).malloc_trim(0)
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


if __name__ == "__main__":
    main()
