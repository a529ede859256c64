"""Packs as ckptstore writes them, read by the safetensors package: the same names, shapes, bytes.

ckptstore itself parses no pack's header when it loads: it checks the header's digest and reads each
tensor from where the manifest says. So what is to be compared is what it writes.
"""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from ckptstore.format.pack import CODES, Plan, Slot, plan

SIZES = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e8m0fnu": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "uint64": 8,
    "int64": 8,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fnuz": 1,
}
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["", "\0", "a/b", "..", "layer.0.weight", "é", "e\u0301", '"', "\\", "\n", "\u202e", "名"]
    ),
)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def slots(draw: st.DrawFn) -> list[Slot]:
    """Return tensors of any dtype, shape and name, ``__metadata__`` apart: see the test of it."""
    names = draw(st.lists(NAMES.filter(lambda n: n != "__metadata__"), unique=True, max_size=6))
    made = []
    for name in names:
        dtype, shape = draw(st.sampled_from(sorted(SIZES))), draw(SHAPES)
        length = SIZES[dtype]
        for size in shape:
            length *= size
        made.append(Slot(name, dtype, shape, SIZES[dtype], length))
    return made


def written(layout: Plan, data: list[bytes]) -> bytes:
    """Return a pack's bytes."""
    return layout.header + b"".join(data[index] for index in layout.order)


def read(pack: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """Read a pack as the safetensors package does."""
    return {
        name: (info["dtype"], list(info["shape"]), bytes(info["data"]))
        for name, info in deserialize(pack)
    }


def expected(made: list[Slot], data: list[bytes]) -> dict[str, tuple[str, list[int], bytes]]:
    """Return what the safetensors package should find."""
    found: dict[str, Any] = {}
    for slot, content in zip(made, data, strict=True):
        code, shape = CODES.get(slot.dtype), list(slot.shape)
        if code is None:
            code, shape = "U8", [*shape, slot.itemsize]
        found[slot.name] = (code, shape, content)
    return found


def check(made: list[Slot]) -> None:
    """Write a pack of these tensors, read it with safetensors, and compare."""
    layout = plan(made)
    data = [
        bytes((index * 31 + place) % 256 for place in range(slot.length))
        for index, slot in enumerate(made)
    ]
    pack = written(layout, data)
    assert len(pack) == layout.size_bytes
    assert len(layout.header) % 4096 == 0
    assert struct.unpack("<Q", pack[:8])[0] == len(layout.header) - 8
    for slot, start, content in zip(made, layout.starts, data, strict=True):
        assert pack[start : start + slot.length] == content
        assert slot.length % 64 or start % 64 == 0, f"{slot.name!r} begins at {start}"
    assert read(pack) == expected(made, data)


def is_refused(pack: bytes) -> bool:
    """Say whether the safetensors package refuses a pack."""
    try:
        deserialize(pack)
    except SafetensorError:
        return True
    return False
