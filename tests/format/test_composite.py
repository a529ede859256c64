"""Tensors made of others: apart, together, and nothing put together that would crash."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from hypothesis import given, settings

from ckptstore.errors import IntegrityError, MissingPackageError, UnsupportedValueError
from ckptstore.format.composite import checked_apart, put_together, take_apart
from ckptstore.format.digest import dump_line, parse_line
from ckptstore.format.tree import encode
from ckptstore.format.untree import decode, tensor_places
from tests.format.tensors import quietly, tensors, torchaos
from tests.format.trees import bits

COO = torch.sparse_coo_tensor(
    torch.tensor([[0, 2], [3, 1]]), torch.tensor([1.0, 2.0]), (3, 4), check_invariants=True
)
CSR = quietly(torch.eye(3).to_sparse_csr)
BSC = quietly(torch.eye(4).to_sparse_bsc, (2, 2))
PER_TENSOR = quietly(torch.quantize_per_tensor, torch.ones(2, 3), 0.1, 3, torch.qint8)
PER_CHANNEL = quietly(
    torch.quantize_per_channel,
    torch.ones(2, 3),
    torch.ones(3, dtype=torch.float64),
    torch.zeros(3, dtype=torch.int64),
    1,
    torch.quint8,
)
INT8, EIGHT_BITS, FOUR_BITS = torchaos()[0], torchaos()[-3], torchaos()[-2]


def taken(state):
    """A state's tree, and its tensors."""
    found = []

    def put(value, _path, *, alone=False):
        if not alone:
            for place, each in enumerate(found):
                if each is value:
                    return place
        found.append(value)
        return len(found) - 1

    tree = parse_line(dump_line(encode(state, "x", put)), "here")
    return tree, found


def there_and_back(state):
    tree, found = taken(state)
    return decode(tree, "here", [each.clone() for each in found].__getitem__)


@settings(deadline=None)
@given(tensors())
def test_a_tensor_is_what_it_is_made_of(tensor):
    apart = take_apart(tensor)
    if apart is None:
        return
    back = put_together(apart.node, apart.content, apart.facts, apart.tensors)
    plain = tensor.detach()
    assert bits(back) == bits(plain)


@pytest.mark.parametrize(
    ("tensor", "node"),
    [
        (
            COO,
            {
                "$sparse": "coo",
                "shape": [3, 4],
                "coalesced": False,
                "tensors": {"indices": {"$tensor": 0}, "values": {"$tensor": 1}},
            },
        ),
        (
            BSC.detach().requires_grad_(),
            {
                "$sparse": "bsc",
                "shape": [4, 4],
                "tensors": {
                    "ccol_indices": {"$tensor": 0},
                    "row_indices": {"$tensor": 1},
                    "values": {"$tensor": 2},
                },
                "requires_grad": True,
            },
        ),
        (
            PER_TENSOR,
            {
                "$quantized": "per_tensor_affine",
                "dtype": "qint8",
                "scale": 0.1,
                "zero_point": 3,
                "tensors": {"integers": {"$tensor": 0}},
            },
        ),
        (
            torch.nn.Parameter(PER_CHANNEL, requires_grad=False),
            {
                "$quantized": "per_channel_affine",
                "dtype": "quint8",
                "axis": 1,
                "tensors": {
                    "integers": {"$tensor": 0},
                    "scales": {"$tensor": 1},
                    "zero_points": {"$tensor": 2},
                },
                "parameter": True,
            },
        ),
        (
            INT8,
            {
                "$subclass": "torchao.quantization.Int8Tensor",
                "shape": [16, 32],
                "context": {
                    "block_size": [1, 32],
                    "dtype": {"$torch.dtype": "float32"},
                    "act_quant_kwargs": None,
                    "reduce_range": False,
                },
                "tensors": {
                    "qdata": {"$tensor": 0},
                    "scale": {"$tensor": 1},
                    "zero_point": {"$tensor": 2},
                },
            },
        ),
    ],
    ids=["coo", "bsc", "tensor", "channel", "subclass"],
)
def test_each_kind_is_written_as_the_format_says(tensor, node):
    tree, found = taken(tensor)
    assert tree == node
    assert tensor_places(tree) == set(range(len(found)))


def test_a_context_of_records_and_enums_comes_back():
    tensor = next(each for each in torchaos() if getattr(each, "act_quant_kwargs", None))
    tree, _ = taken(tensor)
    kwargs = tree["context"]["act_quant_kwargs"]
    assert kwargs["$record"].endswith(".QuantizeTensorToInt8Kwargs")
    assert kwargs["fields"]["granularity"]["$record"].endswith(".PerRow")
    assert kwargs["fields"]["mapping_type"]["member"] == "SYMMETRIC"
    assert there_and_back(tensor).act_quant_kwargs == tensor.act_quant_kwargs


@pytest.mark.parametrize("tensor", [COO, CSR, PER_TENSOR, PER_CHANNEL, INT8])
def test_the_same_tensor_twice_is_one_again(tensor):
    other = copied(tensor)
    back = there_and_back({"a": tensor, "b": [tensor.detach()], "c": other})
    assert back["a"] is back["b"][0]
    assert back["c"] is not back["a"]
    assert bits(back["c"]) == bits(back["a"])


def copied(tensor):
    apart = take_apart(tensor)
    parts = {name: part.clone() for name, part in apart.tensors.items()}
    return put_together(apart.node, apart.content, apart.facts, parts)


def test_a_parameter_and_a_buffer_of_one_memory_are_two():
    back = there_and_back([COO, torch.nn.Parameter(COO), COO.detach().requires_grad_()])
    assert len({id(each) for each in back}) == 3
    assert isinstance(back[1], torch.nn.Parameter)
    assert back[2].requires_grad


def test_without_elements_nothing_is_tied():
    empty = torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.int64), torch.empty(0), (2,), check_invariants=True
    )
    back = there_and_back([empty, empty.detach()])
    assert back[0] is not back[1]


def test_what_a_tensor_is_made_of_has_a_place_of_its_own():
    values = torch.ones(2)
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 1]]), values, (2,), check_invariants=True)
    tree, found = taken([values, sparse, sparse._indices()])
    assert len(found) == 4
    assert bits(decode(tree, "here", found.__getitem__)) == bits(
        [values, sparse, sparse._indices()]
    )


def test_an_index_outside_of_a_tensor_is_refused_by_path():
    bad = torch.sparse_coo_tensor(torch.tensor([[9]]), torch.ones(1), (2,), check_invariants=False)
    with pytest.raises(UnsupportedValueError, match="found index 9") as raised:
        checked_apart(bad, "model/w")
    assert raised.value.path == "model/w"


def test_what_an_older_version_did_not_save_of_a_context_is_none():
    tree, found = taken(INT8)
    del tree["context"]["reduce_range"]
    back = decode(tree, "here", found.__getitem__)

    assert back.reduce_range is None
    assert torch.equal(back.qdata, INT8.qdata)


I64, I32 = torch.int64, torch.int32


HOSTILE = {
    "an index beyond": (COO, {}, {"indices": torch.tensor([[0, 3], [3, 1]])}),
    "an index below": (COO, {}, {"indices": torch.tensor([[0, -1], [3, 1]])}),
    "indices that are floats": (COO, {}, {"indices": torch.zeros(2, 2)}),
    "indices that are int32": (COO, {}, {"indices": torch.zeros(2, 2, dtype=I32)}),
    "indices of one axis": (COO, {}, {"indices": torch.zeros(2, dtype=I64)}),
    "more indices than values": (COO, {}, {"indices": torch.zeros(2, 3, dtype=I64)}),
    "coalesced without being so": (
        COO,
        {"coalesced": True},
        {"indices": torch.tensor([[2, 0], [1, 3]])},
    ),
    "coalesced or not": (COO, {"coalesced": 1}, {}),
    "another number of axes": (COO, {"shape": [3, 4, 5]}, {}),
    "a negative shape": (COO, {"shape": [3, -4]}, {}),
    "a shape of floats": (COO, {"shape": [3.0, 4]}, {}),
    "a shape of truths": (COO, {"shape": [True, 4]}, {}),
    "no shape": (COO, {"shape": 3}, {}),
    "a shape beyond all memory": (COO, {"shape": [2**62, 2**62]}, {}),
    "an unknown layout": (COO, {"$sparse": "csx"}, {}),
    "another layout": (COO, {"$sparse": "csr"}, {}),
    "a layout that is no word": (COO, {"$sparse": ["coo"]}, {}),
    "something beside": (COO, {"hook": 1}, {}),
    "rows that end beyond": (CSR, {}, {"crow_indices": torch.tensor([0, 1, 2, 9])}),
    "rows that run back": (CSR, {}, {"crow_indices": torch.tensor([0, 2, 1, 3])}),
    "a column beyond": (CSR, {}, {"col_indices": torch.tensor([0, 1, 3])}),
    "a column below": (CSR, {}, {"col_indices": torch.tensor([0, -1, 2])}),
    "columns of another dtype": (CSR, {}, {"col_indices": torch.zeros(3, dtype=I32)}),
    "rows of int16": (
        CSR,
        {},
        {
            "col_indices": torch.tensor([0, 1, 2]).short(),
            "crow_indices": torch.tensor([0, 1, 2, 3]).short(),
        },
    ),
    "more rows than there are": (CSR, {"shape": [4, 3]}, {}),
    "rows for blocks": (CSR, {"$sparse": "bsr"}, {}),
    "rows for columns": (CSR, {"$sparse": "csc"}, {}),
    "blocks that don't fit": (BSC, {"shape": [4, 5]}, {}),
    "an unknown scheme": (PER_TENSOR, {"$quantized": "per_row"}, {}),
    "integers of another dtype": (PER_TENSOR, {"dtype": "qint32"}, {}),
    "no quantised dtype": (PER_TENSOR, {"dtype": "int8"}, {}),
    "a scale that is a word": (PER_TENSOR, {"scale": "1"}, {}),
    "a zero point that is none": (PER_TENSOR, {"zero_point": 0.5}, {}),
    "an axis beyond": (PER_CHANNEL, {"axis": 2}, {}),
    "an axis below": (PER_CHANNEL, {"axis": -1}, {}),
    "an axis of another size": (PER_CHANNEL, {"axis": 0}, {}),
    "scales of another dtype": (PER_CHANNEL, {}, {"scales": torch.ones(3)}),
    "too many scales": (PER_CHANNEL, {}, {"scales": torch.ones(4, dtype=torch.float64)}),
    "too few zero points": (PER_CHANNEL, {}, {"zero_points": torch.ones(2, dtype=I64)}),
    "an unknown class": (INT8, {"$subclass": "torch.nn.Linear"}, {}),
    "a class with code": (INT8, {"$subclass": "os.system"}, {}),
    "a record for a class": (INT8, {"$subclass": "torchao.quantization.granularity.PerRow"}, {}),
    "a class of other tensors": (INT8, {"$subclass": "torchao.quantization.Float8Tensor"}, {}),
    "another shape": (INT8, {"shape": [16, 33]}, {}),
    "a context that is none": (INT8, {"context": None}, {}),
    "a context without what it needs": (INT8, {"context": {}}, {}),
    "a dtype that is none": (INT8, {"context": {"block_size": [1, 32], "dtype": "float32"}}, {}),
    "data of another dtype": (INT8, {}, {"qdata": torch.zeros(16, 32)}),
    "data of another shape": (INT8, {}, {"qdata": torch.zeros(1, dtype=torch.int8)}),
    "no scales at all": (EIGHT_BITS, {}, {"scale": torch.zeros(0)}),
    "a map that is too short": (EIGHT_BITS, {}, {"qmap": torch.zeros(255)}),
    "codes of another shape": (FOUR_BITS, {}, {"codes": torch.zeros(3, 3, dtype=torch.uint8)}),
    "an unknown enum": (INT8, {"context": {"$enum": "os.path", "member": "sep"}}, {}),
    "a record for an enum": (
        INT8,
        {"context": {"$enum": "torchao.quantization.granularity.PerRow", "member": "dim"}},
        {},
    ),
    "an unknown member": (
        INT8,
        {
            "context": {
                "$enum": "torchao.quantization.quant_primitives.MappingType",
                "member": "__class__",
            }
        },
        {},
    ),
    "an unknown record": (INT8, {"context": {"$record": "subprocess.Popen", "fields": {}}}, {}),
    "an unknown field": (
        INT8,
        {
            "context": {
                "$record": "torchao.quantization.granularity.PerRow",
                "fields": {"command": "ls"},
            }
        },
        {},
    ),
}


@pytest.mark.parametrize(("tensor", "members", "parts"), HOSTILE.values(), ids=HOSTILE)
def test_what_no_writer_writes_is_refused(tensor, members, parts):
    tree, found = taken(tensor)
    for name, part in parts.items():
        found[tree["tensors"][name]["$tensor"]] = part
    name = next(iter(tree))
    node = {name: members.get(name, tree[name])} | tree | members
    with pytest.raises(IntegrityError, match="tree is not what ckptstore writes"):
        decode(node, "here", found.__getitem__)


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node.update(tensors={}),
        lambda node: node.pop("tensors"),
        lambda node: node.update(tensors=[]),
        lambda node: node["tensors"].pop("values"),
        lambda node: node["tensors"].update(more={"$tensor": 1}),
        lambda node: node["tensors"].update(values={"$tensor": 0}),
        lambda node: node["tensors"].update(values={"$tensor": 2}),
        lambda node: node["tensors"].update(values={"$tensor": -1}),
        lambda node: node["tensors"].update(values={"$tensor": True}),
        lambda node: node["tensors"].update(values=1),
        lambda node: node["tensors"].update(values=copy.deepcopy(node)),
        lambda node: node["tensors"].update(values={"$tensor": 1, "parameter": True}),
        lambda node: node["tensors"].update(values={"$array": 1, "dtype": "|u1", "shape": [8]}),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_tensor_is_made_of_plain_ones_at_places_of_their_own(change, whole):
    node, found = taken(COO)
    change(node)
    with pytest.raises(IntegrityError):
        decode(node, "here", found.__getitem__, whole=whole)


@pytest.mark.parametrize("first", [0, 1])
def test_another_node_may_not_name_what_a_tensor_is_made_of(first):
    node, found = taken(COO)
    other = [{"$tensor": 0}, copy.deepcopy(node) | {"coalesced": True}]
    for more in other:
        state = [node, more] if first else [more, node]
        with pytest.raises(IntegrityError, match="part of another one too"):
            decode(state, "here", found.__getitem__, whole=False)


def test_gradients_are_for_numbers_that_have_them():
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0]]), torch.tensor([True]), (2,), check_invariants=True
    )
    tree, found = taken(sparse)
    for more in ({"requires_grad": True}, {"requires_grad": True, "parameter": True}):
        with pytest.raises(IntegrityError):
            decode(tree | more, "here", found.__getitem__)


@pytest.mark.parametrize("tensor", [COO, CSR, PER_CHANNEL, INT8, EIGHT_BITS])
def test_a_check_without_data_needs_neither_them_nor_the_package(tensor, monkeypatch):
    tree, found = taken([tensor, {"a": tensor}])
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.setitem(sys.modules, name, None)
    nothing = torch.empty(0, dtype=torch.uint8)
    assert decode(tree, "here", lambda _: nothing, whole=False) == [None, {"a": None}]
    assert found


def test_a_head_has_no_such_node():
    for tensor in (COO, PER_TENSOR, INT8):
        with pytest.raises(UnsupportedValueError, match="extra= or a part of their own"):
            encode({"w": tensor}, "config")
        with pytest.raises(IntegrityError, match="where there can be none"):
            decode(taken(tensor)[0], "here")
    per_row = {"$record": "torchao.quantization.granularity.PerRow", "fields": {}}
    with pytest.raises(IntegrityError, match="where there can be none"):
        decode(per_row, "here")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    tree, found = taken(INT8)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingPackageError, match="pip install --upgrade torchao"):
        decode(tree, "here", found.__getitem__)
