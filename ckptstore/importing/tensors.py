"""Tensors over storages of a file: none reaches beyond its own, and none is left unfilled."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

MAX_DIMENSIONS = 64
LIMIT = 2**62
BITS = {"conj", "neg"}

Geometry = tuple[Any, tuple[int, ...], tuple[int, ...]]
"""Offset, sizes and strides, in elements."""


def strided(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    geometry: Geometry,
    *,
    grad: bool = False,
    bits: Any = None,
) -> torch.Tensor:
    """Return a tensor that shows a storage.

    Args:
        storage: Its memory.
        dtype: The dtype of its elements.
        geometry: Where they lie.
        grad: Whether it requires gradients.
        bits: Whether it is to be conjugated or negated when it is read, as torch records that.

    Raises:
        ValueError: It would reach beyond its storage.
    """
    _check(geometry, storage.nbytes() // dtype.itemsize)
    made = torch.empty(0, dtype=dtype, device="cpu").set_(storage, *geometry)
    if bits:
        if (
            not isinstance(bits, dict)
            or bits.keys() - BITS
            or not all(type(bit) is bool for bit in bits.values())
            or not (dtype.is_complex or dtype.is_floating_point)
            or (bits.get("conj") and not dtype.is_complex)
        ):
            raise ValueError("a tensor with bits that torch doesn't know")
        torch._utils.set_tensor_metadata(made, bits)  # type: ignore[no-untyped-call] # noqa: SLF001 - as torch does it when it loads
    if grad:
        made.requires_grad_()
    return made


def quantized(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    geometry: Geometry,
    scheme: str,
    numbers: list[Any],
) -> torch.Tensor:
    """Return a quantized tensor.

    Args:
        storage: Its memory.
        dtype: The dtype of its elements.
        geometry: Where they lie.
        scheme: How it is quantized.
        numbers: Scale and zero point; or scales, zero points and axis.

    Raises:
        ValueError: It would reach beyond its storage, or its numbers are none.
    """
    room = storage.nbytes() // dtype.itemsize
    _check(geometry, room)
    if prod(geometry[1]) > room:
        raise ValueError("a quantized tensor of more values than it has")  # torch makes one first
    if scheme == "per_tensor_affine":
        if [type(number) for number in numbers] != [float, int]:
            raise ValueError("a quantized tensor without a scale")
    elif scheme in ("per_channel_affine", "per_channel_affine_float_qparams"):
        scales, zeros, axis = numbers
        if (
            not all(isinstance(each, torch.Tensor | list) for each in (scales, zeros))
            or type(axis) is not int
        ):
            raise ValueError("a quantized tensor without scales")
    else:
        raise ValueError(f"a quantized tensor of the scheme {scheme:.40}")
    storages, rebuild = (
        torch.storage.TypedStorage,
        torch._utils._rebuild_qtensor,  # noqa: SLF001 - there is no other way to make one
    )
    typed = storages(wrap_storage=storage, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call] # torch's own has no types
    how = (getattr(torch, scheme), *numbers)
    made: torch.Tensor = rebuild(typed, *geometry, how, False, None)  # type: ignore[no-untyped-call] # noqa: FBT003 - neither has it, nor keywords
    return made


def sparse(layout: torch.layout, data: Any) -> torch.Tensor:
    """Return a sparse tensor, all of its indices checked.

    Raises:
        ValueError: It is not made of tensors and a size.
        RuntimeError: An index lies outside it, or its parts don't fit.
    """
    if layout is torch.sparse_coo:
        indices, values, size, *rest = data
        _are_tensors(indices, values)
        coalesced = rest[0] if rest else None
        if coalesced not in (None, True, False):
            raise ValueError("a sparse tensor that says neither that it is coalesced nor not")
        return torch.sparse_coo_tensor(
            indices, values, tuple(size), check_invariants=True, is_coalesced=coalesced
        )
    starts, places, values, size = data
    _are_tensors(starts, places, values)
    return torch.sparse_compressed_tensor(
        starts, places, values, tuple(size), layout=layout, check_invariants=True
    )


def _are_tensors(*parts: Any) -> None:
    if not all(type(each) is torch.Tensor and each.layout is torch.strided for each in parts):
        raise ValueError("a sparse tensor of something other than tensors")


def _check(geometry: Geometry, room: int) -> None:
    """Refuse a tensor that shows more than *room* elements.

    Raises:
        ValueError: It does.
    """
    offset, size, stride = geometry
    if not all(type(each) is int and 0 <= each < LIMIT for each in (offset, *size, *stride)):
        raise ValueError("a tensor whose place is given by something other than whole numbers")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS or prod(size) >= LIMIT:
        raise ValueError("a tensor with a shape that can't be")
    last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if prod(size) and offset + last >= room:
        raise ValueError(f"a tensor that reaches {offset + last + 1 - room} values beyond its end")
