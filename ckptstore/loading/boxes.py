"""A slice of a tensor: the box of it that is read, and where in a chunk the box's bytes lie."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch

from ckptstore.errors import ArgumentError

Box = tuple[range, ...]
"""Which places in each dimension: from where to where, and in which steps."""


@dataclass(frozen=True)
class Span:
    """Bytes of a chunk that are read at once, and the elements of a box that they hold."""

    start: int
    """From the chunk's first byte."""
    length: int
    box: Box
    """Which elements of the chunk, counted from the chunk's own first."""
    strides: tuple[int, ...]
    """How many elements of the chunk lie from one of the box to the next, in each dimension."""


def box_of(index: Any, shape: Sequence[int], what: str) -> tuple[Box, tuple[Any, ...]]:
    """Return the box of a tensor that an index needs, and the index into that box.

    Args:
        index: Integers, slices, ``...`` and None, as for a tensor.
        shape: The tensor's.
        what: Names the tensor in errors.

    Raises:
        ArgumentError: The index has anything else, a step below 1, or too many dimensions.
        IndexError: An integer is out of range.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    for item in items:
        if not (item is None or item is Ellipsis or isinstance(item, slice) or _is_integer(item)):
            raise ArgumentError(
                f"{what} takes integers, slices, ... and None, not {item!r:.80}: read it whole "
                "with [...], and index that"
            )
    used = sum(item is not None and item is not Ellipsis for item in items)
    if used > len(shape) or sum(item is Ellipsis for item in items) > 1:
        raise ArgumentError(f"{what} has {len(shape)} dimensions, and {index!r:.80} more")
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    box: list[range] = []
    rest: list[Any] = []
    for item in items:
        if item is None:
            rest.append(None)
        elif item is Ellipsis:
            for size in shape[len(box) : len(box) + len(shape) - used]:
                box.append(range(size))
                rest.append(slice(None))
        else:
            taken, inner = _taken(item, shape[len(box)], what)
            box.append(taken)
            rest.append(inner)
    return tuple(box), tuple(rest)


def _taken(item: Any, size: int, what: str) -> tuple[range, Any]:
    """Return the places of one dimension that an index needs, and the index into those."""
    if isinstance(item, slice):
        start, stop, step = item.indices(size)
        if step < 1:
            raise ArgumentError(f"{what}: a slice's step is at least 1, as a tensor's, not {step}")
        return range(start, stop, step), slice(None)
    place = operator.index(item)
    if not -size <= place < size:
        raise IndexError(f"{what}: {place} is out of range for {size}")
    return range(place % size, place % size + 1), 0


def _is_integer(item: Any) -> bool:
    # torch takes a tensor of one dimension for a list of places, and one of truth (or of uint8)
    # for a mask; but both say that they are integers if they have one element.
    if isinstance(item, torch.Tensor) and (item.dim() or item.dtype in (torch.bool, torch.uint8)):
        return False
    try:
        operator.index(item)
    except TypeError:
        return False
    return not isinstance(item, bool)


def shape_of(box: Box) -> tuple[int, ...]:
    """Return the shape of what a box holds."""
    return tuple(map(len, box))


def overlap(box: Box, offsets: Sequence[int], shape: Sequence[int]) -> Box | None:
    """Return what of a box lies in a chunk, counted from the chunk's first element; or None.

    Args:
        box: Of the whole tensor.
        offsets: Where the chunk begins in the tensor.
        shape: The chunk's.
    """
    common = []
    for places, offset, size in zip(box, offsets, shape, strict=True):
        first = places.start + max(0, -((places.start - offset) // places.step)) * places.step
        common.append(range(first - offset, min(places.stop - offset, size), places.step))
    return tuple(common) if all(common) else None


def within(inner: Box, offsets: Sequence[int], box: Box) -> tuple[slice, ...]:
    """Return where in a box's values those of a part of it belong.

    Args:
        inner: The part, counted from the first element of a chunk.
        offsets: Where the chunk begins in the tensor.
        box: Of the whole tensor.
    """
    firsts = [
        (places[0] + offset - whole.start) // whole.step
        for places, offset, whole in zip(inner, offsets, box, strict=True)
    ]
    return tuple(
        slice(first, first + len(places)) for first, places in zip(firsts, inner, strict=True)
    )


def spans(
    box: Box, shape: Sequence[int], itemsize: int, *, gap_bytes: int, most_bytes: int
) -> Iterator[Span]:
    """Yield the stretches of a chunk in which a box lies.

    What lies between two of them is more than *gap_bytes* each time, or to read it too would make
    more than *most_bytes* at once; so there are few of them, however thin the slice.

    Args:
        box: Not empty; of the chunk, counted from its first element.
        shape: The chunk's, row-major.
        itemsize: Bytes of an element.
        gap_bytes: What is cheaper to read than to ask around.
        most_bytes: What is read at once at most, where it is not all wanted.
    """
    elements = tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))
    strides = tuple(each * places.step for each, places in zip(elements, box, strict=True))
    length = itemsize  # from the first byte to the last of what is read at once, so far
    outer, group = 0, 1
    for dim in reversed(range(len(shape))):
        count, step = len(box[dim]), strides[dim] * itemsize
        whole = (count - 1) * step + length
        gap = step - length
        if count > 1 and gap and (gap > gap_bytes or whole > most_bytes):
            outer = dim + 1
            group = 1 if gap > gap_bytes else max(1, (most_bytes - length) // step + 1)
            break
        length = whole
    for pieces in product(
        *(_groups(box[dim], group if dim == outer - 1 else 1) for dim in range(outer))
    ):
        at = pieces + box[outer:]
        first = sum(places[0] * each for places, each in zip(at, elements, strict=True))
        last = sum(places[-1] * each for places, each in zip(at, elements, strict=True))
        yield Span(first * itemsize, (last - first + 1) * itemsize, at, strides)


def _groups(places: range, size: int) -> list[range]:
    return [places[at : at + size] for at in range(0, len(places), size)]
