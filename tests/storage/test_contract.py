"""What every storage must do, whichever it is: one suite for a folder, memory and S3."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from ckptstore.errors import ArgumentError
from ckptstore.storage.base import Leftover, Listing, Storage
from ckptstore.storage.cache import Cache
from ckptstore.storage.cached import CachedStorage
from ckptstore.storage.opening import open_storage
from ckptstore.storage.s3 import S3Storage

KEY = "runs/digits/_versions/00000001.jsonl"
PART = 5 * 2**20  # the least that S3 takes


class Bringing(CachedStorage):
    """Reads everything out of copies: it makes one first."""

    def _brought(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self.bring(key, self.origin.size_bytes(key))

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        self._brought(key)
        super().read_into(key, start, out)

    def size_bytes(self, key: str) -> int:
        self._brought(key)
        return super().size_bytes(key)

    def map(self, key: str) -> mmap.mmap | None:
        self._brought(key)
        return super().map(key)


@pytest.fixture(params=["local", "memory", "s3", "cached"])
def store_url(request: pytest.FixtureRequest) -> str:
    """As everywhere; and a place whose objects are read through a cache."""
    if request.param == "local":
        return str(request.getfixturevalue("tmp_path") / "store")
    kind = "memory" if request.param == "cached" else request.param
    return str(request.getfixturevalue(f"{kind}_url"))


@pytest.fixture
def storage(request: pytest.FixtureRequest, store_url: str, tmp_path: Path) -> Storage:
    storage = open_storage(store_url)
    if isinstance(storage, S3Storage):
        storage.part_bytes = PART
    if request.node.callspec.params["store_url"] == "cached":
        return Bringing(storage, Cache(tmp_path / "cache"))
    return storage


def write(storage: Storage, key: str, data: bytes, piece: int = 1 << 20) -> None:
    with storage.open_writer(key) as writer:
        for start in range(0, len(data), piece):
            writer.write(memoryview(data)[start : start + piece])


def some_bytes(length: int) -> bytes:
    return bytes(
        memoryview(b"".join(n.to_bytes(4, "big") for n in range(length // 4 + 1)))[:length]
    )


def test_what_was_created_is_read_back(storage):
    storage.create(KEY, b"manifest")

    assert storage.read(KEY) == b"manifest"
    assert storage.size_bytes(KEY) == 8


def test_an_empty_object_is_an_object(storage):
    storage.create(KEY, b"")

    assert storage.read(KEY) == b""
    assert storage.read_start(KEY, 10) == b""
    assert storage.read_many([KEY], 10) == [b""]
    assert storage.size_bytes(KEY) == 0
    storage.read_into(KEY, 0, memoryview(bytearray()))


def test_creating_twice_leaves_the_first(storage):
    storage.create(KEY, b"first")

    with pytest.raises(FileExistsError):
        storage.create(KEY, b"second")

    assert storage.read(KEY) == b"first"


def test_creating_twice_with_the_same_bytes_fails_too(storage):
    storage.create("ckptstore.json", b"same")

    with pytest.raises(FileExistsError):
        storage.create("ckptstore.json", b"same")


def test_exactly_one_of_many_threads_creates(storage):
    start = threading.Barrier(8)
    assert storage.exclusive

    def create(number: int) -> bool:
        start.wait()
        try:
            storage.create(KEY, b"%d" % number)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(create, range(8)))

    assert won.count(True) == 1
    assert storage.read(KEY) == b"%d" % won.index(True)


@pytest.mark.parametrize("length", [0, 1, 1 << 20, PART, PART + 1, 3 * PART + 17])
def test_a_written_object_is_read_back(storage, length):
    data = some_bytes(length)

    write(storage, "packs/ab/x-0.safetensors", data)

    assert storage.size_bytes("packs/ab/x-0.safetensors") == length
    out = bytearray(length)
    storage.read_into("packs/ab/x-0.safetensors", 0, memoryview(out))
    assert out == data


def test_a_writer_takes_pieces_of_any_size_and_memory_that_is_reused(storage):
    data = some_bytes(2 * PART)
    memory = bytearray(PART)
    with storage.open_writer("packs/ab/x-0.safetensors") as writer:
        done = 0
        for size in (0, 1, 3, 1 << 20, 70_000, 4 << 20, PART, 1):
            size = min(size, len(data) - done)  # noqa: PLW2901 - what is left of it
            memory[:size] = data[done : done + size]
            writer.write(memoryview(memory)[:size])
            memory[:size] = bytes(size)
            done += size

    assert storage.read("packs/ab/x-0.safetensors") == data[:done]


def test_a_writer_takes_views_of_other_types(storage):
    with storage.open_writer("packs/ab/x-0.safetensors") as writer:
        writer.write(memoryview(b"12345678").cast("d"))
        writer.write(memoryview(b"").cast("d"))

    out = memoryview(bytearray(8)).cast("d")
    storage.read_into("packs/ab/x-0.safetensors", 0, out)
    assert bytes(out) == b"12345678"


@pytest.mark.parametrize("length", [10, 2 * PART + 3])
@pytest.mark.parametrize("reason", [RuntimeError, KeyboardInterrupt])
def test_leaving_a_writer_by_an_exception_leaves_nothing(storage, length, reason):
    def write_half() -> None:
        with storage.open_writer("packs/ab/x-0.safetensors") as writer:
            writer.write(memoryview(some_bytes(length)))
            raise reason

    with pytest.raises(reason):
        write_half()

    assert storage.list_folder("packs/ab") == Listing((), ())
    with pytest.raises(FileNotFoundError):
        storage.read("packs/ab/x-0.safetensors")


@pytest.mark.parametrize(("start", "length"), [(0, 5), (3, 4), (9, 1), (10, 0), (0, 10)])
def test_a_range_is_read(storage, start, length):
    storage.create(KEY, b"0123456789")
    out = bytearray(length)

    storage.read_into(KEY, start, memoryview(out))

    assert out == b"0123456789"[start : start + length]


@pytest.mark.parametrize(("start", "length"), [(0, 11), (9, 2), (10, 1), (100, 1)])
def test_a_range_beyond_the_end_is_an_error(storage, start, length):
    storage.create(KEY, b"0123456789")

    with pytest.raises(EOFError, match="ends at byte"):
        storage.read_into(KEY, start, memoryview(bytearray(length)))


def test_a_range_larger_than_one_request_is_read(storage):
    data = some_bytes(20 * 2**20 + 5)
    write(storage, "packs/ab/x-0.safetensors", data, piece=8 << 20)
    out = bytearray(19 * 2**20)

    storage.read_into("packs/ab/x-0.safetensors", 2**20 + 1, memoryview(out))

    assert out == data[2**20 + 1 : 20 * 2**20 + 1]
    with pytest.raises(EOFError):
        storage.read_into("packs/ab/x-0.safetensors", 2**20 + 6, memoryview(bytearray(len(data))))


@pytest.mark.parametrize("length", [0, 3, 10, 11, 1 << 20])
def test_the_start_is_read_and_may_be_short(storage, length):
    storage.create(KEY, b"0123456789")

    assert storage.read_start(KEY, length) == b"0123456789"[:length]


def test_many_are_read_in_order_with_none_for_the_missing(storage):
    keys = [f"runs/digits/_versions/{n:08}.jsonl" for n in range(1, 41)]
    for key in keys[::2]:
        storage.create(key, key.encode() + b"rest")

    starts = storage.read_many(keys, len(KEY))

    assert starts == [key.encode() if n % 2 == 0 else None for n, key in enumerate(keys)]
    assert storage.read_many([], 10) == []


@pytest.mark.parametrize(
    "read",
    [
        lambda storage: storage.read(KEY),
        lambda storage: storage.read_start(KEY, 10),
        lambda storage: storage.read_start(KEY, 0),
        lambda storage: storage.read_into(KEY, 0, memoryview(bytearray(1))),
        lambda storage: storage.read_into(KEY, 0, memoryview(bytearray())),
        lambda storage: storage.size_bytes(KEY),
    ],
)
def test_what_is_not_there_is_a_file_not_found_error(storage, read):
    with pytest.raises(FileNotFoundError):
        read(storage)

    storage.create(KEY + "/below", b"")  # nor is a folder an object
    with pytest.raises(FileNotFoundError):
        read(storage)


def test_a_folder_is_listed_one_level_deep(storage):
    for key in ("a.json", "packs/ab/1", "packs/cd/2", "packs/z", "packs-old/3"):
        storage.create(key, b"x")

    assert storage.list_folder("") == Listing(("packs", "packs-old"), ("a.json",))
    assert storage.list_folder("packs") == Listing(("ab", "cd"), ("z",))
    assert storage.list_folder("packs/ab") == Listing((), ("1",))
    assert storage.list_folder("packs/ab/1") == Listing((), ())
    assert storage.list_folder("pack") == Listing((), ())


def test_a_listing_is_fresh(storage, store_url):
    other = open_storage(store_url)
    assert storage.list_folder("runs") == Listing((), ())
    other.create("runs/a/1", b"")
    assert storage.list_folder("runs") == Listing(("a",), ())
    other.create("runs/b/1", b"")
    assert storage.list_folder("runs") == Listing(("a", "b"), ())
    assert storage.read("runs/b/1") == b""


def keys_below(storage: Storage, folder: str) -> list[str]:
    return sorted(stored.key for stored in storage.walk(folder))


def test_a_walk_yields_every_object_at_any_depth_and_no_other(storage):
    keys = ["a.json", "packs/ab/1", "packs/cd/deeper/2", "packs/z", "packs-old/3", "runs/r/v/1"]
    for key in keys:
        storage.create(key, key.encode())

    assert keys_below(storage, "") == sorted(keys)
    assert keys_below(storage, "packs") == ["packs/ab/1", "packs/cd/deeper/2", "packs/z"]
    assert keys_below(storage, "packs/cd") == ["packs/cd/deeper/2"]
    assert keys_below(storage, "packs/z") == []
    assert keys_below(storage, "pack") == []
    assert {stored.key: stored.size_bytes for stored in storage.walk("")} == {
        key: len(key) for key in keys
    }


def test_a_walk_of_nothing_yields_nothing_and_creates_nothing(storage, store_url):
    assert list(storage.walk("")) == []
    assert list(storage.leftovers()) == []
    assert storage.delete([KEY]) == {}
    assert not os.path.exists(store_url)  # noqa: PTH110 - a string here


def test_a_walk_is_fresh(storage, store_url):
    other = open_storage(store_url)
    assert keys_below(storage, "runs") == []
    other.create("runs/a/1", b"")
    assert keys_below(storage, "runs") == ["runs/a/1"]
    other.create("runs/b/1", b"")
    assert keys_below(storage, "runs") == ["runs/a/1", "runs/b/1"]
    other.delete(["runs/a/1"])
    assert keys_below(storage, "runs") == ["runs/b/1"]


def test_the_storage_says_when_an_object_was_written(storage):
    # S3 tells whole seconds; the clocks are the same here.
    before = datetime.now(UTC) - timedelta(seconds=2)
    storage.create(KEY, b"x")
    write(storage, "packs/ab/x-0.safetensors", some_bytes(2 * PART))
    after = datetime.now(UTC) + timedelta(seconds=2)

    for stored in storage.walk(""):
        assert stored.written_at == storage.written_at(stored.key)
        assert before < stored.written_at < after
        assert stored.written_at.tzinfo is UTC


def test_when_something_was_written_that_is_not_there_is_a_file_not_found_error(storage):
    storage.create("packs/ab/1", b"")
    for key in (KEY, "packs/ab"):
        with pytest.raises(FileNotFoundError):
            storage.written_at(key)


def test_deleted_objects_are_gone_and_the_others_stay(storage):
    keys = [f"packs/{n % 3:02}/{n}" for n in range(30)]
    for key in keys:
        storage.create(key, b"x")

    assert storage.delete(keys[:20]) == {}

    assert keys_below(storage, "") == sorted(keys[20:])
    assert storage.read_many(keys, 1) == [None] * 20 + [b"x"] * 10


def test_deleting_what_is_not_there_is_no_failure(storage):
    storage.create("packs/ab/1", b"x")

    assert storage.delete(["packs/ab/1", "packs/ab/2", "packs/cd/1", "packs/ab/1"]) == {}
    assert storage.delete(["packs/ab/1"]) == {}
    assert storage.delete([]) == {}

    assert keys_below(storage, "") == []


def test_what_was_deleted_can_be_created_again(storage):
    storage.create(KEY, b"first")
    storage.delete([KEY])

    storage.create(KEY, b"second")

    assert storage.read(KEY) == b"second"


@pytest.mark.parametrize("key", ["", "../x", "packs/../ckptstore.json", "/x", "packs/"])
def test_nothing_is_deleted_where_one_key_is_none(storage, key):
    storage.create("ckptstore.json", b"x")

    with pytest.raises(ArgumentError):
        storage.delete(["ckptstore.json", key])
    assert storage.read("ckptstore.json") == b"x"


def test_an_object_is_no_leftover(storage):
    storage.create(KEY, b"x")

    for upload in (None, "upload"):
        if upload is None or not isinstance(storage, S3Storage):
            with pytest.raises(ArgumentError, match="nothing that an interrupted write leaves"):
                storage.clear(Leftover(KEY, upload, 1, None))
    assert storage.read(KEY) == b"x"
    assert list(storage.leftovers()) == []


def test_names_of_runs_keep_their_signs(storage):
    name = "runs/lr=0.1+warm,v-2/_versions/00000001.jsonl"
    storage.create(name, b"x")

    assert storage.read(name) == b"x"
    assert storage.list_folder("runs").folders == ("lr=0.1+warm,v-2",)


def test_a_mapped_object_holds_its_bytes_and_writes_stay_private(storage):
    storage.create(KEY, b"0123456789")

    mapped = storage.map(KEY)

    if mapped is None:
        assert storage.local_folder is None
        return
    assert bytes(mapped) == b"0123456789"
    mapped[0:1] = b"x"
    assert storage.read(KEY) == b"0123456789"


@pytest.mark.parametrize("key", ["../x", "a/../b", "/x", "a//b", "a/", ".", "a\\b", "a\0b"])
def test_a_key_never_leads_out_of_the_root(storage, key):
    calls: list[Callable[[], object]] = [
        lambda: storage.read(key),
        lambda: storage.create(key, b""),
        lambda: storage.list_folder(key),
        lambda: storage.open_writer(key),
        lambda: storage.map(key),
        lambda: storage.walk(key),
        lambda: storage.written_at(key),
        lambda: storage.delete([key]),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match="no key"):
            call()


def test_many_threads_read_one_object(storage):
    data = some_bytes(300_000)
    storage.create(KEY, data)

    def read(start: int) -> bool:
        out = bytearray(100_000)
        storage.read_into(KEY, start, memoryview(out))
        return out == data[start : start + 100_000]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(0, 200_000, 5_000)))


def test_a_store_works_in_a_forked_process(storage):
    storage.create(KEY, b"before")  # connected, with a loop and sockets, before the fork
    answers = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        storage.create("runs/child", b"from the child")
        answers.put((storage.read(KEY), storage.list_folder("runs").files))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)

    assert process.exitcode == 0
    assert answers.get() == (b"before", ("child",))
    assert storage.read(KEY) == b"before"


def test_a_store_travels_to_another_process(storage):
    storage.create(KEY, b"x")

    travelled = ForkingPickler.loads(ForkingPickler.dumps(storage))  # as when a worker is spawned

    assert travelled.url == storage.url
    assert travelled.read(KEY) == b"x"


def test_a_closed_storage_connects_again(storage):
    storage.create(KEY, b"x")
    storage.close()

    assert storage.read(KEY) == b"x"


def test_reading_creates_nothing(storage, store_url):
    with pytest.raises(FileNotFoundError):
        storage.read("ckptstore.json")
    assert storage.read_many([KEY], 8) == [None]
    assert storage.list_folder("") == Listing((), ())

    assert not os.path.exists(store_url)  # noqa: PTH110 - a string here
    assert open_storage(store_url).list_folder("") == Listing((), ())


def test_the_address_is_shown_without_a_trailing_slash(storage, store_url):
    assert storage.url == store_url
    assert open_storage(store_url + "/").url == store_url
    assert store_url in repr(storage)
