"""Filesystems of fsspec nobody here knows: what they do is taken with care."""

from __future__ import annotations

import errno
import traceback
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ckptstore.errors import StorageError
from ckptstore.storage.base import Listing
from ckptstore.storage.opening import open_storage
from ckptstore.storage.remote import RemoteStorage

KEY = "runs/digits/_versions/00000001.jsonl"


class OddError(Exception):
    """What a package raises that knows no OSError."""


class OddFilesystem(MemoryFileSystem):
    """Memory of its own that fails on request."""

    protocol = "odd"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent has it
    pseudo_dirs = [""]  # noqa: RUF012 - as its parent has it
    failing: dict[str, Exception] = {}  # noqa: RUF012 - as its parent has it

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("odd://"))

    def __getattribute__(self, name):
        if error := OddFilesystem.failing.get(name):
            raise error
        return super().__getattribute__(name)


@pytest.fixture
def storage(monkeypatch) -> RemoteStorage:
    fsspec.register_implementation("odd", OddFilesystem, clobber=True)
    monkeypatch.setattr(OddFilesystem, "store", {})
    monkeypatch.setattr(OddFilesystem, "pseudo_dirs", [""])
    monkeypatch.setattr(OddFilesystem, "failing", {})
    storage = open_storage("odd://place/store", {"password": "hunter2"})
    assert isinstance(storage, RemoteStorage)
    return storage


def test_an_unknown_filesystem_is_not_exclusive_and_works_for_one_writer(storage):
    assert not storage.exclusive

    storage.create(KEY, b"first")
    with pytest.raises(FileExistsError):
        storage.create(KEY, b"second")

    assert storage.read(KEY) == b"first"
    assert storage.list_folder("runs/digits") == Listing(("_versions",), ())


CALLS = [
    ("cat_file", lambda storage: storage.read(KEY)),
    ("cat_file", lambda storage: storage.read_start(KEY, 4)),
    ("cat_file", lambda storage: storage.read_many([KEY], 4)),
    ("cat_ranges", lambda storage: storage.read_into(KEY, 0, memoryview(bytearray(4)))),
    ("info", lambda storage: storage.size_bytes(KEY)),
    ("ls", lambda storage: storage.list_folder("runs")),
    ("ls", lambda storage: list(storage.walk("runs"))),
    ("info", lambda storage: storage.written_at(KEY)),
    ("pipe_file", lambda storage: storage.create("new", b"")),
    ("exists", lambda storage: storage.create("new", b"")),
    ("makedirs", lambda storage: storage.open_writer("new")),
    ("open", lambda storage: storage.open_writer("new")),
]


@pytest.mark.parametrize(("method", "call"), CALLS)
@pytest.mark.parametrize("error", [OddError, RuntimeError, PermissionError, TimeoutError])
def test_whatever_a_package_raises_becomes_a_storage_error_without_secrets(
    storage, monkeypatch, method, call, error
):
    storage.create(KEY, b"manifest")
    monkeypatch.setitem(OddFilesystem.failing, method, error("hunter2 at http://host.example/x"))

    with pytest.raises(StorageError, match=error.__name__) as caught:
        call(storage)

    assert "odd://place/store" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown
    assert "host.example" not in shown


def test_the_number_of_the_error_is_kept(storage, monkeypatch):
    monkeypatch.setitem(OddFilesystem.failing, "exists", OSError(errno.EDQUOT, "quota"))

    with pytest.raises(StorageError) as caught:
        storage.create(KEY, b"")
    assert caught.value.errno == errno.EDQUOT


def test_a_mistake_in_a_program_stays_one(storage, monkeypatch):
    monkeypatch.setitem(OddFilesystem.failing, "exists", TypeError("wrong call"))

    with pytest.raises(TypeError, match="wrong call"):
        storage.create(KEY, b"")


def test_a_folder_missing_while_writing_is_not_a_missing_object(storage, monkeypatch):
    monkeypatch.setitem(OddFilesystem.failing, "pipe_file", FileNotFoundError("no bucket"))

    with pytest.raises(StorageError):
        storage.create(KEY, b"")


def test_a_range_that_comes_short_is_an_error(storage, monkeypatch):
    storage.create(KEY, b"0123456789")
    monkeypatch.setattr(OddFilesystem, "cat_ranges", lambda *_a, **_k: [b"01"])

    with pytest.raises(EOFError, match="ends at byte 2"):
        storage.read_into(KEY, 0, memoryview(bytearray(10)))


def test_memory_held_by_a_read_is_bounded(storage, monkeypatch):
    storage.create(KEY, bytes(100_000_000))
    asked = []
    cat_ranges = OddFilesystem.cat_ranges

    def noted(self, paths, starts, ends, **options):
        asked.append(sum(end - start for start, end in zip(starts, ends, strict=True)))
        return cat_ranges(self, paths, starts, ends, **options)

    monkeypatch.setattr(OddFilesystem, "cat_ranges", noted)

    storage.read_into(KEY, 0, memoryview(bytearray(100_000_000)))

    assert max(asked) <= 64 * 2**20
    assert sum(asked) == 100_000_000


def test_a_missing_bucket_of_a_cloud_is_named(storage):
    storage._protocol = "gs"

    with pytest.raises(StorageError, match="no bucket 'place'"):
        storage.list_folder("")

    storage._filesystem.pipe_file("/place/other", b"")
    assert storage.list_folder("") == Listing((), ())


def keys_below(storage: RemoteStorage) -> list[str]:
    return sorted(stored.key for stored in storage.walk(""))


@pytest.mark.parametrize("folder", ["/place/store", "/place/store/runs/digits"])
def test_a_folder_that_cannot_be_listed_fails_the_walk(storage, monkeypatch, folder):
    storage.create(KEY, b"x")
    ls = OddFilesystem.ls

    def denied(self, path, **options):
        if self._strip_protocol(path) == folder:
            raise PermissionError(errno.EACCES, "denied")
        return ls(self, path, **options)

    monkeypatch.setattr(OddFilesystem, "ls", denied)

    with pytest.raises(StorageError, match="cannot list odd://place/store"):
        keys_below(storage)


def test_what_is_removed_during_a_walk_is_not_there(storage):
    for key in ("a/1", "b/2", "c/3"):
        storage.create(key, b"x")
    walk = storage.walk("")
    first = next(walk).key
    others = sorted({"a/1", "b/2", "c/3"} - {first})

    storage._filesystem.rm(f"/place/store/{others[0]}")

    assert [stored.key for stored in walk] == others[1:]


def test_a_file_told_without_a_time_is_asked_for_it(storage, monkeypatch):
    storage.create(KEY, b"x")
    monkeypatch.setattr("ckptstore.storage.remote.latest_named", lambda _info: None)

    (stored,) = storage.walk("")

    assert stored.written_at == storage._filesystem.modified(storage._path(KEY))
    assert stored.written_at == storage.written_at(KEY)


def test_a_filesystem_that_knows_no_times_tells_none(storage, monkeypatch):
    storage.create(KEY, b"x")
    monkeypatch.setattr("ckptstore.storage.remote.latest_named", lambda _info: None)
    monkeypatch.setitem(OddFilesystem.failing, "modified", NotImplementedError())

    assert storage.written_at(KEY) is None
    assert [stored.written_at for stored in storage.walk("")] == [None]


def test_a_time_that_cannot_be_had_fails_the_walk(storage, monkeypatch):
    storage.create(KEY, b"x")
    monkeypatch.setattr("ckptstore.storage.remote.latest_named", lambda _info: None)
    monkeypatch.setitem(OddFilesystem.failing, "modified", OddError())

    with pytest.raises(StorageError, match="OddError"):
        keys_below(storage)


def test_a_file_removed_before_its_time_was_asked_for_is_not_there(storage, monkeypatch):
    storage.create(KEY, b"x")
    monkeypatch.setattr("ckptstore.storage.remote.latest_named", lambda _info: None)
    monkeypatch.setitem(OddFilesystem.failing, "modified", FileNotFoundError(KEY))

    assert keys_below(storage) == []


@pytest.mark.parametrize("error", [OddError, PermissionError, TimeoutError, NotImplementedError])
def test_what_cannot_be_deleted_is_named_and_the_rest_is_gone(storage, monkeypatch, error):
    for key in ("a", "b", "c"):
        storage.create(key, b"x")
    rm_file = OddFilesystem.rm_file

    def denied(self, path):
        if path.endswith("/b"):
            raise error("hunter2")
        rm_file(self, path)

    monkeypatch.setattr(OddFilesystem, "rm_file", denied)

    failed = storage.delete(["a", "b", "c", "gone already"])

    assert list(failed) == ["b"]
    assert "cannot delete odd://place/store/b" in str(failed["b"])
    assert "hunter2" not in str(failed["b"])
    assert keys_below(storage) == ["b"]


def test_nothing_is_known_to_be_left_of_interrupted_writes(storage):
    assert list(storage.leftovers()) == []


def test_a_filesystem_that_remembers_its_listings_is_asked_afresh(storage, monkeypatch):
    remembered: dict[str, Any] = {}
    ls = OddFilesystem.ls

    def remembering(self, path, **options):
        if path not in remembered:
            remembered[path] = ls(self, path, **options)
        return remembered[path]

    monkeypatch.setattr(OddFilesystem, "ls", remembering)
    monkeypatch.setattr(OddFilesystem, "invalidate_cache", lambda _self: remembered.clear())
    storage.create("runs/a", b"")
    assert keys_below(storage) == ["runs/a"]

    storage.create("runs/b", b"")

    assert keys_below(storage) == ["runs/a", "runs/b"]
    assert storage.list_folder("runs") == Listing((), ("a", "b"))
