"""How long a background save holds training up, and what it costs training in all."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from . import savers, state, timing
from .blocking import TORCH, OursBlocking, TorchSave
from .questions import Question, Target, best, shown
from .savers import Saver

EAGER, OVERLAPPED = savers.OURS
BLOCKING = "ckptstore, blocking"
COPY = "copy into warm memory"
DCP = "dcp.async_save"
TARGETS = (
    Target(EAGER, 1.15, of=COPY),
    Target(EAGER, 0.5, of=DCP),
    Target(OVERLAPPED, 0.05, of=DCP),
)
STEPS = 3
"""Per save: the first is followed by it."""
STEPS_OF_A_GPU = 100
STALL_PEERS = {
    name: savers.PEERS[name]
    for name in (
        DCP,
        "dcp.async_save, staged in a thread",
        "Lightning AsyncCheckpointIO",
        "torch_checkpointing",
    )
}
"""Of DCP's four the documented one, and its overlapped one; decision 27 says on what grounds."""
ADDED_PEERS = {
    name: savers.PEERS[name] for name in ("dcp.async_save, memory kept", "torch_checkpointing")
}
"""Of DCP's four the one with kept memory; decision 27 says on what grounds."""
MANY = 10
"""Saves in one training whose steps are short."""


def stall(
    folder: Path,
    size: state.Size,
    rounds: int,
    touched_bytes: int,
    *,
    device: str = "cpu",
    copy: type[Saver] = savers.Copy,
    peers: Mapping[str, type[Saver]] = STALL_PEERS,
    targets: tuple[Target, ...] = TARGETS,
) -> Question:
    """Time each saver from its call until training may go on.

    Args:
        folder: Where to write.
        size: Of the state.
        rounds: That count.
        touched_bytes: Memory touched and freed before each timing.
        device: That trains.
        copy: The limit.
        peers: Beside ours.
        targets: What is asked of ours.
    """
    folder.mkdir()
    model, optimizer = state.make(size, device)
    seen = state.tokens(size, device)

    def contender(saver: Saver) -> timing.Contender:
        def presses() -> Iterator[None]:
            saver.prepare()
            state.synchronize(device)
            yield
            saver.save()
            yield
            if saver.overlaps:
                state.differentiate(model, seen)
                state.synchronize(device)
                yield
                saver.wait_copied()
                yield
                optimizer.zero_grad()
            saver.finish()
            saver.clear()
            state.step(model, optimizer)

        return presses

    kinds: dict[str, type[Saver]] = {**savers.OURS, COPY: copy, **peers}
    found, absent = savers.opened(kinds, folder, model, optimizer)
    measured = timing.interleave(
        {name: contender(saver) for name, saver in found.items()},
        rounds,
        touched_bytes=touched_bytes,
    )
    savers.close(found)
    shutil.rmtree(folder)
    return Question(
        key=f"stall-{size.slug}{on(device)}",
        title=f"Stall of a background save of {size.name}{where(device)}",
        asks=(
            "From the call until training may go on. Of those that copy while training goes on, it "
            "is the call, and what is left to wait for after one forward and backward."
        ),
        measured=measured,
        ours=(EAGER, OVERLAPPED),
        limit=COPY if COPY in measured else None,
        targets=tuple(target for target in targets if target.of in measured),
        notes=savers.notes(found),
        absent=absent,
    )


class Training:
    """A small training, again and again the same but for its saves.

    Args:
        size: Of the model.
        touched_bytes: Memory touched and freed before each.
        device: That trains.
    """

    def __init__(self, size: state.Size, touched_bytes: int, device: str) -> None:
        self.model, self.optimizer = state.make(size, device)
        self.seen = state.tokens(size, device)
        self.touched_bytes, self.device = touched_bytes, device
        # What a small save adds is less than what one step varies by.
        self.saves = MANY if size.name == "10 MB" else 1
        self.steps = STEPS if device == "cpu" else STEPS_OF_A_GPU

    def run(self, saver: Saver | None = None) -> float:
        """Return the seconds of a training per save, until what was saved last is durable.

        A save follows each first step of so many, and has ended before the next.
        """
        if saver is not None:
            saver.prepare()
        timing.settle(self.touched_bytes)
        state.synchronize(self.device)
        start = time.perf_counter()
        for _ in range(self.saves):
            if saver is None:
                for _ in range(self.steps):
                    self.step()
            else:
                self.step_and_save(saver)
        state.synchronize(self.device)
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
        for _ in range(self.steps - 2):
            self.step()
        saver.finish()

    def step(self) -> None:
        """Take one step."""
        state.differentiate(self.model, self.seen)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def round(self, found: dict[str, Saver], first: int) -> tuple[dict[str, float], float]:
        """Train with each saver once, beginning with the *first*, and twice without.

        Returns:
            What each took, and the median of those without, in seconds. Those are at the
            beginning and at the end, as a machine that others use drifts.
        """
        names = list(found)
        order = names[first:] + names[:first]
        without, spent = [self.run()], {}
        for name in order:
            spent[name] = self.run(found[name])
        without.append(self.run())
        return spent, statistics.median(without)


def added(
    folder: Path,
    size: state.Size,
    rounds: int,
    touched_bytes: int,
    *,
    device: str = "cpu",
    peers: Mapping[str, type[Saver]] = ADDED_PEERS,
    at_most: float = 1.0,
) -> Question:
    """Time a training with a save beside the same without: what the save adds, all included.

    Args:
        folder: Where to write.
        size: Of the state.
        rounds: That count.
        touched_bytes: Memory touched and freed before each training.
        device: That trains.
        peers: Beside ours.
        at_most: What is asked of ours, as a ratio to the best peer.
    """
    folder.mkdir()
    training = Training(size, touched_bytes, device)
    kinds: dict[str, type[Saver]] = {
        **savers.OURS,
        BLOCKING: OursBlocking,
        **peers,
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
    cores = f"{torch.get_num_threads()} threads" if device == "cpu" else "the GPU"
    peer = best(measured, [name for name in measured if name not in ours])
    return Question(
        key=f"added-{size.slug}{on(device)}",
        title=f"Time that a save of {size.name} adds to training{where(device)}",
        asks=(
            f"A training of {training.steps} steps a save on {cores}, the save "
            "after the first, until the last step is taken and the save would survive a power "
            "loss, less the same without a save. So what writing and hashing take from the cores "
            "is in it. The target is the best peer."
        ),
        measured=measured,
        ours=ours,
        targets=tuple(Target(name, at_most, of=peer) for name in (EAGER, OVERLAPPED)),
        notes=savers.notes(found),
        absent=absent,
        remarks=(
            f"Without a save the {training.steps} steps take {shown(statistics.median(alone))}.",
        ),
    )


def on(device: str) -> str:
    """Return what a plot's name ends in for a device."""
    return "" if device == "cpu" else f"-{device}"


def where(device: str) -> str:
    """Return what a title ends in for a device."""
    return "" if device == "cpu" else " on the GPU"
