"""Tensors stored in another dtype than they have: ``save(dtype={"optimizer": torch.bfloat16})``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ckptstore.errors import ArgumentError, UnsupportedValueError
from ckptstore.format.composite import SPARSE
from ckptstore.format.paths import tensors_by_path
from ckptstore.saving.capture import CapturedPart
from ckptstore.state.optimizers import VALUES
from ckptstore.state.tensors import dtype_name

_EXTRA_STATE = "_extra_state"
FLOAT32_TINY = torch.finfo(torch.float32).tiny
_ADVICE = "take torch.bfloat16, which has float32's range, or leave this part out of dtype="


def narrow(captured: Sequence[CapturedPart], dtypes: Any) -> None:
    """Convert floating tensors of parts; what each was is recorded with it.

    Tensors of one number stay as they are, such as an optimizer's count of steps: a dtype of few
    digits could not count on. So do complex and integer tensors, what quantised ones and subclasses
    are made of, a module's extra state, and parameters that an optimizer alone has. Of sparse ones
    it is the values.

    Args:
        captured: The parts.
        dtypes: As handed to ``save``: a dtype for some of them, by name.

    Raises:
        ArgumentError: It is no such dict, or names a part that there is not.
        UnsupportedValueError: A number is too large for its new dtype, or would become 0.
    """
    if dtypes is None:
        return
    if not isinstance(dtypes, dict):
        raise ArgumentError(
            f"dtype= takes a dict that says for which parts, such as {{'optimizer': "
            f"torch.bfloat16}}, not {dtypes!r:.80}"
        )
    parts = {part.name: part for part in captured}
    for name, dtype in dtypes.items():
        if name not in parts:
            raise ArgumentError(
                f"dtype= names part {name!r}, and there are {', '.join(map(repr, parts)) or 'none'}"
            )
        if not (
            isinstance(dtype, torch.dtype) and dtype.is_floating_point and _holds_numbers(dtype)
        ):
            raise ArgumentError(
                f"dtype= of part {name!r} is a dtype of floating numbers, negative ones too, "
                f"such as torch.bfloat16, not {dtype!r:.80}"
            )
        _narrow_part(parts[name], dtype)


def _narrow_part(part: CapturedPart, dtype: torch.dtype) -> None:
    of_module = part.kind in ("module", "state_dict")
    for path, node in tensors_by_path(part.tree).items():
        place = _numbers_of(node)
        if place is None or place in part.was or (of_module and _is_extra_state(path)):
            continue
        if part.kind == "optimizer" and path.startswith(f"{VALUES}/"):
            continue  # weights, and no optimizer's state
        tensor = part.tensors[place]
        if tensor.is_floating_point() and tensor.numel() != 1 and tensor.dtype != dtype:
            part.was[place] = dtype_name(tensor.dtype)
            part.tensors[place] = _converted(tensor, dtype, f"{part.name}/{path}")


def _numbers_of(node: Mapping[str, Any]) -> int | None:
    """Return the place of a tensor's numbers: its own, or a sparse one's values."""
    if SPARSE in node:
        return _numbers_of(node["tensors"]["values"])
    return node.get("$tensor")


def _converted(tensor: torch.Tensor, dtype: torch.dtype, path: str) -> torch.Tensor:
    """Return a tensor in another dtype, if each of its numbers stays one that can be gone on with.

    It makes no other copy of the numbers.
    """
    needs_gradient, tensor = tensor.requires_grad, tensor.detach()
    if tensor.numel():
        _check_end(tensor, dtype, path)
    new = tensor.to(dtype)
    # Of float32, bfloat16 has the range; what becomes 0 are numbers that torch's own kernels may
    # take for 0 (torch.set_flush_denormal).
    if tensor.dtype is not torch.float32 or torch.finfo(dtype).tiny > FLOAT32_TINY:
        lost = _zeros(new) - _zeros(tensor)
        if lost:
            gone = tensor[(new == 0) & (tensor != 0)].double().abs().max().item()
            raise UnsupportedValueError(
                path,
                f"{lost} numbers such as {gone:.3g} as {dtype_name(dtype)}",
                f"that dtype has nothing between 0 and them, so they would become 0; {_ADVICE}",
            )
    return new.requires_grad_(needs_gradient)


def _check_end(tensor: torch.Tensor, dtype: torch.dtype, path: str) -> None:
    """Refuse what is too large for a dtype, and infinity where that has none."""
    limit = torch.finfo(dtype).max
    # In its own dtype if that has room for the limit, else there is nothing that could be above it.
    if torch.finfo(tensor.dtype).max <= limit:
        return
    numbers = tensor.float() if tensor.itemsize == 1 else tensor  # torch finds no end of float8
    ends = torch.stack(numbers.aminmax())
    if not ends.isfinite().all():
        if numbers.isinf().any() and not _has_infinity(dtype):
            raise UnsupportedValueError(
                path, f"infinity as {dtype_name(dtype)}", f"that dtype has none; {_ADVICE}"
            )
        finite = numbers[numbers.isfinite()]
        ends = torch.stack(finite.aminmax()) if finite.numel() else ends.new_zeros(2)
    largest = ends.abs().max().item()
    if largest > limit:
        raise UnsupportedValueError(
            path,
            f"{largest:.3g} as {dtype_name(dtype)}",
            f"that dtype ends at {limit:.3g}; {_ADVICE}",
        )


def _zeros(tensor: torch.Tensor) -> int:
    return int((tensor == 0).count_nonzero())


def _has_infinity(dtype: torch.dtype) -> bool:
    return bool(torch.tensor(math.inf).to(dtype).float().isinf())


def _holds_numbers(dtype: torch.dtype) -> bool:
    """Say whether a dtype has 0 and negative numbers, and torch converts to it."""
    some = torch.tensor([0.0, -1.0])
    try:
        return torch.equal(some.to(dtype).float(), some)
    except NotImplementedError:
        return False


def _is_extra_state(path: str) -> bool:
    return path.partition("/")[0].rpartition(".")[2] == _EXTRA_STATE
