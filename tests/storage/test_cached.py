"""What a cache adds to a storage; that it is one is in test_contract.py."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from ckptstore.errors import ArgumentError, StorageError
from ckptstore.storage import cached as module
from ckptstore.storage import locks
from ckptstore.storage.cache import LAYOUT, Cache
from ckptstore.storage.cached import CachedStorage, cached
from ckptstore.storage.opening import open_storage
from tests.faults import Failing

KEY = "packs/ab/1-0.safetensors"
DATA = bytes(range(256)) * 40
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def origin(memory_url) -> Failing:
    storage = open_storage(memory_url)
    with storage.open_writer(KEY) as writer:
        writer.write(memoryview(DATA))
    return Failing(storage)


@pytest.fixture
def storage(origin, tmp_path) -> CachedStorage:
    return CachedStorage(origin, Cache(tmp_path / "cache"))


def read(storage, key: str = KEY, start: int = 0, length: int = len(DATA)) -> bytes:
    out = bytearray(length)
    storage.read_into(key, start, memoryview(out))
    return bytes(out)


def copies(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("packs*") if path.is_file()]


def test_nothing_is_copied_that_was_not_brought(storage, tmp_path):
    assert read(storage) == DATA
    assert storage.size_bytes(KEY) == len(DATA)
    assert storage.map(KEY) is None
    assert not (tmp_path / "cache").exists()


def test_what_was_brought_is_read_without_the_storage(storage, origin):
    storage.bring(KEY, len(DATA))
    origin.done.clear()

    storage.bring(KEY, len(DATA))
    assert read(storage) == DATA
    assert read(storage, start=300, length=7) == DATA[300:307]
    assert storage.size_bytes(KEY) == len(DATA)
    assert bytes(storage.map(KEY)) == DATA
    assert origin.done == []


def test_a_copy_serves_other_storages_of_that_address(storage, origin, tmp_path):
    storage.bring(KEY, len(DATA))
    origin.done.clear()

    assert read(CachedStorage(origin, Cache(tmp_path / "cache"))) == DATA
    assert origin.done == []


@pytest.mark.parametrize("beside", [1, 8, 100])
def test_what_is_fetched_takes_little_memory_however_large_it_is(
    storage, origin, monkeypatch, beside
):
    monkeypatch.setattr(module, "MOST_BYTES", 4096)
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    monkeypatch.setattr(module, "LEAST_PIECE_BYTES", 100)
    sizes = []
    real = origin.read_into
    origin.read_into = lambda key, start, out: (sizes.append(out.nbytes), real(key, start, out))

    storage.bring(KEY, len(DATA), beside=[str(n) for n in range(beside)])

    assert max(sizes) == {1: 1000, 8: 512, 100: 100}[beside]
    assert sum(sizes) == len(DATA)
    assert read(storage) == DATA


def test_what_is_not_there_is_said_when_it_is_read(storage, tmp_path):
    storage.bring("packs/ab/2", 5)

    assert storage.trouble() is None
    with pytest.raises(FileNotFoundError):
        read(storage, "packs/ab/2", length=5)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("said", [len(DATA) - 1, len(DATA) + 1, 2**60])
def test_what_has_another_size_than_is_said_makes_no_room_and_no_copy(storage, tmp_path, said):
    storage.bring(KEY, said)

    assert not (tmp_path / "cache").exists()
    assert storage.size_bytes(KEY) == len(DATA)


def test_an_object_that_goes_or_ends_while_it_is_fetched_leaves_no_copy(storage, origin, tmp_path):
    for fault in (FileNotFoundError, EOFError):
        origin.at, origin.count, origin.only, origin.fault = 1, 0, {"read_into"}, fault
        storage.bring(KEY, len(DATA))

        assert copies(tmp_path) == []
    assert storage.trouble() is None


@pytest.mark.parametrize("operation", ["size_bytes", "read_into"])
def test_a_storage_that_fails_is_no_matter_of_the_cache(storage, origin, tmp_path, operation):
    origin.at, origin.only = 1, {operation}

    with pytest.raises(StorageError, match="the connection broke"):
        storage.bring(KEY, len(DATA))

    assert copies(tmp_path) == []
    assert storage.trouble() is None


def test_an_interrupt_while_fetching_leaves_nothing(storage, origin, tmp_path):
    origin.at, origin.only, origin.fault = 1, {"read_into"}, KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.bring(KEY, len(DATA))

    assert copies(tmp_path) == []
    storage.bring(KEY, len(DATA))
    assert len(copies(tmp_path)) == 1


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_disk_that_fails_is_told_once_and_the_storage_is_read(
    storage, tmp_path, monkeypatch, fails
):
    def fail(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, fails, fail)
    storage.bring(KEY, len(DATA))
    storage.bring(KEY, len(DATA))
    monkeypatch.undo()

    assert copies(tmp_path) == []
    assert read(storage) == DATA
    assert "could not be used: " in storage.trouble()
    assert storage.trouble() is None


@pytest.mark.parametrize("what", ["a file", "no permission", "of others", "others inside"])
def test_a_folder_that_cannot_be_used_is_told_once(storage, tmp_path, what, monkeypatch):
    folder = tmp_path / "cache"
    if what == "a file":
        folder.write_text("")
    elif what == "no permission":
        monkeypatch.setattr(
            Path, "mkdir", lambda *_a, **_o: (_ for _ in ()).throw(PermissionError(13, "denied"))
        )
    elif what == "of others":
        (folder / LAYOUT).mkdir(parents=True)
        (folder / LAYOUT).chmod(0o777)
    else:
        storage.bring(KEY, len(DATA))
        copies(tmp_path)[0].parent.chmod(0o777)
    storage.bring(KEY, len(DATA))

    assert read(storage) == DATA
    assert storage.size_bytes(KEY) == len(DATA)
    assert f"the cache at {folder} could not be used" in storage.trouble()
    assert storage.trouble() is None


def test_a_copy_that_cannot_be_read_is_told_and_the_storage_is_read(storage, monkeypatch):
    storage.bring(KEY, len(DATA))

    def fail(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "read_file_into", fail)
    monkeypatch.setattr(module, "map_privately", fail)

    assert read(storage) == DATA
    assert storage.map(KEY) is None
    assert "Input/output error" in storage.trouble()


def test_a_copy_that_ends_early_is_not_read(storage, tmp_path):
    storage.bring(KEY, len(DATA))
    os.truncate(copies(tmp_path)[0], 100)

    assert read(storage, length=100) == DATA[:100]
    assert read(storage) == DATA
    storage.bring(KEY, len(DATA))
    assert copies(tmp_path)[0].read_bytes() == DATA


def test_without_its_copy_the_storage_is_read(storage, origin, tmp_path):
    storage.bring(KEY, len(DATA))
    copies(tmp_path)[0].write_bytes(b"x" * len(DATA))
    assert read(storage) == b"x" * len(DATA)

    assert storage.without_copy(KEY) is origin

    assert read(storage) == DATA
    storage.bring(KEY, len(DATA))
    assert copies(tmp_path)[0].read_bytes() == DATA


def test_a_copy_that_cannot_be_dropped_is_no_failure(storage, monkeypatch):
    storage.bring(KEY, len(DATA))

    def fail(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", fail)
    assert storage.without_copy(KEY) is storage.origin
    assert "Permission denied" in storage.trouble()


def test_deleting_an_object_deletes_its_copy(storage, tmp_path):
    storage.bring(KEY, len(DATA))

    assert storage.delete([KEY]) == {}

    assert copies(tmp_path) == []


def test_two_processes_that_want_the_same_fetch_it_once(storage, origin):
    """The first is held in the middle of it until the second is known to wait."""
    waits, answers = FORK.Event(), FORK.SimpleQueue()
    fetching, go_on = threading.Event(), threading.Event()
    real = origin.read_into

    def held(key: str, start: int, out: memoryview) -> None:
        fetching.set()
        assert go_on.wait(60)
        real(key, start, out)

    def second() -> None:
        def asked(_seconds: float) -> None:
            waits.set()

        locks.time.sleep = asked
        storage.bring(KEY, len(DATA))
        answers.put((read(storage) == DATA, origin.done))

    process = FORK.Process(target=second)
    origin.read_into = held
    thread = threading.Thread(target=storage.bring, args=(KEY, len(DATA)))
    thread.start()
    assert fetching.wait(60)
    origin.done.clear()
    origin.read_into = real
    process.start()
    assert waits.wait(60)
    go_on.set()
    thread.join(60)
    process.join(60)

    was_read, done = answers.get()
    assert was_read
    assert [operation for operation, _ in done] == ["size_bytes"]


def test_what_is_mapped_outlives_making_room(origin, tmp_path):
    storage = CachedStorage(origin, Cache(tmp_path / "cache", max_bytes=len(DATA) + 10))
    storage.bring(KEY, len(DATA))
    mapped = storage.map(KEY)
    origin.storage.create("packs/ab/2", b"x" * 20)

    storage.bring("packs/ab/2", 20)

    assert len(copies(tmp_path)) == 1
    assert bytes(mapped) == DATA
    assert read(storage) == DATA


def test_one_address_on_two_services_has_copies_of_each(origin, tmp_path):
    one = cached(origin, tmp_path, {"endpoint_url": "http://one:9000"})
    two = cached(origin, tmp_path, {"endpoint_url": "http://two:9000"})
    one.bring(KEY, len(DATA))
    two.bring(KEY, len(DATA))

    assert len({path.parent for path in copies(tmp_path)}) == 2


def test_no_cache_is_the_storage_itself(origin):
    assert cached(origin, None) is origin


@pytest.mark.parametrize("cache", ["cache", Path("cache"), Cache("cache", max_bytes=5)])
def test_a_cache_is_given_as_a_path_or_with_its_limit(origin, cache):
    found = cached(origin, cache)

    assert isinstance(found, CachedStorage)
    assert "cache" in repr(found)
    assert found.url == origin.url


@pytest.mark.parametrize("cache", [5, True, b"x", ["x"], "s3://bucket/cache", ""])
def test_what_is_no_cache_is_refused(origin, cache):
    with pytest.raises(ArgumentError, match="a cache is a folder"):
        cached(origin, cache)


def test_a_store_on_a_disk_of_this_machine_takes_no_cache(tmp_path):
    with pytest.raises(ArgumentError, match="is on a disk of this machine already"):
        cached(open_storage(tmp_path / "store"), tmp_path / "cache")


def test_a_folder_on_another_machine_takes_a_cache_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "is_folder_on_local_disk", lambda _folder: False)
    store = open_storage(tmp_path / "store")

    assert isinstance(cached(store, tmp_path / "cache"), CachedStorage)
    assert isinstance(cached(store, tmp_path / "store-cache"), CachedStorage)
    for folder in ("store", "store/cache", "."):
        with pytest.raises(ArgumentError, match="lie within each other"):
            cached(store, tmp_path / folder)
