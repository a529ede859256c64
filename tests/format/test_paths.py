"""Tensors of a tree by path, as people name them."""

from __future__ import annotations

from collections import OrderedDict, deque

import numpy as np
import torch

from ckptstore.format.paths import tensors_by_path
from ckptstore.format.tree import encode


def paths(value):
    places = iter(range(100))
    tree = encode(value, "part", lambda *_, **__: next(places))
    return {path: node["$tensor"] for path, node in tensors_by_path(tree).items()}


T = torch.ones(1)


def test_a_state_dicts_tensors_have_its_keys_in_its_order():
    assert paths(OrderedDict([("b.weight", T), ("a.weight", T)])) == {"b.weight": 0, "a.weight": 1}


def test_nested_state_has_paths():
    state = {
        "state": {0: {"exp_avg": T, "step": T}, 1: {"exp_avg": T}},
        "groups": [{"lr": T}, (T, deque([T]))],
        "note": "x",
    }
    assert list(paths(state)) == [
        "state/0/exp_avg",
        "state/0/step",
        "state/1/exp_avg",
        "groups/0/lr",
        "groups/1/0",
        "groups/1/1/0",
    ]


def test_two_of_one_path_are_told_apart():
    assert list(paths({0: T, "0": T})) == ["0", "0/1"]


def test_arrays_are_no_tensors_and_a_lone_tensor_has_the_empty_path():
    assert paths({"a": np.ones(2)}) == {}
    assert paths(T) == {"": 0}


def test_what_is_no_tree_has_none():
    assert tensors_by_path({"$dict": 7, "x": {"$tensor": 0}}) == {}
    assert tensors_by_path({"$OrderedDict": [7, ["a"], ["b", {"$tensor": 3}]]}) == {
        "b": {"$tensor": 3}
    }
