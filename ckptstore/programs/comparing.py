"""A program beside the module it was made of: both computed, twice in a row, outputs compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ckptstore.errors import ProgramError
from ckptstore.programs.reachable import differences, told
from ckptstore.programs.samples import Sample, copied
from ckptstore.programs.structure import flatten
from ckptstore.programs.undisturbed import Kept
from ckptstore.state.rng import capture, forked

TWICE = 2
GENERATORS = {"python": "Python's random generator", "numpy": "NumPy's random generator"}


@dataclass(frozen=True)
class Computed:
    """What came of calling a module several times in a row with the same inputs."""

    node: Any
    """The structure of what it returned."""
    outputs: list[list[Any]]
    """The leaves of each call, tensors copied."""
    changed: list[str]
    """What the last call changed beside parameters."""
    unsettled: list[str]
    """The same without buffers, whose changes a program has too."""


def computed(module: torch.nn.Module, sample: Sample, kept: Kept, *, times: int = 1) -> Computed:
    """Call a module as in inference; leave it, generators and the sample as they were.

    Args:
        module: The module that was kept, or its program, which has the same weights.
        sample: What to call it with.
        kept: How the module was.
        times: How often it is called, nothing being put back in between.
    """
    node: Any = None
    outputs: list[list[Any]] = []
    changed: list[str] = []
    with torch.no_grad(), forked(), kept.as_in_inference():
        before, drawn = told(module), capture()
        for _ in range(times):
            given = copied(sample)
            node, leaves, _ = flatten(module(*given.args, **given.kwargs))
            outputs.append(
                [
                    leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf
                    for leaf in leaves
                ]
            )
            after, then = told(module), capture()
            changed = differences(before, after)
            changed += [
                words for name, words in GENERATORS.items() if drawn.get(name) != then.get(name)
            ]
            before, drawn = after, then
    buffers = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    return Computed(node, outputs, changed, [each for each in changed if each not in buffers])


def compare_calls(expected: Computed, found: Computed) -> bool:
    """Compare the calls of a module with those of its program, one after another.

    Returns:
        Whether they are equal, bit for bit.

    Raises:
        ProgramError: A call differs by more than torch.testing.assert_close allows.
    """
    same = compare(expected.outputs[0], found.outputs[0])
    for wanted, got in zip(expected.outputs[1:], found.outputs[1:], strict=True):
        try:
            same = compare(wanted, got) and same
        except ProgramError as error:
            what = ", ".join(expected.changed) or "something that is no attribute"
            raise ProgramError(
                f"its forward changes {what}, so a second call gives something else than the "
                "first, and a program would not: keep in buffers what may change from call to call "
                "(register_buffer, then self.total.add_(…) or .copy_(…)), and draw from torch's "
                "generators alone"
            ) from error
    return same


def compare(expected: Sequence[Any], found: Sequence[Any]) -> bool:
    """Compare the outputs of a module and of its program.

    Returns:
        Whether they are equal, bit for bit.

    Raises:
        ProgramError: They differ by more than torch.testing.assert_close allows their dtype.
    """
    same = True
    for place, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        if _is_same(wanted, got):
            continue
        same = False
        try:
            torch.testing.assert_close(got, wanted, equal_nan=True)
        except (AssertionError, TypeError, ValueError) as error:
            raise ProgramError(
                f"the program computes something else than the module does: output {place}: "
                f"{str(error).strip()}"
            ) from error
    return same


def furthest(expected: Computed, found: Computed) -> float:
    """Return by how much a number of the outputs that were compared differs at most."""
    worst = 0.0
    for first, second in zip(expected.outputs, found.outputs, strict=True):
        for wanted, got in zip(first, second, strict=True):
            if isinstance(wanted, torch.Tensor) and not _is_same(wanted, got) and wanted.numel():
                apart = (wanted.to_dense() - got.to_dense()).abs().nan_to_num(0.0)
                worst = max(worst, float(apart.max()))
    return worst


def _is_same(wanted: Any, got: Any) -> bool:
    if not isinstance(wanted, torch.Tensor) or not isinstance(got, torch.Tensor):
        return type(wanted) is type(got) and repr(wanted) == repr(got)
    return (wanted.dtype, wanted.shape, wanted.layout) == (got.dtype, got.shape, got.layout) and (
        torch.equal(_bytes(wanted), _bytes(got))
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    dense = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return dense.view(torch.uint8) if tensor.layout is torch.strided else tensor
