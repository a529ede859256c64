"""Tensors in another dtype than they were stored in: the one they had, or one that is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from ckptstore.errors import ArgumentError, IntegrityError
from ckptstore.format.part import Part
from ckptstore.state.tensors import dtype_name

EXTRA_STATE = "_extra_state"


def check_dtype(dtype: object) -> torch.dtype | None:
    """Return ``dtype=`` of ``load``, checked.

    Raises:
        ArgumentError: It is no dtype of floating numbers.
    """
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype
    raise ArgumentError(
        f"dtype= takes a dtype of floating numbers, such as torch.bfloat16, not {dtype!r:.80}"
    )


def as_they_were(
    tensors: dict[int, torch.Tensor], part: Part, where: str, ref: str
) -> tuple[str, ...]:
    """Convert tensors that were stored in another dtype than they had, one after another.

    Args:
        tensors: By their place in the part; those that are converted are replaced.
        part: The part's line.
        where: Names the part in errors.
        ref: The version, for errors.

    Returns:
        The dtypes that such tensors were stored in, sorted.

    Raises:
        IntegrityError: A dtype is none that a tensor of numbers can have had.
    """
    stored: set[str] = set()
    for place, tensor in tensors.items():
        was = part.tensors[place].was
        if was is None:
            continue
        dtype = dtype_was(was, where, ref)
        if not tensor.is_floating_point():
            raise IntegrityError(
                f"{where}: tensor {place} is {dtype_name(tensor.dtype)}, and should have been "
                f"{was}, which nobody converts to that",
                ref=ref,
            )
        stored.add(dtype_name(tensor.dtype))
        tensors[place] = converted(tensor, dtype)
    return tuple(sorted(stored))


def dtype_was(name: str, where: str, ref: str | None = None) -> torch.dtype:
    """Return the dtype that a tensor had, by its recorded name.

    Raises:
        IntegrityError: There is no such dtype of floating numbers.
    """
    dtype = getattr(torch, name, None)
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    raise IntegrityError(
        f"{where}: a tensor should have been {name!r} in the training, and torch "
        f"{torch.__version__} has no such dtype of floating numbers",
        ref=ref,
    )


def in_dtype(state: Mapping[Any, Any], dtype: torch.dtype) -> Any:
    """Return a state dict with its floating tensors in another dtype; extra state stays as it is.

    Tied names keep one tensor.
    """
    made: dict[int, torch.Tensor] = {}
    state_now: Any = OrderedDict()
    for name, value in state.items():
        if _is_floating(value) and not _is_extra_state(name):
            state_now[name] = made.setdefault(id(value), converted(value, dtype))
        else:
            state_now[name] = value
    if hasattr(state, "_metadata"):
        state_now._metadata = state._metadata  # noqa: SLF001 - where torch keeps it
    return state_now


def convert_module(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Convert all that a module holds of floating numbers, as ``module.to(dtype)`` does.

    Complex tensors stay, which ``to`` would strip of their imaginary part.
    """

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    module._apply(convert)  # type: ignore[no-untyped-call] # noqa: SLF001 - what to() calls


def converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in another dtype; itself if it has that."""
    if tensor.dtype == dtype:
        return tensor
    return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)


def _is_floating(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_extra_state(name: object) -> bool:
    return isinstance(name, str) and name.rpartition(".")[2] == EXTRA_STATE
