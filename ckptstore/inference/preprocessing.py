"""The statistics a package applies to its input before the model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptstore.errors import ArgumentError
from ckptstore.inference.arrays import real_array

Array = np.ndarray[Any, np.dtype[np.float64]]
MAX_LISTED = 10


@dataclass(frozen=True)
class Preprocessing:
    """Mean and standard deviation, float64, as NumPy broadcasts them over samples."""

    mean: Array
    std: Array

    def apply(self, batch: Array) -> Array:
        """Return ``(batch - mean) / std`` in float64.

        Args:
            batch: float64, shape (N, *sample).
        """
        return (batch - self.mean) / self.std

    def tree(self) -> dict[str, Any]:
        """Return it as state to be saved."""
        return {"mean": self.mean, "std": self.std}


def check(statistics: object) -> Preprocessing:
    """Return ``preprocessing={"mean": …, "std": …}`` checked.

    Raises:
        ArgumentError: It has other keys, values that are no numbers, shapes that don't broadcast, a
            mean that is not finite, or a std that is zero, negative or not finite; all such columns
            are named at once.
    """
    if not isinstance(statistics, Mapping) or set(statistics) != {"mean", "std"}:
        given = (
            sorted(map(str, statistics))
            if isinstance(statistics, Mapping)
            else type(statistics).__qualname__
        )
        raise ArgumentError(f'preprocessing= takes {{"mean": …, "std": …}}, not {given}')
    mean, std = (_floats(name, statistics[name]) for name in ("mean", "std"))
    try:
        np.broadcast_shapes(mean.shape, std.shape)
    except ValueError as error:
        raise ArgumentError(
            f"preprocessing=: mean has shape {mean.shape} and std {std.shape}, which "
            "don't broadcast"
        ) from error
    problems = [*_problems("mean", mean), *_problems("std", std)]
    if problems:
        raise ArgumentError("preprocessing=: " + "; ".join(problems))
    return Preprocessing(mean, std)


def _floats(name: str, value: object) -> Array:
    return np.array(real_array(value, f"preprocessing=: {name}"), dtype=np.float64)


def _problems(name: str, values: Array) -> list[str]:
    """Return what is wrong with a statistic, with the columns of each."""
    found = [
        ("is NaN", np.isnan(values), "look for NaN in the data it was computed from"),
        ("is infinite", np.isinf(values), "look for values too large in that data, or a log of 0"),
    ]
    if name == "std":
        flat = np.isfinite(values) & (values <= 0)
        advice = "a constant column has no spread: set its std to 1, or drop the column"
        found.append(("is zero or negative", flat, advice))
    return [f"{name} {what}{_places(bad)}: {advice}" for what, bad, advice in found if bad.any()]


def _places(bad: Any) -> str:
    if not bad.ndim:
        return ""
    where = [_column(index) for index in np.argwhere(bad).tolist()]
    shown = ", ".join(where[:MAX_LISTED]) + (
        f" and {len(where) - MAX_LISTED} more" if len(where) > MAX_LISTED else ""
    )
    return f" in column(s) {shown}"


def _column(index: Sequence[int]) -> str:
    return str(index[0]) if len(index) == 1 else str(tuple(index))


def sample_shape(preprocessing: Preprocessing | None, sample: object) -> tuple[int, ...] | None:
    """Return the shape of one sample: *sample*'s, else the statistics', else None (unknown).

    Raises:
        ArgumentError: *sample* is no array of numbers, or does not go with the statistics.
    """
    spread: tuple[int, ...] = ()
    if preprocessing is not None:
        spread = np.broadcast_shapes(preprocessing.mean.shape, preprocessing.std.shape)
    if sample is None:
        return spread or None
    shape: tuple[int, ...] = real_array(sample, "sample=").shape
    try:
        fits = np.broadcast_shapes(shape, spread) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ArgumentError(f"sample= has shape {shape}, and the statistics have {spread}")
    return shape
