"""A large object through a filesystem's own file: given up, it is never committed."""

from __future__ import annotations

import gc
import io

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from ckptstore.errors import StorageError
from ckptstore.storage.opening import open_storage
from ckptstore.storage.remote import RemoteStorage
from ckptstore.storage.remote_writer import PART_BYTES

KEY = "packs/ab/x-0.safetensors"


class BufferedFile(AbstractBufferedFile):
    def _upload_chunk(self, final=False):  # noqa: FBT002 - fsspec's
        if self.fs.refusing:
            raise RuntimeError("refused with hunter2")
        self.fs.largest = max(self.fs.largest, self.buffer.getbuffer().nbytes)
        self.fs.parts.append(self.buffer.getvalue())
        if final:
            self.fs.committed[self.path] = b"".join(self.fs.parts)
        return True

    def discard(self):
        self.fs.discarded = True


class BufferedFilesystem(AbstractFileSystem):
    """As cloud filesystems of fsspec are: a file appears when it is closed."""

    protocol = "buffered"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.committed: dict[str, bytes] = {}
        self.parts: list[bytes] = []
        self.largest = 0
        self.discarded = False
        self.refusing = False
        self.unremovable = False

    def _open(self, path, mode="rb", block_size=None, **_options):
        return BufferedFile(self, path, mode, block_size)

    def exists(self, path, **_options):
        return path in self.committed

    def makedirs(self, path, exist_ok=False):  # noqa: FBT002 - fsspec's
        pass

    def rm_file(self, path):
        if self.unremovable:
            raise PermissionError("denied")
        del self.committed[path]


@pytest.fixture
def storage() -> RemoteStorage:
    fsspec.register_implementation("buffered", BufferedFilesystem, clobber=True)
    storage = open_storage("buffered://place/store", {"password": "hunter2"})
    assert isinstance(storage, RemoteStorage)
    return storage


def write_and_stop(storage: RemoteStorage, length: int = 100) -> None:
    with storage.open_writer(KEY) as writer:
        writer.write(memoryview(bytes(length)))
        raise ValueError("stop")


def test_a_file_appears_when_the_block_is_left(storage):
    with storage.open_writer(KEY) as writer:
        writer.write(memoryview(b"0123"))
        writer.write(memoryview(b"4567"))
        assert storage._filesystem.committed == {}

    assert storage._filesystem.committed == {f"place/store/{KEY}": b"01234567"}


@pytest.mark.parametrize("length", [100, 2 * PART_BYTES])
def test_a_file_given_up_is_discarded_and_does_not_close_itself_later(storage, length):
    with pytest.raises(ValueError, match="stop"):
        write_and_stop(storage, length)
    gc.collect()

    assert storage._filesystem.discarded
    assert storage._filesystem.committed == {}


def test_a_file_that_cannot_be_closed_is_given_up(storage):
    def write() -> None:
        with storage.open_writer(KEY) as writer:
            storage._filesystem.refusing = True
            writer.write(memoryview(b"x"))

    with pytest.raises(StorageError, match="cannot write") as caught:
        write()

    assert "hunter2" not in str(caught.value)
    assert storage._filesystem.discarded


def test_what_cannot_be_removed_is_said(storage):
    storage._filesystem.unremovable = True
    storage._filesystem.committed[f"place/store/{KEY}"] = b"partial"

    with pytest.raises(ValueError, match="stop") as caught:
        write_and_stop(storage)

    assert "could not be removed" in caught.value.__notes__[0]


def test_memory_held_by_one_write_is_bounded(storage):
    data = io.BytesIO(bytes(5 * PART_BYTES))
    with storage.open_writer(KEY) as writer:
        writer.write(data.getbuffer())

    assert storage._filesystem.largest <= 2 * PART_BYTES
