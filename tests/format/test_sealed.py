"""A seal is the last member of plain JSON, and covers every byte before it."""

from __future__ import annotations

import json

import pytest

from ckptstore.errors import IntegrityError
from ckptstore.format.digest import digest
from ckptstore.format.sealed import is_torn, seal, unseal


@pytest.mark.parametrize("data", [b"", b"{}", b"\n", b'{"blake3":"x"}\n', b"\xff" * 99])
def test_what_has_no_seal_is_refused(data):
    with pytest.raises(IntegrityError, match="digest"):
        unseal(data, "here")


def test_a_seal_is_the_last_member_and_covers_all_bytes_before_it():
    data = seal({"format": 1, "requires": [], "a": 'x","blake3":"' + "0" * 64})
    value = json.loads(data)
    assert list(value)[-1] == "blake3"
    body = data[: data.rindex(b',"blake3":"')]
    assert value["blake3"] == digest(body)
    assert unseal(data, "here").text("a").startswith("x")


def test_a_seal_written_twice_is_refused():
    data = seal({"format": 1, "requires": [], "blake3": "x"})
    with pytest.raises(IntegrityError, match="twice"):
        unseal(data, "here")


def test_a_file_without_its_end_is_torn():
    data = seal({"format": 1, "requires": []})
    assert not is_torn(data)
    assert all(is_torn(data[:length]) for length in range(len(data)))
