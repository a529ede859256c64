"""Pack layouts: valid safetensors, aligned wherever that is possible, split at the limit."""

from __future__ import annotations

import json
import struct
from math import prod

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.format.pack import ALIGNMENT, CODES, DATA_ALIGNMENT, Slot, plan, split

SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "uint16": 2, "int16": 2, "float16": 2,
    "bfloat16": 2, "uint32": 4, "int32": 4, "float32": 4, "uint64": 8, "int64": 8, "float64": 8,
    "complex64": 8, "complex32": 4, "complex128": 16, "uint1": 1,
}  # fmt: skip


@st.composite
def slot_lists(draw):
    names = draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5), unique=True, max_size=8
        )
    )
    names = [name for name in names if name != "__metadata__"]
    slots = []
    for name in names:
        dtype = draw(st.sampled_from(sorted(SIZES)))
        shape = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
        slots.append(Slot(name, dtype, shape, SIZES[dtype], prod(shape) * SIZES[dtype]))
    return slots


def header_of(layout):
    (length,) = struct.unpack("<Q", layout.header[:8])
    assert length == len(layout.header) - 8
    return json.loads(layout.header[8:])


@settings(deadline=None)
@given(slot_lists())
def test_every_plan_is_a_safetensors_file_with_each_tensor_in_its_place(slots):
    layout = plan(slots)
    data = bytearray(layout.header)
    for index in layout.order:
        assert layout.starts[index] == len(data)
        data += bytes([index + 1]) * slots[index].length
    assert len(data) == layout.size_bytes

    header = header_of(layout)
    assert header.pop("__metadata__") == {"format": "pt"}
    assert header.keys() == {slot.name for slot in slots}
    for index, slot in enumerate(slots):
        begin, end = header[slot.name]["data_offsets"]
        assert bytes(data[len(layout.header) + begin : len(layout.header) + end]) == bytes(
            [index + 1]
        ) * (slot.length)
    # The reference reader checks offsets, shapes and lengths by itself.
    entries = safetensors.deserialize(bytes(data))
    assert {name: tuple(entry["shape"]) for name, entry in entries} == {
        slot.name: slot.shape if slot.dtype in CODES else (*slot.shape, slot.itemsize)
        for slot in slots
    }


@given(slot_lists())
def test_data_begin_at_a_page_and_tensors_lie_aligned(slots):
    layout = plan(slots)
    assert len(layout.header) % DATA_ALIGNMENT == 0
    for slot, start in zip(slots, layout.starts, strict=True):
        assert start % (ALIGNMENT if slot.length % ALIGNMENT == 0 else slot.itemsize) == 0


@given(slot_lists(), st.randoms())
def test_the_layout_does_not_depend_on_the_order_given(slots, random):
    shuffled = random.sample(slots, len(slots))
    assert plan(shuffled).header == plan(slots).header


def test_the_header_is_padded_with_spaces():
    layout = plan([Slot("a", "float32", (3,), 4, 12)])
    assert len(layout.header) == 4096
    assert layout.header.rstrip(b" ").endswith(b"}")


def test_a_header_of_a_page_takes_no_more():
    one = Slot("", "uint8", (0,), 1, 0)
    free = 4096 - len(plan([one]).header.rstrip(b" "))
    assert len(plan([one._replace(name="a" * free)]).header) == 4096
    assert len(plan([one._replace(name="a" * (free + 1))]).header) == 8192


def test_what_safetensors_has_no_word_for_is_bytes():
    header = header_of(plan([Slot("z", "complex128", (2, 3), 16, 96)]))
    assert header["z"] == {"dtype": "U8", "shape": [2, 3, 16], "data_offsets": [0, 96]}


def test_codes_are_those_of_safetensors():
    for dtype, code in CODES.items():
        slot = Slot("x", dtype, (2,), SIZES.get(dtype, 1), 2 * SIZES.get(dtype, 1))
        layout = plan([slot])
        ((_, entry),) = safetensors.deserialize(layout.header + bytes(slot.length))
        assert entry["dtype"] == code


def test_numpy_reads_it_too():
    array = np.arange(6, dtype="<f8").reshape(2, 3)
    layout = plan([Slot("x", "float64", (2, 3), 8, 48)])
    assert np.array_equal(safetensors.numpy.load(layout.header + array.tobytes())["x"], array)


def slots_of(*lengths):
    return [Slot(str(i), "uint8", (n,), 1, n) for i, n in enumerate(lengths)]


@pytest.mark.parametrize(
    ("lengths", "packs"),
    [
        ([], []),
        ([0], [[0]]),
        ([4, 6], [[0, 1]]),
        ([4, 7], [[0], [1]]),
        ([25], [[0]]),
        ([1, 25, 1], [[0], [1], [2]]),
        ([25, 0, 0], [[0], [1, 2]]),
        ([5, 5, 5, 5, 5], [[0, 1], [2, 3], [4]]),
    ],
)
def test_packs_are_split_at_the_limit_in_order(lengths, packs):
    assert split(slots_of(*lengths), 10) == packs


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 40))
def test_every_tensor_is_in_one_pack_and_none_is_larger_than_it_must(lengths, limit):
    packs = split(slots_of(*lengths), limit)
    assert [index for pack in packs for index in pack] == list(range(len(lengths)))
    for pack in packs:
        assert pack
        assert sum(lengths[i] for i in pack) <= limit or sum(1 for i in pack if lengths[i]) == 1
