"""Tensors stored in another dtype than they have: ``save(dtype={"optimizer": torch.bfloat16})``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ckptstore.errors import ArgumentError, UnsupportedValueError
from ckptstore.format.paths import tensors_by_path
from ckptstore.saving.capture import CapturedPart
from ckptstore.state.tensors import dtype_name

_EXTRA_STATE = "_extra_state"


def narrow(captured: Sequence[CapturedPart], dtypes: Any) -> None:
    """Convert floating tensors of parts; what each was is recorded with it.

    Numbers by themselves stay as they are, such as an optimizer's count of steps: a dtype of few
    digits could not count on. So do complex and integer tensors, what quantised and sparse ones are
    made of, and a module's extra state.

    Args:
        captured: The parts.
        dtypes: As handed to ``save``: a dtype for some of them, by name.

    Raises:
        ArgumentError: It is no such dict, or names a part that there is not.
        UnsupportedValueError: A number is too large for its new dtype.
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
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ArgumentError(
                f"dtype= of part {name!r} is a dtype of floating numbers, such as torch.bfloat16, "
                f"not {dtype!r:.80}"
            )
        _narrow_part(parts[name], dtype)


def _narrow_part(part: CapturedPart, dtype: torch.dtype) -> None:
    of_module = part.kind in ("module", "state_dict")
    for path, node in tensors_by_path(part.tree).items():
        place = node.get("$tensor")
        if place is None or place in part.was or (of_module and _is_extra_state(path)):
            continue
        tensor = part.tensors[place]
        if tensor.is_floating_point() and tensor.dim() and tensor.dtype != dtype:
            part.was[place] = dtype_name(tensor.dtype)
            part.tensors[place] = _converted(tensor, dtype, f"{part.name}/{path}")


def _converted(tensor: torch.Tensor, dtype: torch.dtype, path: str) -> torch.Tensor:
    limit = torch.finfo(dtype).max
    # In its own dtype if that has room for the limit, else there is nothing that could be above it.
    if tensor.numel() and torch.finfo(tensor.dtype).max > limit:
        size = tensor.detach().abs()
        largest = torch.where(size.isinf(), 0, size).nan_to_num(0).max().item()
        if largest > limit:
            raise UnsupportedValueError(
                path,
                f"{largest:.3g} as {dtype_name(dtype)}",
                f"that dtype ends at {limit:.3g}; take one of the same range, such as "
                "torch.bfloat16, or leave this part out of dtype=",
            )
    return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)


def _is_extra_state(path: str) -> bool:
    return path.partition("/")[0].rpartition(".")[2] == _EXTRA_STATE
