"""What users hand over as numbers, as a NumPy array: lists, arrays and tensors of any dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ckptstore.errors import ArgumentError

# Floating dtypes of torch that NumPy has too; the others (bfloat16, float8) go through float32,
# which holds each of their values exactly.
SHARED = (torch.float16, torch.float32, torch.float64)


def real_array(value: object, what: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Return real numbers as an array of their own kind and shape, without a copy where possible.

    Args:
        value: Numbers: NumPy, nested lists or a tensor on any device.
        what: Names it in errors, e.g. ``sample=``.

    Raises:
        ArgumentError: They are no real numbers, or rows differ in length.
    """
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        if tensor.is_floating_point() and tensor.dtype not in SHARED:
            tensor = tensor.float()
        value = tensor.numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ArgumentError(f"{what} takes numbers of one shape: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ArgumentError(f"{what} takes real numbers, not {array.dtype}")
    return array
