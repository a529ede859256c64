"""Arrays, numbers and dtypes of NumPy out of what their pickles say, without NumPy's own readers.

Those believe what they are told: a dtype with a size that isn't its own, or of Python objects, has
them read memory that is nobody's. Here a dtype is one of the plain ones, by its code, and an array
is made of exactly as many bytes as it has.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np

CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[US][0-9]{1,9})")
"""What NumPy calls the dtypes that hold plain values: kind and size."""
NAMES = {"?": "b1", "bool": "b1"}
ORDERS = "<>|="
STATE_LENGTHS = (8, 9)
PLAIN_FLAGS = (0, 8)
"""Of a dtype: none, and the one that text has."""
MAX_DIMENSIONS = 32
LAST_LETTER = 0x10FFFF


class UnusualError(ValueError):
    """Something that real files may hold, and that is made by running what they say alone."""


def plain_dtype(args: tuple[Any, ...], state: Any) -> np.dtype[Any]:
    """Return a dtype.

    Args:
        args: What ``numpy.dtype`` would be called with.
        state: What it would be filled with, None for nothing.

    Raises:
        UnusualError: It is of another kind, e.g. of Python objects or with fields.
        ValueError: It contradicts itself.
    """
    code = args[0] if args else None
    code = NAMES.get(code, code) if isinstance(code, str) else None
    if code is None or not CODE.fullmatch(code):
        raise UnusualError(f"a dtype of NumPy that is none of the plain ones: {args[:1]!r:.80}")
    made = np.dtype(code)
    if state is None:
        return made
    if not isinstance(state, tuple) or len(state) not in STATE_LENGTHS:
        raise ValueError("a dtype with a state that NumPy never writes")
    order, inner, (size, _, flags) = state[1], state[2:5], state[5:8]
    if inner != (None, None, None) or any(state[8:]):
        raise UnusualError("a dtype of NumPy with fields, an inner shape or metadata")
    if not isinstance(order, str) or len(order) != 1 or order not in ORDERS:
        raise ValueError("a dtype without a byte order")
    if type(size) is not int or size not in (-1, made.itemsize) or flags not in PLAIN_FLAGS:
        raise ValueError("a dtype with a size or flags that it can't have")
    return np.dtype(f"{order}{made.str[1:]}")


def plain_array(dtype: np.dtype[Any], shape: Any, data: Any, *, fortran: bool) -> np.ndarray:
    """Return an array that has its own memory.

    Args:
        dtype: One that :func:`plain_dtype` made.
        shape: Whole numbers.
        data: Its bytes.
        fortran: Whether the first dimension runs fastest.

    Raises:
        ValueError: The bytes are not as many as the array has.
    """
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array without a shape")
    if len(shape) > MAX_DIMENSIONS or not isinstance(data, bytes | bytearray):
        raise ValueError("an array of more dimensions than NumPy has, or not of bytes")
    count = prod(shape)
    if count * dtype.itemsize != len(data) or (not dtype.itemsize and count > 1):
        raise ValueError(
            f"an array of {count} values of {dtype.itemsize} bytes that has {len(data)} bytes"
        )
    if not data:
        return np.zeros(shape, dtype)
    if dtype.kind == "U":
        letters = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder))
        if letters.max() > LAST_LETTER:
            raise ValueError("an array of text that is no text")
    if dtype.kind == "b":
        found = np.frombuffer(data, np.uint8) != 0
    else:
        found = np.frombuffer(data, dtype).copy()
    made: np.ndarray = found.reshape(shape, order="F" if fortran else "C")
    return made
