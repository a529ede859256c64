"""A program as a module: what it says of itself, and what it refuses."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - what is tested is that it refuses

import pytest
import torch

from ckptstore.errors import MismatchError, StateWarning, UsageError
from tests.programs import nets
from tests.programs.nets import loaded
from tests.programs.test_operators import twice


class Twice(torch.nn.Module):
    """Calls an operator that is not torch's own."""

    def forward(self, x):
        """Return twice *x*."""
        return twice(x)


def test_it_is_in_eval_mode_and_says_what_it_takes():
    program = loaded(nets.Net(), torch.randn(2, 1, 8, 8))
    assert not program.training
    assert "the program, on cpu; it takes x: float32[any, 1, 8, 8]" in repr(program)


def test_its_mode_changes_nothing():
    program = loaded(nets.Net(), torch.randn(2, 1, 8, 8))
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(program(x), program.train()(x))


@pytest.mark.parametrize("move", [lambda p: p.to("cpu"), lambda p: p.half(), lambda p: p.double()])
def test_it_is_loaded_again_to_be_moved(move):
    program = loaded(torch.nn.Linear(3, 2), torch.randn(2, 3))
    with pytest.raises(UsageError, match=r"load it again with load_program\(device=…\)"):
        move(program)


def test_a_copy_computes_the_same():
    program = loaded(nets.Counting(), torch.randn(2, 3))
    other = copy.deepcopy(program)
    first = program(torch.ones(2, 3))
    assert torch.equal(other(torch.ones(2, 3))[0], first[0])


def test_operators_of_others_are_called_where_they_are_allowed():
    with pytest.raises(MismatchError, match=r"'ckptstore_tests.twice.default' is of"):
        loaded(Twice(), torch.ones(2, 3))
    program = loaded(Twice(), torch.ones(2, 3), operators=["ckptstore_tests"])
    assert torch.equal(program(torch.ones(4, 3)), torch.full((4, 3), 2.0))


def test_it_can_be_compiled():
    module = nets.Attention().eval()
    program = torch.compile(loaded(module, torch.ones(2, 6, dtype=torch.long)), backend="eager")
    ids = torch.randint(0, 50, (3, 6))
    with torch.no_grad():
        assert torch.equal(program(ids), module(ids))


def test_a_program_is_not_pickled_and_the_error_says_what_to_do():
    program = loaded(nets.Line(), torch.ones(2, 3))
    with pytest.raises(UsageError, match=r"can't be pickled: call load_program\(\) again"):
        pickle.dumps(program)


def test_it_says_which_sizes_it_takes():
    with pytest.warns(StateWarning, match="some sizes only"):
        program = loaded(nets.Branching(), torch.ones(4, 3))
    assert "x: float32[any, 3], where x.shape[0] >= 2 and (x.shape[0] % 2) == 0" in repr(program)
