"""What ``program=`` was given: the arguments to trace a module with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ckptstore.errors import ArgumentError
from ckptstore.programs.structure import flatten, rebuild

KEYS = {"args", "kwargs", "dynamic_shapes"}
TAKEN = (
    "program= takes a sample tensor, a tuple of positional arguments, or a dict(args=(…), "
    "kwargs={…}, dynamic_shapes=…) as torch.export has them"
)


@dataclass(frozen=True)
class Sample:
    """Arguments that a module can be called with."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dynamic_shapes: Any = None
    """As torch.export has them; None leaves it to ckptstore."""

    def map(self, change: Callable[[Any], Any]) -> Sample:
        """Return the sample with each leaf changed."""
        node, leaves, _ = flatten((self.args, dict(self.kwargs)))
        args, kwargs = rebuild(node, [change(leaf) for leaf in leaves])
        return replace(self, args=args, kwargs=kwargs)

    def leaves(self) -> list[Any]:
        """Return what it consists of, from left to right."""
        return flatten((self.args, dict(self.kwargs)))[1]


def sample_of(given: object) -> Sample:
    """Return what ``program=`` was given as arguments.

    Raises:
        ArgumentError: It is none of what it takes.
    """
    if isinstance(given, torch.Tensor):
        return Sample((given,), {})
    if isinstance(given, tuple):
        return Sample(given, {})
    if isinstance(given, Mapping):
        unknown = [str(key) for key in given if key not in KEYS]
        args, kwargs = given.get("args", ()), given.get("kwargs", {})
        if unknown:
            raise ArgumentError(f"{TAKEN}; {', '.join(unknown)} is none of these")
        if isinstance(args, (tuple, list)) and isinstance(kwargs, Mapping) and (args or kwargs):
            return Sample(tuple(args), dict(kwargs), given.get("dynamic_shapes"))
    raise ArgumentError(f"{TAKEN}, not {given!r:.80}")


def on(sample: Sample, device: torch.device) -> Sample:
    """Return the sample with tensors of its own on a device.

    Each is another object, also where one was passed twice: torch.export would take them for one
    input.
    """

    def moved(leaf: Any) -> Any:
        return leaf.detach().to(device) if isinstance(leaf, torch.Tensor) else leaf

    return sample.map(moved)


def copied(sample: Sample) -> Sample:
    """Return the sample with its tensors' values copied: a module may write to its inputs."""
    return sample.map(
        lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf
    )


def grown(sample: Sample) -> Sample:
    """Return the sample with tensors of two rows where they had one.

    A size of 1 is always taken for a fixed one by torch.export.
    """

    def doubled(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.dim() and leaf.shape[0] == 1:
            return torch.cat([leaf, leaf])
        return leaf

    return sample.map(doubled)


def first_rows(sample: Sample, which: Sequence[bool]) -> Sample:
    """Return the sample with only the first row of some of its tensors.

    Args:
        sample: The sample.
        which: For each leaf whether it is cut.
    """
    cut = iter(which)
    return sample.map(lambda leaf: leaf[:1] if next(cut) else leaf)
