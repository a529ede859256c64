"""The tensors that a program computes with: from a part's state, or out of its own file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ckptstore.errors import IntegrityError
from ckptstore.programs.document import Held, Program
from ckptstore.state.tensors import dtype_of, fresh_bytes, from_bytes, view_bytes


def tensors_of(
    program: Program,
    data: memoryview,
    state: Mapping[str, Any],
    *,
    device: torch.device,
    where: str,
) -> list[torch.Tensor]:
    """Return the tensors that a program holds, in its order, on *device*.

    Args:
        program: The program.
        data: Its file.
        state: The state of the part that it belongs to.
        device: Where they go.
        where: Names the program in errors.

    Raises:
        IntegrityError: The state has no such tensor, or one of another shape or dtype.
    """
    tensors = []
    shared: dict[str, torch.Tensor] = {}
    for each in program.held:
        if each.key is None:
            tensors.append(_own(each, data, where).to(device))
            continue
        if each.key not in shared:
            shared[each.key] = _of_state(each, state, where).to(device)
        tensors.append(shared[each.key])
    return tensors


def _of_state(held: Held, state: Mapping[str, Any], where: str) -> torch.Tensor:
    tensor = state.get(held.key or "")
    dtype = dtype_of(held.dtype, held.itemsize, where)
    if not isinstance(tensor, torch.Tensor):
        raise IntegrityError(f"{where} needs the tensor {held.key!r}, which the part does not have")
    if tensor.dtype != dtype or tuple(tensor.shape) != held.shape:
        raise IntegrityError(
            f"{where} needs {held.key!r} as {held.dtype}{list(held.shape)}, and the part has it as "
            f"{tensor.dtype}{list(tensor.shape)}"
        )
    return tensor.detach()


def _own(held: Held, data: memoryview, where: str) -> torch.Tensor:
    dtype = dtype_of(held.dtype, held.itemsize, where)
    flat = fresh_bytes(held.size_bytes)
    if held.size_bytes:
        view_bytes(flat)[:] = data[held.start : held.start + held.size_bytes]
    return from_bytes(flat, dtype, held.shape, None)
