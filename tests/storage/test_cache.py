from __future__ import annotations

import os
from datetime import UTC, datetime
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from ckptstore.errors import ArgumentError, StorageError
from ckptstore.storage.cache import LAYOUT, MAX_BYTES, Cache, CachedStore
from ckptstore.storage.copies import Copies
from ckptstore.storage.locks import try_lock


def put(cache: Cache, url: str, key: str, data: bytes, used_s: float | None = None) -> Path:
    copies = Copies(cache, url)
    with copies.add(key, len(data)) as new:
        new.write(memoryview(data))
        new.commit()
    if used_s is not None:
        os.utime(copies.path(key), (used_s, used_s))
    return copies.path(key)


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_cache_is_a_folder_and_a_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert Cache("~/.cache/ckptstore").folder == str(tmp_path / ".cache/ckptstore")
    assert Cache(tmp_path / "a" / ".." / "b").folder == str(tmp_path / "b")
    assert Cache("x").max_bytes == MAX_BYTES
    assert Cache(tmp_path, max_bytes=5) == Cache(str(tmp_path), max_bytes=5)
    assert ForkingPickler.loads(ForkingPickler.dumps(Cache(tmp_path))) == Cache(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["", " ", "a\0b", "s3://bucket/cache", None, 5, b"bytes", True])
def test_what_is_no_folder_is_refused(folder):
    with pytest.raises(ArgumentError, match="a cache is a folder of this machine"):
        Cache(folder)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "5", True, None])
def test_what_is_no_limit_is_refused(limit):
    with pytest.raises(ArgumentError, match="whole number of bytes"):
        Cache("x", max_bytes=limit)


def test_a_cache_tells_what_it_has_of_each_store(tmp_path):
    cache = Cache(tmp_path / "cache")
    assert cache.stores() == []
    put(cache, "s3://two/x", "packs/ab/1-0.safetensors", b"12345", used_s=1_000_000_000)
    put(cache, "s3://two/x", "files/ab/1-0", b"123", used_s=1_000_000_001)
    put(cache, "s3://one/x", "packs/ab/1-0.safetensors", b"1", used_s=1_000_000_002)

    assert cache.stores() == [
        CachedStore("s3://one/x", 1, 1, datetime.fromtimestamp(1_000_000_002, UTC)),
        CachedStore("s3://two/x", 2, 8, datetime.fromtimestamp(1_000_000_001, UTC)),
    ]


def test_an_address_that_cannot_be_read_is_left_out(tmp_path):
    cache = Cache(tmp_path)
    place = put(cache, "s3://one/x", "packs/1", b"1").parent
    (place / "%url").unlink()

    assert [store.url for store in cache.stores()] == [""]


def test_clearing_leaves_what_is_not_of_the_cache(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    cache = Cache(tmp_path)
    copy = put(cache, "s3://one/x", "packs/1", b"12345")
    (tmp_path / LAYOUT / "notes").mkdir()
    (copy.parent / "%other").write_text("x")

    assert cache.clear() == 5

    assert everything(tmp_path) == sorted(
        ["mine.txt", LAYOUT, "CACHEDIR.TAG", "notes", copy.parent.name, "%other"]
    )
    assert cache.stores() == []


def test_clearing_removes_what_killed_processes_left_and_no_more(tmp_path):
    cache = Cache(tmp_path)
    copy = put(cache, "s3://one/x", "packs/1", b"12345")
    for name in ("a", "b"):
        (copy.parent / f"{name}%lock").write_bytes(b"")
        (copy.parent / f"{name}%tmp-0123456789abcdef").write_bytes(b"12")
    held = try_lock(copy.parent / "b%lock")

    assert cache.clear() == 5

    assert everything(copy.parent) == ["b%lock", "b%tmp-0123456789abcdef"]
    held.release()


def test_nothing_is_a_cache_that_is_empty(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        assert Cache(folder).stores() == []
        assert Cache(folder).clear() == 0
    assert everything(tmp_path) == ["file"]


def test_a_cache_of_another_user_is_neither_listed_nor_cleared(tmp_path):
    cache = Cache(tmp_path)
    put(cache, "s3://one/x", "packs/1", b"12345")
    (tmp_path / LAYOUT).chmod(0o777)

    for verb in (cache.stores, cache.clear):
        with pytest.raises(StorageError, match="others can write to it"):
            verb()


def test_back_ups_are_told_to_leave_it_out(tmp_path):
    put(Cache(tmp_path), "s3://one/x", "packs/1", b"1")

    tag = (tmp_path / LAYOUT / "CACHEDIR.TAG").read_bytes()
    assert tag.startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
