"""Opaque files: durable before the manifest, hashed, and written once however many name them."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from blake3 import blake3

from ckptstore.errors import StorageError
from ckptstore.format.layout import file_key
from ckptstore.format.manifest import File, Parent
from ckptstore.saving.basis import basis_of
from ckptstore.saving.files import PIECE_BYTES, NewFile, shared_file, write_files
from ckptstore.storage.local import LocalStorage

SAVE, OTHER = uuid.uuid4(), uuid.uuid4()


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


def basis(files):
    return basis_of(Parent("digits", 1, OTHER), [], [], files=files)


def read(storage, file):
    return storage.read(file_key(file.save_id, file.number))


def test_bytes_and_files_of_this_machine_are_written(storage, tmp_path):
    path, large = tmp_path / "export.bin", bytes(range(256)) * (PIECE_BYTES // 256) + b"more"
    path.write_bytes(large)
    files = [NewFile("program", "model", [b"ab", memoryview(b"c")]), NewFile("export", None, path)]

    first, second = write_files(storage, SAVE, files)

    assert first == File(SAVE, 0, 3, blake3(b"abc").hexdigest(), "program", "model")
    assert second == File(SAVE, 1, len(large), blake3(large).hexdigest(), "export", None)
    assert (read(storage, first), read(storage, second)) == (b"abc", large)


def test_an_empty_file_is_one_too(storage):
    (file,) = write_files(storage, SAVE, [NewFile("export", None, [])])
    assert (file.size_bytes, read(storage, file)) == (0, b"")


def test_the_same_bytes_are_named_and_not_written_again(storage):
    written = write_files(storage, OTHER, [NewFile("program", "model", [b"abc"])])

    named = write_files(
        storage, SAVE, [NewFile("program", "ema", [b"abc"])], [basis([]), basis(written)]
    )

    assert named == [replace(written[0], part="ema")]
    assert len(list(storage.walk("files"))) == 1


@pytest.mark.parametrize("size", [None, 2])
def test_a_file_that_is_gone_or_cut_short_is_not_named(storage, size):
    (written,) = write_files(storage, OTHER, [NewFile("program", "model", [b"abc"])])
    path = storage.local_folder + "/" + file_key(written.save_id, written.number)
    storage.delete([file_key(written.save_id, written.number)])
    if size is not None:
        with open(path, "wb") as cut:  # noqa: PTH123 - the storage gives its folder as text
            cut.write(b"abc"[:size])
    assert shared_file(storage, [basis([written])], written.digest, 3) is None


def test_a_digest_of_another_size_is_not_believed(storage):
    (written,) = write_files(storage, OTHER, [NewFile("program", "model", [b"abc"])])
    assert shared_file(storage, [basis([written])], written.digest, 4) is None


def test_a_file_of_this_machine_that_is_gone_is_named(storage, tmp_path):
    with pytest.raises(StorageError, match=r"export.bin, the export to be stored, can't be read"):
        write_files(storage, SAVE, [NewFile("export", None, tmp_path / "export.bin")])


def test_a_file_that_changes_while_it_is_read_is_not_stored(storage, tmp_path, monkeypatch):
    path = tmp_path / "export.bin"
    path.write_bytes(b"abc")
    opened = type(storage).open_writer

    def changing(self, key):
        path.write_bytes(b"abd")
        return opened(self, key)

    monkeypatch.setattr(type(storage), "open_writer", changing)
    with pytest.raises(StorageError, match="was changed while it was read"):
        write_files(storage, SAVE, [NewFile("export", None, path)])
    assert list(storage.walk("files")) == []
