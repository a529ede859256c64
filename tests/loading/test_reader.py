"""A part's bytes: read in whatever pieces, and compared with their digest however they come."""

from __future__ import annotations

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import IntegrityError
from ckptstore.loading import reader as reader_module
from ckptstore.loading.reader import Reader
from ckptstore.manifest import open_manifest
from ckptstore.state.tensors import view_bytes
from ckptstore.storage.local import LocalStorage
from tests.loading.forging import packs_of
from tests.loading.storages import Watched

LARGE = torch.arange(1000, dtype=torch.int64)


@pytest.fixture
def folder(tmp_path):
    Store(tmp_path / "store").save({"large": LARGE}, run="digits", rng=False)
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(reader_module, "PIECE_BYTES", 3000)  # no multiple fits


def reader_of(storage, **options):
    opened = open_manifest(storage, "digits", 1)
    part = opened.part("model")
    return Reader(storage, opened.head, "model", part, **options), part.tensors[0].chunks[0]


def damage(folder, at):
    (path,) = packs_of(folder, "digits")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_chunk_read_in_pieces_is_whole(folder):
    reader, chunk = reader_of(LocalStorage(folder))

    assert bytes(view_bytes(reader.read_chunk(0, chunk))) == bytes(view_bytes(LARGE))


@pytest.mark.parametrize("at", [-8000, -5000, -4999, -1])
def test_a_flipped_bit_in_any_piece_is_found(folder, at):
    damage(folder, at)
    reader, chunk = reader_of(LocalStorage(folder))

    with pytest.raises(IntegrityError, match="'model/large' is damaged"):
        reader.read_chunk(0, chunk)


def test_a_chunk_cut_short_in_a_later_piece_is_found(folder):
    (path,) = packs_of(folder, "digits")
    path.write_bytes(path.read_bytes()[:-1])
    reader, chunk = reader_of(LocalStorage(folder))

    with pytest.raises(IntegrityError, match="is gone or cut short"):
        reader.read_chunk(0, chunk)


def test_a_remote_storage_is_asked_once_for_a_chunk(folder):
    storage = Watched(LocalStorage(folder))
    asked = []
    storage.local_folder, storage.fault = None, lambda *what: asked.append(what)
    reader, chunk = reader_of(storage)
    asked.clear()
    reader.read_chunk(0, chunk)

    assert len(asked) == 1


def test_a_reader_that_need_not_verify_reads_what_is_there(folder):
    damage(folder, -1)
    reader, chunk = reader_of(LocalStorage(folder), verify=False)

    assert len(reader.read_chunk(0, chunk)) == LARGE.nbytes
