from __future__ import annotations

import os

import pytest

from ckptstore.storage.local_file import map_privately, read_file_into


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


@pytest.mark.parametrize("positioned", [True, False], ids=["preadv", "readinto"])
def test_a_stretch_is_read_and_the_end_makes_it_short(file, monkeypatch, positioned):
    if not positioned:
        monkeypatch.delattr(os, "preadv")
    with file.open("rb") as opened:
        whole, rest = bytearray(4), bytearray(4)

        assert read_file_into(opened.fileno(), 3, memoryview(whole)) == 4
        assert read_file_into(opened.fileno(), 8, memoryview(rest)) == 2

    assert (whole, rest) == (b"3456", b"89\0\0")


def test_what_is_written_to_mapped_bytes_stays_private(file):
    with file.open("rb") as opened:
        mapped = map_privately(opened.fileno(), file)

    assert mapped is not None
    mapped[0:1] = b"x"
    assert file.read_bytes() == b"0123456789"


def test_nothing_is_mapped_of_an_empty_file_or_of_one_that_may_be_elsewhere(file, monkeypatch):
    with file.open("rb") as opened:
        monkeypatch.setattr("ckptstore.storage.local_file.is_on_local_disk", lambda *_: False)
        assert map_privately(opened.fileno(), file) is None
    monkeypatch.setattr("ckptstore.storage.local_file.is_on_local_disk", lambda *_: True)
    file.write_bytes(b"")
    with file.open("rb") as opened:
        assert map_privately(opened.fileno(), file) is None
