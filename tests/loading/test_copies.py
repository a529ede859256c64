from __future__ import annotations

import uuid

import pytest

from ckptstore.errors import CacheWarning
from ckptstore.format.manifest import Pack
from ckptstore.format.part import Chunk
from ckptstore.loading import copies
from ckptstore.loading.copies import bring_file, bringing, past_copy, tell_trouble, worth_keeping
from ckptstore.saving import reuse
from ckptstore.storage.cache import Cache
from ckptstore.storage.cached import CachedStorage
from ckptstore.storage.opening import open_storage

LARGE = copies.WHOLE_BYTES * 4
DIGEST = "0" * 64


def pack(size_bytes: int = LARGE, number: int = 0) -> Pack:
    return Pack(uuid.UUID(int=7), number, size_bytes, 4096, DIGEST)


def chunk(length: int, start: int = 4096, place: int = 0) -> Chunk:
    return Chunk((0,), (length,), place, start, length, DIGEST)


@pytest.mark.parametrize(
    ("length", "kept"),
    [
        (LARGE - 4096, True),
        (LARGE // 8 - 4096, True),
        (LARGE // 8 - 4097, False),
        (100, False),
        (0, False),
    ],
)
def test_a_large_pack_is_worth_keeping_if_an_eighth_of_it_is_wanted(length, kept):
    assert worth_keeping([pack()], [chunk(length)]) == ([pack()] if kept else [])


def test_a_small_pack_is_worth_keeping_for_one_byte():
    small = pack(copies.WHOLE_BYTES)

    assert worth_keeping([small], [chunk(1)]) == [small]
    assert worth_keeping([small], [chunk(0)]) == []


def test_what_is_wanted_twice_counts_once():
    little = chunk(LARGE // 9 - 4096)

    assert worth_keeping([pack()], [little, little]) == []
    assert worth_keeping([pack()], [little, chunk(LARGE // 9, start=LARGE // 2)]) == [pack()]


def test_what_a_version_names_of_a_pack_is_enough_to_keep_it():
    assert copies.WORTHWHILE_SHARE * reuse.LEAST_SHARE >= 1


def test_each_pack_is_looked_at_by_itself():
    packs = [pack(number=0), pack(number=1), pack(100, number=2)]

    kept = worth_keeping(packs, [chunk(10), chunk(LARGE - 4096, place=1), chunk(10, place=2)])

    assert kept == packs[1:]


def test_a_storage_without_a_cache_brings_nothing(memory_url):
    storage = open_storage(memory_url)

    do, packs = bringing(storage, [pack()], [chunk(LARGE - 4096)])
    do(pack())

    assert packs == []
    assert past_copy(storage, "packs/1") is None
    bring_file(storage, "files/1", 5)
    tell_trouble(storage)


def test_trouble_is_told_once(memory_url, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    origin = open_storage(memory_url)
    origin.create("files/1", b"12345")
    storage = CachedStorage(origin, Cache(tmp_path / "cache"))

    with pytest.warns(CacheWarning, match="could not be used"):
        bring_file(storage, "files/1", 5)
    bring_file(storage, "files/1", 5)

    assert past_copy(storage, "files/1") is origin
