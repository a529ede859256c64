"""State as trees: all that PyTorch state is made of, and an error with a path for anything else."""

from __future__ import annotations

import enum
import io
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ckptstore.errors import UnsupportedValueError
from ckptstore.format.digest import MAX_DEPTH, dump_line, parse_line
from ckptstore.format.tree import MAX_TREE_DEPTH, encode
from ckptstore.format.untree import decode
from tests.format.trees import bits, states

Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - what a user's state may hold


def there_and_back(value, put=None, get=None):
    line = dump_line(encode(value, "extra", put))
    return decode(parse_line(line, "here"), "here", get)


@settings(deadline=None, max_examples=400)
@given(states)
def test_every_state_comes_back_with_its_types_and_bits(state):
    assert bits(there_and_back(state)) == bits(state)


@settings(deadline=None, max_examples=50)
@given(states)
def test_a_tree_is_the_same_each_time(state):
    assert dump_line(encode(state, "x")) == dump_line(encode(there_and_back(state), "x"))


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        (None, None),
        (True, True),
        (2**53 - 1, 2**53 - 1),
        (2**53, {"$int": "9007199254740992"}),
        (-(2**53), {"$int": "-9007199254740992"}),
        (-(2**2000), {"$int": "-0x1" + "0" * 500}),
        (float("nan"), {"$float": "nan"}),
        (struct.unpack(">d", b"\x7f\xf0\0\0\0\0\0\1")[0], {"$float": "7ff0000000000001"}),
        (float("-inf"), {"$float": "-inf"}),
        ({"a": 1, "b": [2]}, {"a": 1, "b": [2]}),
        ({}, {}),
        ({"": 1}, {"": 1}),
        ({"$int": 1}, {"$dict": [["$int", 1]]}),
        ({1: "a", "1": "b"}, {"$dict": [[1, "a"], ["1", "b"]]}),
        ((1,), {"$tuple": [1]}),
        ({2, 10, 1}, {"$set": [1, 10, 2]}),
        (frozenset(), {"$frozenset": []}),
        (b"\0\xff", {"$bytes": "AP8="}),
        (complex(1, -0.0), {"$complex": [1.0, -0.0]}),
        (deque([1], maxlen=3), {"$deque": [1], "maxlen": 3}),
        (Counter("aab"), {"$Counter": [["a", 2], ["b", 1]]}),
        (defaultdict(list), {"$defaultdict": [], "factory": "list"}),
        (OrderedDict(b=1, a=2), {"$OrderedDict": [["b", 1], ["a", 2]]}),
        (torch.Size([2, 3]), {"$torch.Size": [2, 3]}),
        (torch.bfloat16, {"$torch.dtype": "bfloat16"}),
        (torch.device("cuda:1"), {"$torch.device": "cuda:1"}),
        (torch.strided, {"$torch.layout": "strided"}),
        (torch.channels_last, {"$torch.memory_format": "channels_last"}),
        (np.float32(1), {"$scalar": "AACAPw==", "dtype": "<f4"}),
        (np.str_("a"), {"$scalar": "YQAAAA==", "dtype": "<U1"}),
        (np.dtype(">f8"), {"$numpy.dtype": ">f8"}),
    ],
)
def test_each_kind_is_written_as_the_format_says(value, tree):
    assert repr(encode(value, "x")) == repr(tree)


def test_ints_of_any_size_come_back_whatever_python_allows_in_decimal():
    for value in (10**4999, -(10**4999), 2**2000, 2**2000 - 1):
        assert there_and_back(value) == value
        assert there_and_back({value: (value,)}) == {value: (value,)}


def test_a_state_dict_keeps_the_metadata_of_its_module():
    state = torch.nn.Sequential(torch.nn.BatchNorm1d(2)).state_dict()
    for key in state:
        state[key] = 0
    back = there_and_back(state)
    assert type(back) is OrderedDict
    assert back._metadata == state._metadata
    assert back._metadata["0"] == {"version": 2}


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Numbers(list):
    pass


class Same(dict):
    pass


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [lambda: 0]}, "extra/a/0"),
        ({"a": {"b": io.StringIO()}}, "extra/a/b"),
        ((object(),), "extra/0"),
        ({3: {"x": Colour.RED}}, "extra/3/x"),
        (Colour.RED, "extra"),
        (Text("a"), "extra"),
        (Numbers(), "extra"),
        (Same(), "extra"),
        (Pair(1, 2), "extra"),
        (torch.nn.Linear, "extra"),
        (torch.nn.Linear(1, 1), "extra"),
        (range(3), "extra"),
        (memoryview(b""), "extra"),
        (iter([]), "extra"),
        (NotImplemented, "extra"),
        (..., "extra"),
        ({"a": defaultdict(lambda: 0)}, "extra/a"),
        ({"k": "\ud800"}, "extra/k"),
        ({"\udc00": 1}, "extra"),
        (np.str_("\ud800"), "extra"),
        (np.dtype("O"), "extra"),
        (np.dtype("f8,i4"), "extra"),
        (np.dtype(("f8", 2)), "extra"),
        (np.dtypes.StringDType(), "extra"),
        ({Pair(1, 2): 1}, "extra/Pair(a=1, b=2)"),
    ],
)
def test_anything_else_is_refused_with_its_path(value, path):
    with pytest.raises(UnsupportedValueError) as raised:
        encode(value, "extra")
    assert raised.value.path == path
    assert repr(path) in str(raised.value)


@pytest.mark.parametrize("value", [torch.ones(1), np.ones(1), [np.ones(1)]])
def test_tensors_have_no_place_in_a_config(value):
    with pytest.raises(UnsupportedValueError, match="extra= or a part of their own"):
        encode({"lr": value}, "config")


def nested(wrap, depth):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = [
    lambda x: [x],
    lambda x: (x,),
    lambda x: {"a": x},
    lambda x: {1: x},
    lambda x: deque([x]),
    lambda x: defaultdict(int, {(): x}),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_the_deepest_tree_fits_into_a_line_that_is_read(wrap):
    value = nested(wrap, MAX_TREE_DEPTH)
    tree = {"parts": [{"model_config": encode(value, "x")}]}
    assert decode(parse_line(dump_line(tree), "here")["parts"][0]["model_config"], "here") == value


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_deeper_one_is_refused(wrap):
    with pytest.raises(UnsupportedValueError, match=f"deeper than {MAX_TREE_DEPTH}"):
        encode(nested(wrap, MAX_TREE_DEPTH + 1), "x")
    assert MAX_TREE_DEPTH * 3 < MAX_DEPTH


def test_state_that_contains_itself_is_refused():
    state = {}
    state["me"] = [state]
    with pytest.raises(UnsupportedValueError, match="contain itself"):
        encode(state, "extra")


def test_tensors_and_arrays_are_taken_out_with_their_paths():
    taken = []

    def put(value, path):
        taken.append((path, value))
        return len(taken) - 1

    weight, array = torch.ones(2), np.asfortranarray(np.ones((2, 3), "<f4"))
    parameter = torch.nn.Parameter(torch.ones(1))
    tree = encode({"state": {0: (weight, array)}, "p": parameter}, "optimizer", put)

    assert [path for path, _ in taken] == [
        "optimizer/state/0/0",
        "optimizer/state/0/1",
        "optimizer/p",
    ]
    assert taken[0][1] is weight
    assert tree == {
        "state": {
            "$dict": [
                [
                    0,
                    {
                        "$tuple": [
                            {"$tensor": 0},
                            {"$array": 1, "dtype": "<f4", "shape": [2, 3], "fortran": True},
                        ]
                    },
                ]
            ]
        },
        "p": {"$tensor": 2, "parameter": True},
    }


def test_arrays_of_objects_and_of_nothing_are_refused():
    for array in (np.array([object()]), np.zeros(2, "V0"), np.zeros(2, "f8,i4")):
        with pytest.raises(UnsupportedValueError, match="NumPy"):
            encode(array, "x", lambda *_: 0)
