"""A program's tensors come from the part's state, or out of its own file."""

from __future__ import annotations

import pytest
import torch

from ckptstore.errors import IntegrityError
from ckptstore.programs.document import decode_program
from ckptstore.programs.weights import tensors_of
from tests.programs.nets import export


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({}, "needs the tensor 'weight', which the part does not have"),
        ({"weight": 3}, "needs the tensor 'weight'"),
        ({"weight": torch.ones(3, 3)}, r"needs 'weight' as float32\[2, 3\]"),
        ({"weight": torch.ones(2, 3).double()}, r"needs 'weight' as float32"),
    ],
)
def test_a_state_that_is_another_modules_is_refused(state, problem):
    data = export(torch.nn.Linear(3, 2, bias=False), torch.randn(4, 3))
    program = decode_program(data, "a program")
    with pytest.raises(IntegrityError, match=problem):
        tensors_of(program, data, state, device=torch.device("cpu"), where="a program")
