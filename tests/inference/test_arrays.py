"""Numbers as users have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptstore.errors import ArgumentError
from ckptstore.inference.arrays import real_array


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        (1, 2),
        np.array([1, 2]),
        torch.tensor([1, 2]),
        [torch.tensor(1), torch.tensor(2)],
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1.0, 2.0]).to(torch.float8_e5m2),
        torch.complex(torch.zeros(2), torch.tensor([-1.0, -2.0])).conj().imag,
    ],
)
def test_all_kinds_of_numbers_are_taken(value):
    assert real_array(value, "x").tolist() == [1, 2]


def test_arrays_are_not_copied():
    array = np.zeros(3)

    assert real_array(array, "x") is array


@pytest.mark.parametrize("value", ["1", None, [None], {"a": 1}, 1j, [10**40], b"1"])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(ArgumentError, match="sample= takes real numbers, not "):
        real_array(value, "sample=")


def test_rows_that_differ_are_refused():
    with pytest.raises(ArgumentError, match="sample= takes numbers of one shape"):
        real_array([[1], [1, 2]], "sample=")
