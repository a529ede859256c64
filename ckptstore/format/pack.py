"""A pack's layout: a plain safetensors file whose tensors are aligned wherever that is possible.

The file begins with eight bytes (the header's length, little-endian), then the header, JSON padded
with spaces so that the data begin at a multiple of 4096; see
https://github.com/huggingface/safetensors#format. Tensors whose length is a multiple of 64 come
first, then the rest by falling item size, then by name: so every tensor of the first group, and
every tensor as far as its own item size goes, can be used where it lies when the file is mapped.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ckptstore.format.digest import dump_line

ALIGNMENT = 64
DATA_ALIGNMENT = 4096
MAX_PACK_BYTES = 2 * 1024**3
# safetensors itself reads no longer header; the eight bytes of its length are in this figure too.
MAX_HEADER_BYTES = 100_000_008

# torch's names of the dtypes safetensors has, and its codes for them:
# https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs
CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "bfloat16": "BF16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "complex64": "C64",
}


class Slot(NamedTuple):
    """A tensor that is to go into a pack."""

    name: str
    dtype: str
    """torch's name of the dtype, e.g. ``float32``."""
    shape: tuple[int, ...]
    itemsize: int
    """Bytes per element."""
    length: int
    """Bytes in all."""


@dataclass(frozen=True)
class Plan:
    """A pack before its bytes are written."""

    header: bytes
    """The file's bytes before the data, a multiple of 4096."""
    order: tuple[int, ...]
    """The slots in the order in which their bytes follow the header and one another."""
    starts: tuple[int, ...]
    """Where each slot (as given, not as ordered) begins, in bytes from the file's start."""
    size_bytes: int
    """The whole file."""


def plan(slots: Sequence[Slot]) -> Plan:
    """Lay out one pack.

    A dtype safetensors lacks is laid down as U8, its shape with a last axis of the item's bytes.
    """
    order = sorted(range(len(slots)), key=lambda index: _rank(slots[index]))
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets = [0] * len(slots)
    end = 0
    for index in order:
        slot = slots[index]
        offsets[index] = end
        code, shape = CODES.get(slot.dtype), list(slot.shape)
        if code is None:
            code, shape = "U8", [*shape, slot.itemsize]
        entries[slot.name] = {
            "dtype": code,
            "shape": shape,
            "data_offsets": [end, end + slot.length],
        }
        end += slot.length
    text = dump_line(entries)
    text += b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    header = struct.pack("<Q", len(text)) + text
    starts = tuple(len(header) + offset for offset in offsets)
    return Plan(header, tuple(order), starts, len(header) + end)


def split(slots: Sequence[Slot], limit: int = MAX_PACK_BYTES) -> list[list[int]]:
    """Share slots out over packs of at most *limit* bytes of data, in order.

    A tensor that is larger has a pack of its own.
    """
    packs: list[list[int]] = []
    room = 0
    for index, slot in enumerate(slots):
        if not packs or slot.length > room:
            packs.append([])
            room = limit
        packs[-1].append(index)
        room -= slot.length
    return packs


def _rank(slot: Slot) -> tuple[bool, int, str]:
    return (slot.length % ALIGNMENT != 0, -slot.itemsize, slot.name)
