"""How much of a training can be saved in the time that is left: all of it, or less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Rung:
    """One way to save a training."""

    said: str
    """For people: ``everything``."""
    size_bytes: int
    """Of its tensors."""
    left_out: tuple[str, ...] = ()
    """The parts that it does without."""


def ladder(parts: Mapping[str, Any]) -> list[Rung]:
    """Return the ways to save a training, from all of it to the least that is worth it.

    An optimizer is left out before anything else: it is two thirds of an Adam training's bytes, and
    a training that begins it anew from trained weights recovers. Without its weights none does.

    Args:
        parts: What would be saved, by name; whatever has no tensors weighs nothing.
    """
    sizes = {name: state_bytes(part) for name, part in parts.items()}
    optimizers = [name for name, part in parts.items() if isinstance(part, torch.optim.Optimizer)]
    rungs = [Rung("everything", sum(sizes.values()))]
    if any(sizes[name] for name in optimizers) and len(optimizers) < len(parts):
        rest = sum(size for name, size in sizes.items() if name not in optimizers)
        listed = ", ".join(map(repr, optimizers))
        rungs.append(Rung(f"everything but {listed}", rest, tuple(optimizers)))
    return rungs


def first_that_fits(
    rungs: Sequence[Rung], left_s: float, estimate_s: Callable[[int], float]
) -> int:
    """Return the place of the fullest rung that can be saved in time, else that of the last. Pure.

    Args:
        rungs: The fullest first.
        left_s: How many seconds are left.
        estimate_s: Gives how many seconds so many bytes take.
    """
    for place, rung in enumerate(rungs):
        if estimate_s(rung.size_bytes) <= left_s:
            return place
    return len(rungs) - 1


def state_bytes(value: Any) -> int:
    """Return how many bytes the tensors of a part's state have; tied ones count each time."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if callable(getattr(value, "state_dict", None)) and not isinstance(value, type):
        value = value.state_dict()
    if isinstance(value, Mapping):
        return sum(state_bytes(each) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(state_bytes(each) for each in value)
    return 0
