"""Outputs are compared bit by bit first, then within torch's tolerances."""

from __future__ import annotations

import pytest
import torch

from ckptstore.errors import ProgramError
from ckptstore.programs.comparing import Computed, compare, compare_calls, computed, furthest
from ckptstore.programs.samples import Sample
from ckptstore.programs.undisturbed import Kept
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
    sample = Sample((torch.ones(2, 3),), {})
    for module in (nets.Counting(), nets.Drawing()):
        kept = Kept(module)
        first, second = (computed(module, sample, kept).outputs[0] for _ in range(2))
        assert compare(first, second)


def test_calls_in_a_row_go_on_from_each_other_and_what_they_change_is_named():
    module = nets.Counting()
    ran = computed(module, Sample((torch.ones(2, 3),), {}), Kept(module), times=2)
    assert [int(each[1]) for each in ran.outputs] == [1, 2]
    assert (sorted(ran.changed), ran.unsettled) == (["calls", "total"], [])
    assert furthest(ran, ran) == 0.0
    other = Computed(None, [[each + 0.25 for each in call] for call in ran.outputs], [], [])
    assert furthest(ran, other) == 0.25
    with pytest.raises(ProgramError, match="something else than the module does: output 0"):
        compare_calls(ran, other)
