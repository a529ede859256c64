"""Outputs are compared bit by bit first, then within torch's tolerances."""

from __future__ import annotations

import pytest
import torch

from ckptstore.errors import ProgramError
from ckptstore.programs.comparing import compare, computed
from ckptstore.programs.samples import Sample
from ckptstore.programs.undisturbed import Unwritten
from tests.programs import nets

NAN = torch.tensor([float("nan"), 1.0])


@pytest.mark.parametrize(
    "value",
    [torch.ones(2), NAN, torch.ones(2, dtype=torch.complex64).conj(), torch.ones(2).bool(), 1, "a"],
)
def test_what_is_equal_is_exact(value):
    assert compare([value], [value])


def test_what_is_nearly_equal_is_not_exact():
    assert not compare([torch.ones(2)], [torch.ones(2) + 1e-7])
    assert not compare([torch.tensor(0.0)], [torch.tensor(-0.0)])


@pytest.mark.parametrize(
    "found", [torch.zeros(2), torch.ones(3), torch.ones(2).double(), 1, None, "text"]
)
def test_what_differs_is_refused_by_its_place(found):
    with pytest.raises(ProgramError, match="something else than the module does: output 1"):
        compare([0, torch.ones(2)], [0, found])


def test_a_module_starts_from_the_same_state_each_time():
    module, sample = nets.Counting(), Sample((torch.ones(2, 3),), {})
    buffers = Unwritten(list(module.buffers()))
    first, second = (computed(module, sample, buffers)[1] for _ in range(2))
    assert compare(first, second)
    module = nets.Drawing()
    first, second = (computed(module, sample, Unwritten([]))[1] for _ in range(2))
    assert compare(first, second)
