"""Saved state and parameters brought together: by name, by position only where no name tells."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckptstore.state.matching import Parameter, match, present_parameters, saved_parameters

GROUPS = (
    "1 parameter groups were saved, and this optimizer has 2: build it with those groups, or leave "
    "it out, and it begins anew"
)
COUNTS = "group 0: no name tells which 1 of the saved parameters are which 2 of this optimizer's"


def here(*groups):
    """Parameters by their names in modules; several separated by a blank, ``=`` marks a given."""
    numbers = iter(range(99))
    return [[parameter(next(numbers), name) for name in group] for group in groups]


def parameter(number, name):
    if name is None:
        return Parameter(number)
    if name.startswith("="):
        return Parameter(number, (), name[1:], name[1:].removeprefix("module."))
    return Parameter(number, tuple(name.split()))


def pairs(found):
    assert (found.problems, found.lacking, found.unused) == ([], {}, {})
    return [saved for _, saved in sorted(found.saved_of.items())]


@pytest.mark.parametrize(
    ("saved", "present", "numbers"),
    [
        ([["m/a", "m/b"], ["m/c"]], [["m/b", "m/a"], ["m/c"]], [1, 0, 2]),
        ([["=a", "=b"]], [["=b", "=a"]], [1, 0]),
        ([[]], [[]], []),
        ([], [], []),
        # Names of modules and names that were given, in either direction.
        ([["m/a", "m/b"]], [["=b", "=a"]], [1, 0]),
        ([["=a", "=b"]], [["m/b", "m/a"]], [1, 0]),
        ([["=x/a", "=x/b"]], [["m/x/b", "m/x/a"]], [1, 0]),
        # What a wrapper put in front of the names that were given.
        ([["=module.a", "=module.b"]], [["=b", "=a"]], [1, 0]),
        ([["=a", "=b"]], [["=module.b", "=module.a"]], [1, 0]),
        ([["=module.a", "=module.b"]], [["m/b", "m/a"]], [1, 0]),
        ([["m/a", "m/b"]], [["=module.b", "=module.a"]], [1, 0]),
        ([["m/a", "m/b", "=module.w"]], [["=w", "m/b", "m/a"]], [2, 1, 0]),
        # Whatever a parameter is called, if it is tied.
        ([["m/x", "m/z"]], [["m/z", "m/y m/x"]], [1, 0]),
        ([["a/w"]], [["b/w a/w"]], [0]),
        # Those without a name go by position among themselves, those with one by name.
        ([["m/a", "m/b", None]], [["m/b", "m/a", None]], [1, 0, 2]),
        ([[None, "m/a", None, "m/b"]], [["m/b", None, None, "m/a"]], [3, 0, 2, 1]),
        ([[None, "m/a"], [None]], [["m/a", None], [None]], [1, 0, 2]),
        # A module that was not handed over then, or is not now.
        ([["m/a", "m/b", None]], [["c/w", "m/b", "m/a"]], [2, 1, 0]),
        ([["m/a", "c/w", "m/b"]], [["m/b", "m/a", None]], [2, 0, 1]),
        ([["m/a", "c/w"]], [["=w", "m/a"]], [1, 0]),
        # No names in common, because they are of two kinds.
        ([["m/a", "m/b"]], [["=net.b", "=net.a"]], [0, 1]),
        ([["m/a", "m/b"]], [[None, None]], [0, 1]),
        ([[None, None]], [["m/a", "m/b"]], [0, 1]),
        # A name that two have tells nothing.
        ([["=a", "=a"]], [["=b", "=c"]], [0, 1]),
        ([["g/w", "c/w"]], [["=w", "=w"]], [0, 1]),
        ([["g/w", "c/w", "g/x"]], [["=x", "=w", "=w"]], [2, 0, 1]),
    ],
)
def test_what_belongs_together_is_found(saved, present, numbers):
    assert pairs(match(here(*saved), here(*present))) == numbers


def test_names_given_serve_where_those_of_modules_have_no_counterpart():
    saved = [[Parameter(0, ("m/a",), "net.a"), Parameter(1, ("m/b",), "net.b")]]
    assert pairs(match(saved, here(["=net.b", "=net.a"]))) == [1, 0]


@pytest.mark.parametrize(
    ("saved", "present", "lacking", "unused"),
    [
        (["=a"], ["=b"], ["'b'"], ["'a'"]),
        (["m/a"], ["m/b"], ["'m/b'"], ["'m/a'"]),
        (["m/a"], ["n/a"], ["'n/a'"], ["'m/a'"]),
        (["m/a", "m/b"], ["=a", "=c"], ["'c'"], ["'b'"]),
        (["m/a"], ["m/a", "m/b", None], ["'m/b'", "parameter 2, which has no name"], []),
        (["m/a", None], ["m/a"], [], ["parameter 1, which has no name"]),
        # One that the other side would have had a name for is never paired with one that has none.
        (["m/a", None], ["m/a", "m/b"], ["'m/b'"], ["parameter 1, which has no name"]),
        ([None, "=b"], ["=x", None], ["'x'"], ["'b'"]),
        (["n/a", None], ["m/a", None], ["'m/a'"], ["'n/a'"]),
        # Untied then and tied now, and the other way round.
        (["m/x", "m/y"], ["m/x m/y"], [], ["'m/y'"]),
        (["m/x"], ["m/x", "m/y"], ["'m/y'"], []),
    ],
)
def test_what_has_no_counterpart_is_named(saved, present, lacking, unused):
    found = match(here(saved), here(present))
    assert (list(found.lacking.values()), list(found.unused.values())) == (lacking, unused)
    assert not found.problems


@pytest.mark.parametrize(
    ("saved", "present", "problems"),
    [
        (
            [["m/a", "m/b"]],
            [["m/a"], ["m/b"]],
            [GROUPS],
        ),
        (
            [["m/a", None]],
            [[None, None, "m/a"]],
            [COUNTS],
        ),
        (
            [["m/a"], ["m/b", "m/d"]],
            [["m/b"], ["m/a", "m/c"]],
            [
                "group 0 had other parameters: ['m/a']; now ['m/b']",
                "group 1 had other parameters: ['m/b']; now ['m/a']",
            ],
        ),
    ],
)
def test_groups_that_do_not_fit_are_told(saved, present, problems):
    assert match(here(*saved), here(*present)).problems == problems


def test_names_that_differ_are_told_with_groups_that_do():
    found = match(here(["m/a", "m/b", None]), here(["m/a"], ["m/c", None]))
    assert (found.problems, found.lacking, found.unused) == (
        [GROUPS],
        {1: "'m/c'"},
        {1: "'m/b'"},
    )


def test_parameters_have_all_their_names():
    one = nn.DataParallel(nn.Linear(1, 1))
    optimizer = torch.optim.SGD([*one.named_parameters(), ("w", nn.Parameter(torch.ones(1)))])
    assert present_parameters(optimizer, {"model": one, "again": one.module}) == [
        [
            Parameter(0, ("model/weight", "again/weight"), "module.weight", "weight"),
            Parameter(1, ("model/bias", "again/bias"), "module.bias", "bias"),
            Parameter(2, (), "w", "w"),
        ]
    ]


def test_recorded_names_are_those_of_modules_or_those_that_were_given():
    recorded = (("model/a", "module.b", None), ("x/y",))
    given = (("module.a", "module.b", None), ("x/y",))
    assert saved_parameters(recorded, given, lambda part, key: f"{part}:{key}") == [
        [
            Parameter(0, ("model/model:a",), "None:module.a", "None:a"),
            Parameter(1, (), "None:module.b", "None:b"),
            Parameter(2),
        ],
        [Parameter(3, (), "None:x/y", "None:x/y")],
    ]
    assert saved_parameters(None, ((None,),)) == [[Parameter(0)]]
