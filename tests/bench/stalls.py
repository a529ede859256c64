"""How long a background save holds training up, and what it costs training in all."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from . import savers, state, timing
from .blocking import TORCH, OursBlocking, TorchSave
from .questions import Question, Target, below, best, shown
from .savers import Saver

EAGER, OVERLAPPED = savers.OURS
BLOCKING = "ckptstore, blocking"
COPY = "copy into warm memory"
DCP = "dcp.async_save"
STEPS = 4
"""Per save: the first is followed by it."""
MANY = 10
"""Saves in one training whose steps are short."""


def stall(folder: Path, size: state.Size, rounds: int, touched_bytes: int) -> Question:
    """Time each saver from its call until training may go on."""
    folder.mkdir()
    model, optimizer = state.make(size)
    seen = state.tokens(size)

    def contender(saver: Saver) -> timing.Contender:
        def presses() -> Iterator[None]:
            saver.prepare()
            yield
            saver.save()
            yield
            if saver.overlaps:
                state.differentiate(model, seen)
                yield
                saver.wait_copied()
                yield
                optimizer.zero_grad()
            saver.finish()
            saver.clear()
            state.step(model, optimizer)

        return presses

    kinds: dict[str, type[Saver]] = {**savers.OURS, COPY: savers.Copy, **savers.PEERS}
    found, absent = savers.opened(kinds, folder, model, optimizer)
    measured = timing.interleave(
        {name: contender(saver) for name, saver in found.items()},
        rounds,
        touched_bytes=touched_bytes,
    )
    savers.close(found)
    shutil.rmtree(folder)
    return Question(
        key=f"stall-{size.slug}",
        title=f"Stall of a background save of {size.name}",
        asks=(
            "From the call until training may go on. Of those that copy while training goes on, it "
            "is the call, and what is left to wait for after one forward and backward."
        ),
        measured=measured,
        ours=(EAGER, OVERLAPPED),
        limit=COPY,
        targets=(
            Target(EAGER, 1.15, of=COPY),
            Target(EAGER, 0.5, of=DCP),
            Target(OVERLAPPED, 0.05, of=DCP),
        ),
        notes=savers.notes(found),
        absent=absent,
    )


class Training:
    """A small training, again and again the same but for its saves.

    Args:
        size: Of the model.
        touched_bytes: Memory touched and freed before each.
    """

    def __init__(self, size: state.Size, touched_bytes: int) -> None:
        self.model, self.optimizer = state.make(size)
        self.seen = state.tokens(size)
        self.touched_bytes = touched_bytes
        # What a small save adds is less than what one step varies by.
        self.saves = MANY if size.name == "10 MB" else 1

    def run(self, saver: Saver | None = None) -> float:
        """Return the seconds of a training per save, until what was saved last is durable.

        A save follows each first step of :data:`STEPS`, and has ended before the next.
        """
        if saver is not None:
            saver.prepare()
        timing.settle(self.touched_bytes)
        start = time.perf_counter()
        for _ in range(self.saves):
            if saver is None:
                for _ in range(STEPS):
                    self.step()
            else:
                self.step_and_save(saver)
        elapsed = time.perf_counter() - start
        if saver is not None:
            saver.clear()
        return elapsed / self.saves

    def step_and_save(self, saver: Saver) -> None:
        """Take as many steps as without a save, and save after the first."""
        self.step()
        saver.save()
        state.differentiate(self.model, self.seen)
        saver.wait_copied()
        self.optimizer.step()
        self.optimizer.zero_grad()
        for _ in range(STEPS - 2):
            self.step()
        saver.finish()

    def step(self) -> None:
        """Take one step."""
        state.differentiate(self.model, self.seen)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def round(self, found: dict[str, Saver], first: int) -> tuple[dict[str, float], float]:
        """Train with each saver once, beginning with the *first*, and three times without.

        Returns:
            What each took, and the median of those without, in seconds. Those are at the
            beginning, in the middle and at the end, as a machine that others use drifts.
        """
        names = list(found)
        order = names[first:] + names[:first]
        without, spent = [self.run()], {}
        for place, name in enumerate(order):
            spent[name] = self.run(found[name])
            if place == len(order) // 2:
                without.append(self.run())
        without.append(self.run())
        return spent, statistics.median(without)


def added(folder: Path, size: state.Size, rounds: int, touched_bytes: int) -> Question:
    """Time a training with a save beside the same without: what the save adds, all included."""
    folder.mkdir()
    training = Training(size, touched_bytes)
    kinds: dict[str, type[Saver]] = {
        **savers.OURS,
        BLOCKING: OursBlocking,
        **savers.PEERS,
        TORCH: TorchSave,
    }
    found, absent = savers.opened(kinds, folder, training.model, training.optimizer)
    training.run()
    measured: dict[str, list[float]] = {name: [] for name in found}
    alone = []
    for number in range(rounds):
        spent, without = training.round(found, number % len(found))
        alone.append(without)
        for name, seconds in spent.items():
            measured[name].append(seconds - without)
    savers.close(found)
    shutil.rmtree(folder)
    ours = (EAGER, OVERLAPPED, BLOCKING)
    peer = best(measured, [name for name in measured if name not in ours])
    return Question(
        key=f"added-{size.slug}",
        title=f"Time that a save of {size.name} adds to training",
        asks=(
            f"A training of {STEPS} steps a save on {torch.get_num_threads()} threads, the save "
            "after the first, until the last step is taken and the save would survive a power "
            "loss, less the same without a save. So what writing and hashing take from the cores "
            "is in it. The target is the best peer."
        ),
        measured=measured,
        ours=ours,
        targets=below((EAGER, OVERLAPPED), [peer]),
        notes=savers.notes(found),
        absent=absent,
        remarks=(f"Without a save the {STEPS} steps take {shown(statistics.median(alone))}.",),
    )
