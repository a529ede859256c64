"""Arguments become a program's inputs however they are passed; what does not fit is named."""

from __future__ import annotations

import math

import pytest
import torch

from ckptstore.errors import MismatchError
from ckptstore.programs.binding import Binding
from ckptstore.programs.document import Input, Program
from ckptstore.programs.graph import Graph
from ckptstore.programs.structure import flatten


def binding(inputs, args, kwargs, *, names=("x", "y", "z"), conditions=(), optional=()):
    """Return the binding of a program with these inputs in this structure."""
    node, _, _ = flatten((args, kwargs))
    program = Program(
        torch_version="",
        device=torch.device("cpu"),
        is_exact=True,
        held=(),
        inputs=tuple(inputs),
        args=node["tuple"][0],
        kwargs=node["tuple"][1],
        names=names,
        conditions=conditions,
        graph=Graph(len(inputs), (), ()),
        output={"tuple": []},
        optional=optional,
    )
    return Binding(program, "the program")


TENSOR = Input("tensor", "float32", (None, 3))
NUMBER = Input("number")
FLAG = Input("constant", value=True)
NAN = Input("constant", value=math.nan)
ROWS = torch.ones(2, 3)


def test_arguments_come_by_position_or_by_name():
    bind = binding([TENSOR, NUMBER], (0, 0), {})
    assert bind((ROWS, 5), {}) == [ROWS, 5]
    assert bind((ROWS,), {"y": 5}) == [ROWS, 5]
    assert bind((), {"y": 5, "x": ROWS}) == [ROWS, 5]
    assert bind.names == ["x", "y"]


def test_keyword_arguments_of_the_sample_may_come_by_position():
    bind = binding([TENSOR, NUMBER, FLAG], (0,), {"y": 0, "only": 0})
    assert bind((ROWS, 5), {"only": True}) == [ROWS, 5, True]
    assert bind((ROWS,), {"only": True, "y": 5}) == [ROWS, 5, True]
    with pytest.raises(MismatchError, match="positional"):
        bind((ROWS, 5, True), {})


def test_what_the_module_takes_for_itself_may_be_left_out():
    bind = binding([TENSOR, FLAG, NAN], (0, {"flag": 0}), {"rate": 0}, optional=("y", "rate"))
    assert bind((ROWS,), {})[:2] == [ROWS, True]
    assert bind((ROWS, {"flag": True}), {"rate": math.nan})[1] is True


def test_what_the_module_would_take_something_else_for_has_to_be_given():
    bind = binding([TENSOR, FLAG, NAN], (0, 0), {"rate": 0})
    assert bind((ROWS, True), {"rate": math.nan})[:2] == [ROWS, True]
    with pytest.raises(MismatchError, match=r"y has to be given, as True(?s:.*)rate has to be"):
        bind((ROWS,), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, r"it takes 2 positional argument\(s\), not 0"),
        ((ROWS, 1, 2), {}, r"it takes 2 positional argument\(s\), not 3"),
        ((ROWS, 1), {"w": 1}, r"it takes the keyword arguments \['flag'\], not \['w', 'flag'\]"),
        ((ROWS, 1), {"flag": False}, "flag should be True, and is False"),
        ((ROWS, 1), {"flag": 1}, "flag should be True, and is 1"),
        ((ROWS, "1"), {}, "y should be a number, and is '1'"),
        ((ROWS, True), {}, "y should be a number, and is True"),
        ((ROWS.double(), 1), {}, r"x should be float32\[any, 3\], and is float64\[2, 3\]"),
        ((ROWS[0], 1), {}, r"x should be float32\[any, 3\], and is float32\[3\]"),
        ((ROWS[:, :2], 1), {}, r"x should be float32\[any, 3\], and is float32\[2, 2\]"),
        ((3, 1), {}, r"x should be float32\[any, 3\], and is 3"),
        ((ROWS, 2), {}, r"x.shape\[0\] != y does not hold: x has the shape \[2, 3\]"),
    ],
)
def test_what_does_not_fit_is_named(args, kwargs, problem):
    conditions = (["!=", ["dim", 0, 0], ["number", 1]],)
    inputs = [TENSOR, NUMBER, FLAG]
    bind = binding(inputs, (0, 0), {"flag": 0}, conditions=conditions, optional=("flag",))
    with pytest.raises(
        MismatchError, match=rf"(?s)the program does not fit .*- {problem}.*samples"
    ):
        bind(args, kwargs)


def test_nested_inputs_are_named_by_their_path():
    bind = binding([TENSOR, TENSOR], ({"x": 0, "more": [0]},), {}, names=())
    assert bind.names == ["args[0]['x']", "args[0]['more'][0]"]
    assert bind.describe() == ("args[0]['x']: float32[any, 3], args[0]['more'][0]: float32[any, 3]")
    with pytest.raises(MismatchError, match=r"args\[0\]\['more'\] should be a list of 1"):
        bind(({"x": ROWS, "more": []},), {})
