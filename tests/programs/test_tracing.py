"""What torch.export made of a module, taken over node by node."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.utils._pytree import GetAttrKey, register_pytree_node

from ckptstore.errors import ProgramError
from ckptstore.programs.conditions import words
from ckptstore.programs.structure import flatten
from ckptstore.programs.tracing import guard_paths, guards_of, traced

AUTO = torch.export.Dim.AUTO


def trace(module, *args, shapes=None, **kwargs):
    """Return a module's graph as a program has it."""
    exported = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
    _, leaves, paths = flatten((args, kwargs))
    places = guard_paths(inspect.signature(module.forward), paths)
    return traced(exported, leaves, places, guards_of(exported))


class Box:
    """A container that torch was told of."""

    def __init__(self, inside):
        self.inside = inside


register_pytree_node(
    Box,
    lambda box: ([box.inside], None),
    lambda inside, _: Box(*inside),
    flatten_with_keys_fn=lambda box: ([(GetAttrKey("inside"), box.inside)], None),
)


class Sum(nn.Module):
    def forward(self, x, y, n=2):
        return x + y * n


def test_equal_sizes_have_to_be_equal():
    found = trace(Sum(), torch.ones(4, 3), torch.ones(4, 3), shapes=({0: AUTO}, {0: AUTO}))
    assert [words(each, ["x", "y"]) for each in found.conditions] == [
        "y.shape[0] == x.shape[0]",
        "x.shape[0] >= 2",
    ]
    assert found.batches == [["dim", 0, 0]]


def test_sizes_that_are_in_other_places_too_are_no_batch():
    found = trace(Sum(), torch.ones(4, 4), torch.ones(4, 4), shapes=({0: AUTO, 1: AUTO}, {0: AUTO}))
    assert found.batches == [["dim", 0, 0]]

    class Square(nn.Module):
        def forward(self, x):
            return x @ x

    found = trace(Square(), torch.ones(4, 4), shapes=({0: AUTO, 1: AUTO},))
    assert found.batches == []


def test_sizes_made_of_others_have_to_be_so():
    batch = torch.export.Dim("batch", min=2, max=100)
    shapes = ({0: batch}, {0: 2 * batch})

    class Halves(nn.Module):
        def forward(self, x, y):
            return torch.cat([x, x]) + y

    found = trace(Halves(), torch.ones(4, 3), torch.ones(8, 3), shapes=shapes)
    said = [words(each, ["x", "y"]) for each in found.conditions]
    assert "y.shape[0] == (2 * x.shape[0])" in said
    assert "x.shape[0] <= 100" in said


def test_numbers_may_vary_or_not():
    x = torch.ones(4, 3)
    fixed = trace(Sum(), x, x.clone(), 5)
    assert [each.kind for each in fixed.inputs] == ["tensor", "tensor", "constant"]
    assert fixed.inputs[2].value == 5
    varying = trace(Sum(), x, x.clone(), 5, shapes=(None, None, torch.export.Dim.DYNAMIC))
    assert varying.inputs[2].kind == "number"


def test_what_has_no_word_is_named_with_its_line():
    class Looping(nn.Module):
        def forward(self, x):
            return torch.vmap(lambda row: row.sum())(x)

    with pytest.raises(ProgramError, match=r"it calls .* \(at .*vmap.*which a program has no word"):
        trace(Looping(), torch.ones(4, 3))


def test_inputs_of_other_kinds_are_refused():
    class Unboxing(nn.Module):
        def forward(self, box):
            return box.inside

    with pytest.raises(ProgramError, match="one of its inputs is a Box: pass tensors"):
        trace(Unboxing(), Box(torch.ones(4, 3)))


def test_guards_know_inputs_by_the_names_of_arguments():
    def forward(x, *rest, mask=None, **others):
        return x, rest, mask, others

    _, _, paths = flatten(((1, [2], {"k": 3}), {"mask": 4, "more": [5]}))
    assert guard_paths(inspect.signature(forward), paths) == {
        ("x",): 0,
        ("rest", 0, 0): 1,
        ("rest", 1, "k"): 2,
        ("mask",): 3,
        ("others", "more", 0): 4,
    }
