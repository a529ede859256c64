"""Values of a foreign checkpoint that are numbers, however they were written. Pure."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ckptstore.importing.file_names import LARGEST

DIGITS = re.compile(r"\s*[0-9]{1,18}\s*", re.ASCII)


def whole(value: Any) -> int | None:
    """Return a whole number that a version can have as its epoch or step, None for all else.

    It may be text of digits alone, or the one element of a tensor or an array.
    """
    if isinstance(value, str) and DIGITS.fullmatch(value):
        value = int(value)
    number = real(value)
    if number is None or number != number // 1 or abs(number) >= LARGEST:  # NaN and infinities too
        return None
    return int(number)


def real(value: Any) -> float | int | None:
    """Return a real number, also one that is a tensor's or an array's one element; else None."""
    if isinstance(value, torch.Tensor):
        is_one = value.layout is torch.strided and value.numel() == 1 and not value.is_complex()
        value = value.item() if is_one and not value.is_meta else None
    elif isinstance(value, np.generic | np.ndarray):
        value = value.item() if value.size == 1 else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        near = float(value)
    except OverflowError:
        return None  # metrics are compared as floats
    return int(value) if isinstance(value, numbers.Integral) else near


def unlike(one: Mapping[str, float | int], other: Mapping[str, float | int]) -> list[str]:
    """Return the names under which both have a number, and not the same; NaN is like NaN."""
    return [
        name
        for name, number in one.items()
        if name in other
        and number != other[name]
        and not (math.isnan(number) and math.isnan(other[name]))
    ]


def numbers_in(value: object) -> tuple[dict[str, float | int], list[str]]:
    """Return the numbers of nested dicts by their paths, and the paths of all else."""
    found: dict[str, float | int] = {}
    others: list[str] = []
    pending = [("", value)]
    while pending:
        path, item = pending.pop(0)
        if isinstance(item, Mapping):
            above = f"{path}/" if path else ""
            pending += [(f"{above}{key}", each) for key, each in item.items()]
        elif path and (number := real(item)) is not None:
            found[path] = number
        elif path and item is not None:
            others.append(path)
    return found, others
