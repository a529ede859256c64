"""A slice of a tensor: the box of it that is read, and where in a chunk the box's bytes lie."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from ckptstore.errors import ArgumentError

Box = tuple[tuple[int, int], ...]
"""From where to where, in each dimension."""


@dataclass(frozen=True)
class Span:
    """Bytes of a chunk that are read at once, and the elements of a box that they hold."""

    start: int
    """From the chunk's first byte."""
    length: int
    box: Box
    """Which elements of the chunk, counted from the chunk's own first."""
    strides: tuple[int, ...]
    """How many elements of the chunk lie from one to the next, in each dimension."""


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
    box: list[tuple[int, int]] = []
    rest: list[Any] = []
    for item in items:
        if item is None:
            rest.append(None)
        elif item is Ellipsis:
            for size in shape[len(box) : len(box) + len(shape) - used]:
                box.append((0, size))
                rest.append(slice(None))
        else:
            taken, inner = _taken(item, shape[len(box)], what)
            box.append(taken)
            rest.append(inner)
    return tuple(box), tuple(rest)


def _taken(item: Any, size: int, what: str) -> tuple[tuple[int, int], Any]:
    """Return the stretch of one dimension that an index needs, and the index into that."""
    if isinstance(item, slice):
        start, stop, step = item.indices(size)
        if step < 1:
            raise ArgumentError(f"{what}: a slice's step is at least 1, as a tensor's, not {step}")
        count = len(range(start, stop, step))
        return (start, start + (count - 1) * step + 1 if count else start), slice(None, None, step)
    place = operator.index(item)
    if not -size <= place < size:
        raise IndexError(f"{what}: {place} is out of range for {size}")
    return (place % size, place % size + 1), 0


def _is_integer(item: Any) -> bool:
    try:
        operator.index(item)
    except TypeError:
        return False
    return not isinstance(item, bool)


def shape_of(box: Box) -> tuple[int, ...]:
    """Return the shape of a box."""
    return tuple(stop - start for start, stop in box)


def overlap(box: Box, offsets: Sequence[int], shape: Sequence[int]) -> Box | None:
    """Return what of a box lies in a chunk, counted from the chunk's first element; or None.

    Args:
        box: Of the whole tensor.
        offsets: Where the chunk begins in the tensor.
        shape: The chunk's.
    """
    common = tuple(
        (max(start - offset, 0), min(stop - offset, size))
        for (start, stop), offset, size in zip(box, offsets, shape, strict=True)
    )
    return common if all(start < stop for start, stop in common) else None


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
    strides = tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))
    length = itemsize  # from the first byte to the last of what is read at once, so far
    outer, group = 0, 1
    for dim in reversed(range(len(shape))):
        start, stop = box[dim]
        step = strides[dim] * itemsize
        whole = (stop - start - 1) * step + length
        gap = step - length
        if stop - start > 1 and gap and (gap > gap_bytes or whole > most_bytes):
            outer = dim + 1
            group = 1 if gap > gap_bytes else max(1, (most_bytes - length) // step + 1)
            break
        length = whole
    for pieces in product(
        *(_groups(*box[dim], group if dim == outer - 1 else 1) for dim in range(outer))
    ):
        at = pieces + box[outer:]
        first = sum(start * step for (start, _), step in zip(at, strides, strict=True))
        last = sum((stop - 1) * step for (_, stop), step in zip(at, strides, strict=True))
        yield Span(first * itemsize, (last - first + 1) * itemsize, at, strides)


def _groups(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]
