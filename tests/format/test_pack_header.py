"""Names out of a pack's header, and headers that are refused."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptstore.errors import IntegrityError
from ckptstore.format import pack_header
from ckptstore.format.pack import Slot, plan
from ckptstore.format.pack_header import names_in

slots = st.lists(
    st.builds(lambda name, n: Slot(name, "uint8", (n,), 1, n), st.text(), st.integers(0, 200)),
    unique_by=lambda slot: slot.name,
).filter(lambda found: "__metadata__" not in {slot.name for slot in found})


def header_of(value, padding=b""):
    text = json.dumps(value).encode() + padding
    return struct.pack("<Q", len(text)) + text


@given(slots)
def test_every_name_is_found_where_its_bytes_lie(found):
    layout = plan(found)

    names = names_in(layout.header, layout.size_bytes, "pack")

    for slot, start in zip(found, layout.starts, strict=True):
        assert slot.name in names[start, slot.length]
    assert sum(map(len, names.values())) == len(found)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"data_offsets": [0]},
        {"data_offsets": [0, 1, 2]},
        {"data_offsets": [2, 1]},
        {"data_offsets": [0, 11]},
        {"data_offsets": [-1, 1]},
        {"data_offsets": [0, True]},
        {"data_offsets": [0, 1.0]},
        {"data_offsets": "01"},
    ],
)
def test_what_is_no_stretch_of_the_data_is_refused(entry):
    header = header_of({"w": entry})
    with pytest.raises(IntegrityError, match="pack, tensor 'w'"):
        names_in(header, len(header) + 10, "pack")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"1234567",
        header_of([]),
        header_of({}) + b" ",
        header_of({})[:-1],
        header_of({}, b"{}"),
        header_of({}).replace(b"{}", b'"}'),
        struct.pack("<Q", 2**63) + b"{}",
    ],
)
def test_what_is_no_header_is_refused(header):
    with pytest.raises(IntegrityError, match="pack"):
        names_in(header, 10_000, "pack")


def test_a_huge_header_is_not_parsed(monkeypatch):
    monkeypatch.setattr(pack_header, "MAX_LINE_BYTES", 1)
    assert names_in(header_of({}), 100, "pack") == {}
