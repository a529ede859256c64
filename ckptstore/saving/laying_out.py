"""Where the tensors of captured parts lie when they are copied into one stretch of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ckptstore.saving.capture import CapturedPart
from ckptstore.state.tensors import INTEGERS, stride_order

# What torch aligns memory to, and its kernels like best.
ALIGNMENT = 64


@dataclass(slots=True)
class Slot:
    """One distinct tensor of a state, and its place among the copies."""

    source: torch.Tensor
    part: str
    place: int
    """Where it is first met."""
    is_dense: bool
    """Whether its memory has neither gaps nor overlaps, so that the copy's is the same."""
    strides: tuple[int, ...]
    """Of the copy."""
    start: int
    """In bytes from the start of the memory."""
    copy: torch.Tensor | None = None
    """Of the source's dtype and shape; None until it is laid out."""


class Layout:
    """The distinct tensors of some parts, one after the other.

    A tensor that parts share is one. One that was converted for this save (``was``) is nobody
    else's, so it is passed on as it is.

    Attributes:
        slots: In the order of the parts.
        size_bytes: How much memory they take, uint8.
        passed_bytes: How much memory those take that are passed on.
    """

    def __init__(self, parts: Sequence[CapturedPart]) -> None:
        self.slots: list[Slot] = []
        self.size_bytes = 0
        self.passed_bytes = 0
        self._parts = parts
        self._numbers: list[list[int | None]] = []
        known: dict[object, int] = {}
        for part in parts:
            numbers: list[int | None] = []
            for place, tensor in enumerate(part.tensors):
                if place in part.was:
                    self.passed_bytes += tensor.nbytes
                    numbers.append(None)
                    continue
                key = _memory(tensor)
                number = known.get(key, len(self.slots))
                if number == len(self.slots):
                    self._add(tensor, part.name, place)
                    if key is not None:
                        known[key] = number
                numbers.append(number)
            self._numbers.append(numbers)

    @property
    def total_bytes(self) -> int:
        """How much memory they take, those included that are passed on."""
        return self.size_bytes + self.passed_bytes

    def lay_out(self, memory: torch.Tensor) -> list[CapturedPart]:
        """Give each slot its copy, nothing copied yet, and return the parts that hold them.

        Args:
            memory: uint8, at least :attr:`size_bytes`, a multiple of 64 bytes.
        """
        views: dict[torch.dtype, torch.Tensor] = {}
        for slot in self.slots:
            dtype = slot.source.dtype
            if dtype not in views:
                # By way of integers, as torch warns of half-precision complex numbers else.
                views[dtype] = memory.view(INTEGERS.get(dtype.itemsize, dtype)).view(dtype)
            slot.copy = views[dtype].as_strided(
                slot.source.shape, slot.strides, slot.start // dtype.itemsize
            )
        return [
            replace(part, tensors=self._copies(part, numbers))
            for part, numbers in zip(self._parts, self._numbers, strict=True)
        ]

    def _copies(self, part: CapturedPart, numbers: Sequence[int | None]) -> list[torch.Tensor]:
        copies = []
        for tensor, number in zip(part.tensors, numbers, strict=True):
            copy = None if number is None else self.slots[number].copy
            if copy is None:
                copies.append(tensor)
            elif tensor.requires_grad:
                copies.append(copy.detach().requires_grad_())
            else:
                copies.append(copy)
        return copies

    def _add(self, tensor: torch.Tensor, part: str, place: int) -> None:
        is_dense, strides = _strides(tensor)
        self.slots.append(Slot(tensor, part, place, is_dense, strides, self.size_bytes))
        length = tensor.nbytes if is_dense else _span(tensor.shape, strides) * tensor.itemsize
        self.size_bytes += -(-length // ALIGNMENT) * ALIGNMENT


def _memory(tensor: torch.Tensor) -> tuple[object, ...] | None:
    """Return what two tensors share that can share a copy; None for one without memory."""
    if not tensor.numel():
        return None
    return (
        tensor.data_ptr(),
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
        tensor.device,
        tensor.is_conj(),
        tensor.is_neg(),
    )


def _strides(tensor: torch.Tensor) -> tuple[bool, tuple[int, ...]]:
    """Say whether a tensor is dense in memory; return the strides of a copy of the same order."""
    if tensor.is_contiguous():
        return True, tensor.stride()
    shape, strides = tensor.shape, tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
    if tensor.permute(order).is_contiguous():
        return True, strides
    wanted = stride_order(tensor)
    dense = _packed(shape, wanted or range(tensor.dim()), 1)
    if _order(shape, dense) == wanted:
        return False, dense
    # The order of dimensions of size 1 is recorded too; in dense memory they may have none.
    return False, _packed(shape, wanted or range(tensor.dim()), 2)


def _packed(shape: Sequence[int], order: Sequence[int], least: int) -> tuple[int, ...]:
    """Return strides in an order from the slowest dimension to the fastest.

    Args:
        shape: The sizes.
        order: The dimensions.
        least: The stride of the fastest, and what a dimension of size 1 makes the next one grow by.
    """
    strides = [0] * len(shape)
    step = least
    for dim in reversed(order):
        strides[dim] = step
        step *= max(least, shape[dim])
    return tuple(strides)


def _order(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...] | None:
    return stride_order(torch.empty_strided(tuple(shape), tuple(strides), device="meta"))


def _span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many elements lie from the first to the last."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
