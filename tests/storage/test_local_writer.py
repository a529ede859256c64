"""A large file under fault."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ckptstore.errors import DurabilityError, StorageError
from ckptstore.storage import durable
from ckptstore.storage.local import LocalStorage

KEY = "packs/ab/x-0.safetensors"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    storage.create("packs/ab/0", b"")
    return storage


def fail(code: int):
    def call(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return call


def write(storage: LocalStorage, *pieces: bytes) -> None:
    with storage.open_writer(KEY) as writer:
        for piece in pieces:
            writer.write(memoryview(piece))


def is_there(storage: LocalStorage) -> bool:
    return Path(storage.url, KEY).exists()


@pytest.mark.parametrize("length", [10, 3 << 20])
def test_a_full_disk_says_so_and_leaves_nothing(storage, monkeypatch, length):
    monkeypatch.setattr(os, "write", fail(errno.ENOSPC))

    with pytest.raises(StorageError, match="disk is full") as caught:
        write(storage, bytes(length))

    assert caught.value.errno == errno.ENOSPC
    assert not is_there(storage)


def test_a_failed_fsync_of_the_file_fails_and_leaves_nothing(storage, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))

    with pytest.raises(DurabilityError):
        write(storage, b"x")

    assert not is_there(storage)


def test_a_failed_fsync_of_the_folder_fails(storage, monkeypatch):
    monkeypatch.setattr(durable, "sync_file", lambda _fd, _where: None)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))

    with pytest.raises(DurabilityError):
        write(storage, b"x")


def test_the_file_is_synced_before_its_folder(storage, monkeypatch):
    order = []
    sync_file, sync_folder = durable.sync_file, durable.sync_folder
    monkeypatch.setattr(
        durable, "sync_file", lambda fd, where: (order.append(where), sync_file(fd, where))
    )
    monkeypatch.setattr(
        durable, "sync_folder", lambda where, **_: (order.append(where), sync_folder(where))
    )
    with storage.open_writer(KEY) as writer:
        order.clear()
        writer.write(memoryview(b"x"))

    assert order == [Path(storage.url, KEY), Path(storage.url, KEY).parent]


def test_a_name_in_use_is_never_overwritten(storage):
    write(storage, b"first")

    with pytest.raises(FileExistsError):
        write(storage, b"second")

    assert storage.read(KEY) == b"first"


def test_write_back_is_asked_for_while_writing_and_covers_each_byte_once(storage, monkeypatch):
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        durable, "start_write_back", lambda _fd, start, length: asked.append((start, length))
    )

    write(storage, bytes(20 << 20), bytes(500), bytes(4 << 20))

    assert asked[0] == (0, durable.WRITE_BACK_BYTES)
    ends = [start + length for start, length in asked]
    assert [start for start, _ in asked] == [0, *ends[:-1]]
    assert ends[-1] > (24 << 20) - durable.WRITE_BACK_BYTES


def test_small_pieces_are_written_together(storage, monkeypatch):
    calls = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append(len(data)), real(fd, data))[1])

    write(storage, *[b"0123456789"] * 1000)

    assert calls == [10_000]
    assert storage.read(KEY) == b"0123456789" * 1000
