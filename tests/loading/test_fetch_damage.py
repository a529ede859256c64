"""Every byte of a store matters: a flip or a cut anywhere is found, named, and hurts nobody."""

from __future__ import annotations

import shutil
import zlib

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import CkptStoreError, IntegrityError
from ckptstore.loading.load import load_state
from ckptstore.manifest import open_manifest
from ckptstore.storage.local import LocalStorage
from tests.loading.forging import manifest_of, packs_of
from tests.loading.trainings import frozen

STATE = {"w": torch.arange(40, dtype=torch.float32), "odd": torch.arange(7, dtype=torch.int16)}
EXTRA = {"note": "é", "t": torch.ones(2, dtype=torch.bfloat16)}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "store"
    Store(folder).save(STATE, run="digits", epoch=1, val_loss=0.5, extra=EXTRA, rng=False)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original, tmp_path / "store")
    return tmp_path / "store"


def load_all(folder):
    storage = LocalStorage(folder)
    opened = open_manifest(storage, "digits", 1)
    return {
        part.name: load_state(opened, part.name, map_files=part.name == "model")
        for part in opened.head.parts
    }


EXPECTED = frozen({"model": STATE, "extra": EXTRA})


def outcome(folder):
    """Return what was loaded, or the message of the one error that is allowed."""
    try:
        return frozen(load_all(folder)) == EXPECTED, None
    except IntegrityError as error:
        return None, str(error)


def offsets(size, step=1):
    return range(0, size, step)


def test_undamaged_it_loads(folder):
    assert outcome(folder) == (True, None)


@pytest.mark.parametrize("pack", [0, 1], ids=["model", "extra"])
@pytest.mark.parametrize("shard", range(4))
def test_a_flipped_bit_anywhere_in_a_pack_is_found(folder, pack, shard):
    path = packs_of(folder, "digits")[pack]
    data = bytearray(path.read_bytes())
    # Padding is alike: one in 16 of its bytes stands for it.
    ends = [at for at in range(len(data)) if at % 16 == 0 or data[at] != ord(" ")]
    for at in ends[shard::4]:
        data[at] ^= 1 << (at % 8)
        path.write_bytes(data)
        loaded, message = outcome(folder)
        data[at] ^= 1 << (at % 8)

        assert loaded is None, f"byte {at} was flipped and nobody noticed"
        assert "digits@1" in message
        assert path.name in message
        if at >= 4096:
            assert "tensor 'model/" in message or "tensor 'extra/t'" in message


@pytest.mark.parametrize("shard", range(4))
def test_a_flipped_bit_anywhere_in_a_manifest_is_found(folder, shard):
    path = manifest_of(folder, "digits")
    data = bytearray(path.read_bytes())
    line_feeds = [at for at, byte in enumerate(data) if byte == ord("\n")]
    for at in range(shard, len(data), 4):
        data[at] ^= 1 << (at % 7)
        path.write_bytes(data)
        loaded, message = outcome(folder)
        data[at] ^= 1 << (at % 7)

        if loaded is None:
            assert "00000001.jsonl" in message, message
        else:
            # A line feed after a part's line says nothing: everything is still as it was saved.
            assert at in line_feeds[2:]
            assert loaded


@pytest.mark.parametrize("pack", [0, 1], ids=["model", "extra"])
def test_a_pack_cut_short_anywhere_is_found(folder, pack):
    path = packs_of(folder, "digits")[pack]
    data = path.read_bytes()
    for length in [*range(0, len(data), 97), 7, 8, 4095, 4096, len(data) - 1]:
        path.write_bytes(data[:length])
        loaded, message = outcome(folder)

        assert loaded is None, f"cut to {length} bytes and nobody noticed"
        assert path.name in message


def test_a_manifest_cut_short_anywhere_is_found(folder):
    path = manifest_of(folder, "digits")
    data = path.read_bytes()
    for length in [*range(0, len(data) - 1, 3), len(data) - 2]:
        path.write_bytes(data[:length])
        loaded, message = outcome(folder)

        assert loaded is None, f"cut to {length} bytes and nobody noticed"
        assert "00000001.jsonl" in message
    path.write_bytes(data[:-1])
    assert outcome(folder) == (True, None)  # the last line feed says nothing


def test_appended_bytes_in_a_pack_are_found(folder):
    path = packs_of(folder, "digits")[0]
    path.write_bytes(path.read_bytes() + b"\0")

    with pytest.raises(IntegrityError, match="should have 4270 bytes, and has 4271"):
        load_all(folder)


def test_a_missing_pack_is_named(folder):
    path = packs_of(folder, "digits")[0]
    path.unlink()

    with pytest.raises(IntegrityError, match=f"{path.name} is gone"):
        load_all(folder)


def test_two_packs_swapped_are_found(folder):
    one, other = packs_of(folder, "digits")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)

    with pytest.raises(IntegrityError, match=one.name):
        load_all(folder)


def test_packs_of_two_versions_swapped_are_found(tmp_path):
    store = Store(tmp_path / "store")
    store.save({"w": torch.ones(20)}, run="digits")
    store.save({"w": torch.zeros(20)}, run="digits")
    one, other = (packs_of(tmp_path / "store", "digits", n)[0] for n in (1, 2))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)

    # The headers are the same, so only the bytes can tell.
    for version in (1, 2):
        with pytest.raises(IntegrityError, match="tensor 'model/w' is damaged"):
            store.get(version).state("model")


def test_a_pickle_in_the_place_of_a_pack_runs_no_code(folder, tmp_path):
    marker = tmp_path / "ran"
    # What pickle writes for an object whose __reduce__ is (open, (marker, "w")).
    program = b"cbuiltins\nopen\n(V" + str(marker).encode() + b"\nVw\ntR."
    path = packs_of(folder, "digits")[0]
    size = path.stat().st_size
    path.write_bytes(program + b"\0" * (size - len(program)))

    with pytest.raises(IntegrityError, match="does not begin as it was saved"):
        load_all(folder)
    assert not marker.exists()


def test_damage_that_the_size_cannot_tell_is_found_by_the_digest(folder):
    path = packs_of(folder, "digits")[0]
    data = bytearray(path.read_bytes())
    data[4096:4100] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    before = zlib.crc32(path.read_bytes())

    with pytest.raises(IntegrityError, match=r"bytes 4096 to 4256; load another version") as caught:
        load_all(folder)
    assert caught.value.ref == "digits@1"
    assert zlib.crc32(path.read_bytes()) == before


def test_damage_of_one_part_leaves_the_others_loadable(folder):
    path = packs_of(folder, "digits")[1]
    path.write_bytes(path.read_bytes()[:-1])
    opened = open_manifest(LocalStorage(folder), "digits", 1)

    assert frozen(load_state(opened, "model")) == frozen(STATE)
    with pytest.raises(CkptStoreError, match="should have"):
        load_state(opened, "extra")
