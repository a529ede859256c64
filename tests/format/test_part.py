"""A part's line: tensors in one chunk or several, each where it can be and nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import digest, dump_line
from ckptstore.format.manifest import Head, Pack, PartInfo
from ckptstore.format.part import Chunk, Form, Part, Tensor, decode_part, encode_part
from tests.format.heads import NOON, SAVE

PACKS = (Pack(SAVE, 0, 4096 + 1000, 4096, digest(b"")), Pack(SAVE, 1, 8192 + 64, 8192, digest(b"")))
HEAD = Head(SAVE, "digits", 1, "checkpoint", NOON, NOON, packs=PACKS)
HASH = digest(b"data")


def decode(line, **info):
    known = PartInfo("model", "module", 0, len(line), digest(line))
    return decode_part(line, HEAD, replace(known, **info), "manifest")


def whole(shape, itemsize=4, **changes):
    length = itemsize
    for size in shape:
        length *= size
    chunk = Chunk((0,) * len(shape), shape, 0, 4096, length, HASH)
    return replace(
        Tensor("float32", itemsize, shape, None, requires_grad=False, chunks=(chunk,)), **changes
    )


def in_chunks(shape, *boxes):
    chunks = []
    for offsets, sizes in boxes:
        length = 4
        for size in sizes:
            length *= size
        chunks.append(Chunk(offsets, sizes, 0, 4096, length, HASH))
    return Tensor("float32", 4, shape, None, requires_grad=False, chunks=tuple(chunks))


def test_a_whole_tensor_takes_few_words():
    line = encode_part(Part({"w": {"$tensor": 0}}, (whole((2, 3)),)))
    assert json.loads(line) == {
        "tree": {"w": {"$tensor": 0}},
        "tensors": [
            {
                "dtype": "float32",
                "itemsize": 4,
                "shape": [2, 3],
                "chunks": [{"pack": 0, "start": 4096, "length": 24, "blake3": HASH}],
            }
        ],
    }


@pytest.mark.parametrize(
    "tensor",
    [
        whole(()),
        whole((0, 3)),
        whole((5,), requires_grad=True),
        whole((2, 3), order=(1, 0)),
        in_chunks((4, 2), ((0, 0), (1, 2)), ((1, 0), (3, 2))),
        in_chunks((2, 4), ((0, 0), (2, 1)), ((0, 1), (2, 3))),
        in_chunks((2, 2), ((0, 0), (1, 1)), ((1, 1), (1, 1)), ((0, 1), (1, 1)), ((1, 0), (1, 1))),
        in_chunks((2,), ((0,), (0,)), ((0,), (2,))),
        in_chunks((0,)),
        whole((5,), was="float64"),
    ],
    ids=repr,
)
def test_every_tensor_comes_back(tensor):
    part = Part(None, (tensor,), (("model/a", None), ()))
    assert decode(encode_part(part)) == part


A_KEY = {"name": "a", "dtype": "float32", "shape": [2]}


def test_what_nobody_saved_is_named():
    part = Part(
        {},
        (),
        left_out={
            "backbone.weight": Form("float32", (3, 0)),
            "backbone.scale": Form("float32", (3,), "ab" * 32),
            "backbone.bias": None,
        },
    )
    line = encode_part(part)

    assert json.loads(line)["left_out"] == [
        {"name": "backbone.weight", "dtype": "float32", "shape": [3, 0]},
        {"name": "backbone.scale", "dtype": "float32", "shape": [3], "blake3": "ab" * 32},
        "backbone.bias",
    ]
    assert decode(line) == part


@pytest.mark.parametrize(
    "tensor",
    [
        in_chunks((4,), ((0,), (3,))),
        in_chunks((4,)),
        in_chunks((4,), ((0,), (2,)), ((1,), (2,))),
        in_chunks((4,), ((0,), (4,)), ((0,), (4,))),
        in_chunks((4,), ((3,), (2,)), ((0,), (2,))),
        in_chunks((2,) * 9, *((tuple(i >> d & 1 for d in range(9)), (1,) * 9) for i in range(512))),
        in_chunks((4,), ((0,), (5,))),
        in_chunks((2, 2), ((0, 0), (2, 1)), ((1, 0), (1, 2))),
        in_chunks((2, 2), ((0, 0), (1, 2)), ((0, 0), (1, 2))),
        in_chunks((2, 2), ((0,), (4,))),
        in_chunks((), ((), ()), ((), ())),
    ],
    ids=lambda tensor: repr(tensor)[:80],
)
def test_chunks_cover_a_tensor_exactly_once(tensor):
    with pytest.raises(IntegrityError, match="chunk"):
        decode(encode_part(Part(None, (tensor,))))


def one(chunk=None, **fields):
    tensor = json.loads(encode_part(Part(None, (whole((2, 3)),))))["tensors"][0] | fields
    tensor["chunks"] = (
        [tensor["chunks"][0] | (chunk or {})] if "chunks" not in fields else fields["chunks"]
    )
    return {"tree": None, "tensors": [tensor]}


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"tree": None},
        {"tree": None, "tensors": {}},
        {"tree": None, "tensors": [7]},
        {"tree": None, "tensors": [], "parameters": [7]},
        {"tree": None, "tensors": [], "parameters": [[7]]},
        {"tree": None, "tensors": [], "parameters": {}},
        {"tree": None, "tensors": [], "left_out": "a"},
        {"tree": None, "tensors": [], "left_out": [7]},
        {"tree": None, "tensors": [], "left_out": ["a", "a"]},
        {"tree": None, "tensors": [], "left_out": ["a", A_KEY]},
        {"tree": None, "tensors": [], "left_out": [{**A_KEY, "name": None}]},
        {"tree": None, "tensors": [], "left_out": [{**A_KEY, "dtype": 7}]},
        {"tree": None, "tensors": [], "left_out": [{**A_KEY, "shape": [-1]}]},
        {"tree": None, "tensors": [], "left_out": [{**A_KEY, "shape": [1] * 65}]},
        {"tree": None, "tensors": [], "left_out": [{**A_KEY, "blake3": "abc"}]},
        one(was=7),
        one(shape=[2**40, 2**40]),
        one(shape=[2, -3]),
        one(shape=[1] * 65),
        one(shape=[2.0, 3]),
        one(itemsize=0),
        one(itemsize=65),
        one(itemsize=8),
        one(dtype=None),
        one(order=[0, 0]),
        one(order=[0]),
        one(order=[0, 1, 2]),
        one(requires_grad=1),
        one(chunks=None),
        one(chunks=[]),
        one(chunks=[7]),
        one({"pack": 2}),
        one({"pack": -1}),
        one({"pack": True}),
        one({"start": 4095}),
        one({"start": 0}),
        one({"start": 4096 + 1000 - 23}),
        one({"start": 2**62}),
        one({"pack": 1, "start": 8192 + 41}),
        one({"length": 23}),
        one({"length": 2**62}),
        one({"blake3": "x"}),
        one({"shape": [2, 3]}),
        one({"shape": [2, 3], "offsets": [0, 1]}),
        one({"shape": [2, 3], "offsets": [0]}),
        one({"shape": [6], "offsets": [0]}),
    ],
    ids=repr,
)
def test_a_tensor_that_cannot_be_is_refused_before_anything_is_allocated(value):
    with pytest.raises(IntegrityError, match="manifest"):
        decode(dump_line(value))


def test_a_tensor_at_the_very_end_of_its_pack_is_there():
    decode(dump_line(one({"start": 4096 + 1000 - 24})))


def test_another_line_than_the_head_names_is_refused():
    line = encode_part(Part({"a": 1}, ()))
    for info in ({"digest": digest(b"other")}, {"length": len(line) + 1}):
        with pytest.raises(
            IntegrityError, match="part 'model' is not the one that was saved"
        ) as raised:
            decode(line, **info)
        assert raised.value.ref == "digits@1"


def test_cut_or_flipped_anywhere_it_is_refused():
    line = encode_part(Part({"w": {"$tensor": 0}}, (whole((2, 3)),)))
    info = PartInfo("model", "module", 0, len(line), digest(line))
    for place in range(len(line)):
        flipped = bytearray(line)
        flipped[place] ^= 4
        for damaged in (line[:place], bytes(flipped)):
            with pytest.raises(IntegrityError):
                decode_part(damaged, HEAD, info, "manifest")


def test_many_chunks_of_one_row_take_no_time_by_their_number_squared():
    count = 20_000
    tensor = in_chunks((1, count), *(((0, i), (1, 1)) for i in range(count)))
    large = replace(HEAD, packs=(replace(PACKS[0], size_bytes=2**30),))
    line = encode_part(Part(None, (tensor,)))
    info = PartInfo("model", "module", 0, len(line), digest(line))
    assert len(decode_part(line, large, info, "manifest").tensors[0].chunks) == count
