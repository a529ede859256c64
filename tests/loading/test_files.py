"""An opaque file is read whole, and only as it was saved."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import IntegrityError
from ckptstore.format.layout import file_key
from ckptstore.format.manifest import File
from ckptstore.loading import files
from ckptstore.loading.files import file_of, read_file
from ckptstore.manifest import open_manifest
from ckptstore.saving.files import NewFile, write_files


@pytest.fixture
def opened(tmp_path):
    store = Store(tmp_path / "store", run="digits")
    store.save({"w": torch.ones(2)}, rng=False)
    return open_manifest(store._storage, "digits", 1)


def test_a_file_comes_back_in_pieces(opened, monkeypatch):
    monkeypatch.setattr(files, "PIECE_BYTES", 100)
    data = bytes(range(250)) * 5
    (file,) = write_files(opened.storage, uuid.uuid4(), [NewFile("export", None, [data])])
    assert bytes(read_file(opened, file)) == data


def test_an_empty_file_comes_back(opened):
    (file,) = write_files(opened.storage, uuid.uuid4(), [NewFile("export", None, [])])
    assert bytes(read_file(opened, file)) == b""


def test_what_is_not_there_or_another_is_refused(opened):
    (file,) = write_files(opened.storage, uuid.uuid4(), [NewFile("export", None, [b"abc"])])
    for lie, problem in (
        (File(file.save_id, 1, 3, file.digest, "export"), "is gone"),
        (File(file.save_id, 0, 4, file.digest, "export"), "should have 4 bytes, and has 3"),
        (File(file.save_id, 0, 3, "0" * 64, "export"), "does not hold the bytes"),
    ):
        with pytest.raises(IntegrityError, match=f"digits@1: its export .*{problem}") as caught:
            read_file(opened, lie)
        assert caught.value.ref == "digits@1"
    assert opened.storage.read(file_key(file.save_id, 0)) == b"abc"


def test_a_file_is_found_by_what_it_is_to_a_part(opened):
    mine = File(uuid.uuid4(), 0, 1, "0" * 64, "program", "model")
    other = File(uuid.uuid4(), 0, 1, "0" * 64, "program", "ema")
    head = replace(opened.head, files=(other, mine))
    assert file_of(head, "program", "model") is mine
    assert file_of(head, "program", None) is None
    assert file_of(head, "export", "model") is None
