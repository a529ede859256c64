"""Trees back into state: these types and no others, whatever stands there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import dump_line, parse_line
from ckptstore.format.tree import encode
from ckptstore.format.untree import decode, has_made_up, tensor_places
from tests.format.trees import bits, numpy_dtypes


def flat_bytes(array):
    return torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8)


@settings(deadline=None)
@given(
    numpy_dtypes.flatmap(
        lambda name: hnp.arrays(
            name,
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
            elements=st.binary(max_size=3) if name == "V3" else None,
        )
    ),
    st.sampled_from("CF"),
)
def test_every_array_comes_back_in_its_order(array, order):
    array = np.array(array, order=order)
    tree = parse_line(dump_line(encode([array], "x", lambda *_: 0)), "here")
    if array.size == 0:
        (back,) = decode(tree, "here", lambda _: torch.empty(0, dtype=torch.uint8))
    else:
        (back,) = decode(tree, "here", lambda _: flat_bytes(array))

    assert bits(back) == bits(array)
    assert back.flags.writeable


def test_a_tensor_is_the_one_at_its_place():
    tensors = [torch.ones(1), torch.zeros(2, requires_grad=True)]
    back = decode(
        {"a": {"$tensor": 1}, "b": [{"$tensor": 0}, {"$tensor": 1}]}, "x", tensors.__getitem__
    )
    assert back["a"] is back["b"][1] is tensors[1]
    assert back["b"][0] is tensors[0]


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_parameter_is_a_parameter_again(requires_grad):
    tensor = torch.ones(2).requires_grad_(requires_grad)
    back = decode({"$tensor": 0, "parameter": True}, "x", lambda _: tensor)
    assert type(back) is torch.nn.Parameter
    assert back.requires_grad is requires_grad
    assert back.data_ptr() == tensor.data_ptr()


def test_all_places_are_found_wherever_they_stand():
    places = iter(range(9))
    state = {1: (torch.ones(1), {"x": np.ones(2)}), "b": {"_m": [torch.ones(1)]}}
    tree = encode(state, "x", lambda *_: next(places))
    assert tensor_places(tree) == {0, 1, 2}
    assert tensor_places({"a": "$tensor", "$tensor": "no"}) == set()


@pytest.mark.parametrize(
    "node",
    [
        {"$news": 1},
        {"$": 1},
        {"$tensor": 0},
        {"$array": 0, "dtype": "<f4", "shape": [1]},
        {"$int": "x"},
        {"$int": 1.5},
        {"$int": "0x"},
        {"$int": "1" * 5000},
        {"$float": "1.5x"},
        {"$float": 3},
        {"$float": "ab"},
        {"$complex": [1.0]},
        {"$complex": [1.0, "a"]},
        {"$complex": {"a": 1}},
        {"$bytes": "?"},
        {"$bytes": 7},
        {"$dict": [[1]]},
        {"$dict": [[[], 1]]},
        {"$dict": 7},
        {"$set": [[]]},
        {"$tuple": 7},
        {"$deque": [1]},
        {"$deque": [1], "maxlen": "a"},
        {"$deque": [1], "maxlen": -1},
        {"$defaultdict": []},
        {"$defaultdict": [], "factory": "eval"},
        {"$defaultdict": [], "factory": ["int"]},
        {"$Counter": 1},
        {"$OrderedDict": [["a", {"$news": 1}]]},
        {"$torch.Size": ["a"]},
        {"$torch.Size": [1.5]},
        {"$torch.dtype": "Tensor"},
        {"$torch.dtype": "load"},
        {"$torch.dtype": 7},
        {"$torch.dtype": "__name__"},
        {"$torch.layout": "float32"},
        {"$torch.device": "warp drive"},
        {"$torch.device": "warp:-1"},
        {"$torch.load": "x"},
        {"$torch.nn": "Module"},
        {"$scalar": "AAAA", "dtype": "<f4"},
        {"$scalar": "AACAPw=="},
        {"$scalar": "AACAPw==", "dtype": "O"},
        {"$scalar": "AACAPw==", "dtype": "no such"},
        {"$scalar": "ANgAAA==", "dtype": "<U1"},
        {"$scalar": "AA==", "dtype": "<U1"},
        {"$numpy.dtype": "O"},
        {"$numpy.dtype": "no such"},
        {"$numpy.dtype": {}},
        {"$numpy.dtype": "f8,i4"},
        {"$numpy.dtype": "(2,)f8"},
        {"$scalar": "AACAPw==", "dtype": ["<f4"]},
    ],
    ids=repr,
)
def test_a_node_that_the_format_has_not_is_damage(node):
    with pytest.raises(IntegrityError, match=r"manifest.*not what ckptstore writes"):
        decode({"a": [node]}, "manifest")


@pytest.mark.parametrize(
    "node",
    [
        {"$array": 0, "dtype": "O", "shape": [1]},
        {"$array": 0, "dtype": "<f4", "shape": [2]},
        {"$array": 0, "dtype": "<f4", "shape": [-1]},
        {"$array": 0, "dtype": "<f4", "shape": ["a"]},
        {"$array": 0, "dtype": "<f4", "shape": [1, 2**62, 0]},
        {"$array": 0, "dtype": "V0", "shape": [10**9]},
        {"$array": 0, "dtype": "<U0", "shape": [10**9]},
        {"$array": 0, "dtype": "<f4"},
        {"$array": True, "dtype": "<f4", "shape": [1]},
        {"$tensor": True},
        {"$tensor": -1},
        {"$tensor": 0.0},
        {"$tensor": 7},
    ],
    ids=repr,
)
def test_a_tensor_that_cannot_be_is_damage(node):
    data = [torch.zeros(4, dtype=torch.uint8)]
    with pytest.raises(IntegrityError):
        decode(node, "manifest", data.__getitem__)


nodes = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=3) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "$tuple",
                    "$dict",
                    "$set",
                    "$frozenset",
                    "$deque",
                    "$int",
                    "$float",
                    "$complex",
                    "$bytes",
                    "$bytearray",
                    "$Counter",
                    "$defaultdict",
                    "$OrderedDict",
                    "$torch.Size",
                    "$torch.dtype",
                    "$torch.device",
                    "$torch.layout",
                    "$torch.memory_format",
                    "$tensor",
                    "$array",
                    "$scalar",
                    "$numpy.dtype",
                    "maxlen",
                    "factory",
                    "dtype",
                    "shape",
                    "_metadata",
                    "a",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=500)
@given(nodes)
def test_any_json_is_state_or_damage(node):
    data = [torch.zeros(4, dtype=torch.uint8)]
    tensor_places(node)
    try:
        decode(node, "here", data.__getitem__)
    except IntegrityError as error:
        assert "here" in str(error)  # noqa: PT017 - most are damage, some are state


@pytest.mark.parametrize(
    ("node", "made_up"),
    [
        ({"a": [{"$tensor": 0}, 1.5, None]}, False),
        ({"a": [{"b": {"$array": 0}}]}, True),
        ([{"$sparse": "coo", "tensors": {}}], True),
        ({"$quantized": "per_tensor_affine"}, True),
        ({"x": {"$subclass": "a.B"}}, True),
    ],
)
def test_values_that_are_made_of_tensors_are_seen(node, made_up):
    assert has_made_up(node) is made_up
