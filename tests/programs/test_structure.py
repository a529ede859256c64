"""Nested values are taken apart and put together again; a lie about their structure is refused."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError
from ckptstore.programs.structure import check, collect, flatten, leaves_in, rebuild

LEAVES = st.none() | st.integers() | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
)
Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - users write them so


@given(VALUES)
def test_what_is_taken_apart_can_be_put_together(value):
    node, leaves, paths = flatten(value)
    check(node, len(leaves), "a program")
    assert rebuild(node, leaves) == value
    assert list(leaves_in(node)) == list(range(len(leaves)))
    assert len(paths) == len(leaves)


def test_leaves_have_paths():
    assert flatten(({"x": 1, "y": [2, 3]}, 4))[2] == [(0, "x"), (0, "y", 0), (0, "y", 1), (1,)]


def test_named_tuples_and_ordered_dicts_become_plain_ones():
    node, leaves, _ = flatten(OrderedDict(a=Pair(1, 2)))
    assert rebuild(node, leaves) == {"a": (1, 2)}
    assert type(rebuild(node, leaves)["a"]) is tuple


def test_a_shape_is_one_value():
    assert flatten([torch.Size([2, 3])])[1] == [torch.Size([2, 3])]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1], "batch should be a dict with the keys ['x', 'y'], and is a list"),
        ({"x": 1}, "batch should be a dict with the keys ['x', 'y'], and has ['x']"),
        ({"x": 1, "y": [2]}, "batch['y'] should be a list of 2, and has 1"),
        ({"x": 1, "y": 2}, "batch['y'] should be a list of 2, and is a int"),
    ],
)
def test_what_has_another_structure_is_named(value, problem):
    node, _, _ = flatten({"x": 1, "y": [2, 3]})
    assert list(collect(node, value, lambda *_: None, "batch")) == [problem]


def test_leaves_are_taken_in_whatever_order_the_keys_are():
    node, _, _ = flatten({"x": 1, "y": [2, 3]})
    found = {}
    assert list(collect(node, {"y": (8, 9), "x": 7}, found.__setitem__, "batch")) == []
    assert found == {0: 7, 1: 8, 2: 9}


@pytest.mark.parametrize(
    "node",
    [
        None,
        [],
        {},
        {"leaf": 0, "list": []},
        {"leaf": True},
        {"leaf": 1},
        {"leaf": -1},
        {"leaf": "0"},
        {"list": [{"leaf": 0}, {"leaf": 0}]},
        {"list": {"leaf": 0}},
        {"set": [{"leaf": 0}]},
        {"dict": [["a", {"leaf": 0}, 1]]},
        {"dict": [[[], {"leaf": 0}]]},
        {"dict": [["a", {"list": []}], ["a", {"leaf": 0}]]},
        {"tuple": []},
    ],
)
def test_what_is_no_structure_of_one_leaf_is_refused(node):
    with pytest.raises(IntegrityError, match="a program"):
        check(node, 1, "a program")
