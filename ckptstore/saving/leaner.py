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
    narrowed: tuple[str, ...] = ()
    """The parts whose floating tensors are stored as bfloat16."""
    left_out: tuple[str, ...] = ()
    """The parts that it does without."""


def ladder(parts: Mapping[str, Any]) -> list[Rung]:
    """Return the ways to save a training, from all of it to the least that is worth it.

    Optimizers are what is saved less of: they are two thirds of an Adam training's bytes. In
    bfloat16 their averages keep three digits, and the training goes on much as it would have.
    Without them it must begin them anew, and takes a while to recover; without weights it never
    does.

    Args:
        parts: What would be saved, by name; whatever has no tensors weighs nothing.
    """
    sizes = {name: state_bytes(part) for name, part in parts.items()}
    optimizers = tuple(
        name
        for name, part in parts.items()
        if isinstance(part, torch.optim.Optimizer) and sizes[name]
    )
    whole = Rung("everything", sum(sizes.values()))
    rungs, listed = [whole], ", ".join(map(repr, optimizers))
    narrow_bytes = whole.size_bytes + sum(
        state_bytes(parts[name], narrowed=True) - sizes[name] for name in optimizers
    )
    if narrow_bytes < whole.size_bytes:
        said = f"everything, with {listed} in bfloat16,"
        rungs.append(Rung(said, narrow_bytes, narrowed=optimizers))
    if optimizers and len(optimizers) < len(parts):
        rest = whole.size_bytes - sum(sizes[name] for name in optimizers)
        rungs.append(Rung(f"everything but {listed}", rest, left_out=optimizers))
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


def state_bytes(value: Any, *, narrowed: bool = False) -> int:
    """Return how many bytes the tensors of a part's state have; tied ones count each time.

    Args:
        value: The part, or some of its state.
        narrowed: Whether its floating tensors are to be stored as bfloat16.
    """
    if isinstance(value, torch.Tensor):
        if narrowed and value.dim() and value.is_floating_point():
            return min(value.nbytes, value.numel() * torch.bfloat16.itemsize)
        return value.nbytes
    if callable(getattr(value, "state_dict", None)) and not isinstance(value, type):
        value = value.state_dict()
    if isinstance(value, Mapping):
        return sum(state_bytes(each, narrowed=narrowed) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(state_bytes(each, narrowed=narrowed) for each in value)
    return 0


def less_of(what: Mapping[str, Any], rung: Rung) -> dict[str, Any]:
    """Return what to hand to ``save`` instead of *what*."""
    less = {name: each for name, each in what.items() if name not in rung.left_out}
    dtypes = dict(what.get("dtype") or {})
    if rung.narrowed or dtypes:
        narrowed = dict.fromkeys(rung.narrowed, torch.bfloat16) | dtypes
        less["dtype"] = {name: each for name, each in narrowed.items() if name not in rung.left_out}
    return less
