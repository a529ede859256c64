"""A training under a guard, as a process of its own that tests send signals to.

Usage: python -m tests.guarded_training FOLDER (free | held | killed)
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from ckptstore import Store
from ckptstore.storage.local_writer import LocalWriter
from tests.loading.trainings import Training, everything

STEPS = 6
TOLD_AT = 3
EXIT_CODE = 75


def say(word: str) -> None:
    """Tell the test, which reads our output."""
    print(word, flush=True)  # noqa: T201 - see above


def wait_for(file: Path) -> None:
    """Wait until the test has made a file; its own timeout ends this process, if need be."""
    while not file.exists():
        time.sleep(0.005)


def main(folder: Path, what: str) -> None:
    """Train from wherever it was, and write down each loss and the end."""
    torch.set_num_threads(1)
    training = Training()
    run = Store(folder / "store", catalog="sqlite://").run("digits")
    resumed = training.resume(run)
    if not resumed:
        training.save(run, step=0)
    if what != "free":
        hold_the_first_write(folder, what)
    with (
        (folder / "losses").open("a") as losses,
        run.guard(exit_code=EXIT_CODE, deadline=timedelta(minutes=10)) as guard,
    ):
        for step in range((resumed.step or 0) + 1, STEPS + 1):
            losses.write(f"{step} {training.epoch().hex()}\n")
            losses.flush()
            if step == TOLD_AT and not resumed:
                say("told")
                wait_for(folder / "go on")
            guard.step(**training.parts(), step=step)
    (folder / "end").write_text(repr(everything(training)))


def hold_the_first_write(folder: Path, what: str) -> None:
    """Let the guard's save stop in its first large write: until told to go on, or for good."""
    write = LocalWriter.write

    def held(writer: LocalWriter, data: memoryview) -> None:
        write(writer, data)
        if not (folder / "held").exists():
            (folder / "held").touch()
            if what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            say("saving")
            wait_for(folder / "finish")

    LocalWriter.write = held  # type: ignore[method-assign] # a fault is put where it would happen


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
