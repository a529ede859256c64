"""A program beside the module it was made of: both computed once, their outputs compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ckptstore.errors import ProgramError
from ckptstore.programs.samples import Sample, copied
from ckptstore.programs.structure import flatten
from ckptstore.programs.undisturbed import Unwritten, undisturbed
from ckptstore.state.rng import forked


def computed(module: torch.nn.Module, sample: Sample, buffers: Unwritten) -> tuple[Any, list[Any]]:
    """Call a module as in inference; leave it, generators, buffers and the sample as they were.

    Returns:
        The structure of what it returned, and the leaves, tensors copied.
    """
    given = copied(sample)
    try:
        with torch.no_grad(), forked(), undisturbed(module):
            node, leaves, _ = flatten(module(*given.args, **given.kwargs))
            copies = [
                leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves
            ]
    finally:
        buffers.put_back()
    return node, copies


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


def _is_same(wanted: Any, got: Any) -> bool:
    if not isinstance(wanted, torch.Tensor) or not isinstance(got, torch.Tensor):
        return type(wanted) is type(got) and repr(wanted) == repr(got)
    return (wanted.dtype, wanted.shape, wanted.layout) == (got.dtype, got.shape, got.layout) and (
        torch.equal(_bytes(wanted), _bytes(got))
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    dense = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return dense.view(torch.uint8) if tensor.layout is torch.strided else tensor
