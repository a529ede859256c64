"""Bytes of a version out of one store into another: what is read, written, shared and refused."""

from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import IntegrityError
from ckptstore.format.manifest import Pack, parent_of
from ckptstore.format.pack import Slot
from ckptstore.manifest import open_manifest
from ckptstore.saving.basis import basis_of
from ckptstore.saving.reuse import LEAST_SHARE, Known
from ckptstore.storage.local import LocalStorage
from ckptstore.upkeep import carrying
from ckptstore.upkeep.carrying import PIECE_BYTES, Stretch, Want, carry
from tests.faults import Failing

SAVE = UUID(int=7)
PACK = Pack(UUID(int=1), 0, 2**40, 4096, "0" * 64)


@pytest.fixture
def here(tmp_path):
    return Store(tmp_path / "here")


@pytest.fixture
def target(tmp_path):
    return Failing(LocalStorage(tmp_path / "there"))


def opened(store, state, **options):
    version = store.save(state, run="r", rng=False, **options)
    return open_manifest(store._storage, "r", version.version)


def want(start, length, name="w"):
    stretch = Stretch(0, start, length, "0" * 64)
    slot = Slot(name, "uint8", (length,), 1, length)
    return Want(stretch, PACK, "model", f"model/{name}", slot, Known(length))


def test_small_neighbours_are_read_at_once_and_large_ones_alone(here, target):
    state = {f"w{n:03}": torch.full((64,), n, dtype=torch.uint8) for n in range(100)}
    state["large"] = torch.zeros(PIECE_BYTES + 5, dtype=torch.uint8)
    source = Failing(opened(here, state).storage)

    carry(open_manifest(source, "r", 1), target, SAVE)

    reads = [operation for operation, _ in source.done if operation == "read_into"]
    # The header, the small ones, and the large one in two pieces.
    assert len(reads) == 4


def test_pieces_never_exceed_their_size_and_leave_out_wide_gaps():
    size, gap = 1024, carrying.GAP_BYTES
    close = [want(4096 + n * size, size) for n in range(2 * PIECE_BYTES // size)]
    pieces = list(carrying._pieces(close))
    assert [len(piece) for piece in pieces] == [PIECE_BYTES // size] * 2
    near, far = want(size, size), want(2 * size + gap, size)
    assert len(list(carrying._pieces([near, far]))) == 1
    assert len(list(carrying._pieces([near, want(2 * size + gap + 1, size)]))) == 2
    assert len(list(carrying._pieces([far, near]))) == 2, "no piece goes backwards"
    assert list(carrying._pieces([want(4096, 0)])) == []


def test_gaps_are_read_and_not_written(here, target):
    state = {f"w{n}": torch.full((1000,), float(n)) for n in range(8)}
    version = opened(here, state)
    (part,) = [version.part("model")]
    kept = part.tensors[::2]
    bare = type(part)(part.tree, tuple(t for t in kept for _ in (0, 1)), part.parameters)
    moved = type(version)(version.storage, version.key, version.head, version.head_length, b"")
    object.__setattr__(moved, "part", lambda _: bare)

    carried = carry(moved, target, SAVE)

    (pack,) = carried.packs
    assert pack.size_bytes - pack.header_bytes == 4 * 4000
    first = carried.parts[0].tensors
    assert first[0].chunks == first[1].chunks, "what lay at one place lies at one place"
    starts = sorted({tensor.chunks[0].start for tensor in first})
    assert all(after - before == 4000 for before, after in pairwise(starts))


def test_what_the_other_store_has_is_named_and_not_written(here, target):
    frozen = torch.arange(50_000.0)
    first = opened(here, {"frozen": frozen, "head": torch.zeros(9000)})
    second = opened(here, {"frozen": frozen, "head": torch.ones(9000)})
    carried = carry(first, target, SAVE)
    basis = basis_of(parent_of(first.head), carried.packs, carried.parts)

    again = carry(second, target, UUID(int=8), [basis])

    assert again.shared_bytes == frozen.nbytes
    assert {pack.save_id for pack in again.packs} == {SAVE, UUID(int=8)}
    assert again.written_bytes == next(p.size_bytes for p in again.packs if p.save_id != SAVE)


def test_a_pack_of_which_too_little_is_used_is_not_shared(here, target):
    small = torch.arange(1000.0)
    first = opened(here, {"small": small, "rest": torch.rand(int(1100 / LEAST_SHARE))})
    second = opened(here, {"small": small, "other": torch.rand(100)})
    carried = carry(first, target, SAVE)
    basis = basis_of(parent_of(first.head), carried.packs, carried.parts)

    again = carry(second, target, UUID(int=8), [basis])

    assert again.shared_bytes == 0
    assert {pack.save_id for pack in again.packs} == {UUID(int=8)}


def test_a_pack_that_is_not_whole_there_is_not_shared(here, target, tmp_path):
    version = opened(here, {"w": torch.arange(1000.0)})
    carried = carry(version, target, SAVE)
    basis = basis_of(parent_of(version.head), carried.packs, carried.parts)
    (path,) = (tmp_path / "there").rglob("*.safetensors")
    path.unlink()

    assert carry(version, target, UUID(int=8), [basis]).shared_bytes == 0


def test_empty_tensors_lie_in_a_pack_that_is_there(here, target):
    version = opened(here, {"w": torch.arange(1000.0), "e": torch.empty(0), "f": torch.empty(3, 0)})
    carried = carry(version, target, SAVE)
    basis = basis_of(parent_of(version.head), carried.packs, carried.parts)
    again = carry(version, target, UUID(int=8), [basis])
    assert again.written_bytes == 0

    alone = opened(here, {"e": torch.empty(0)})
    assert len(carry(alone, target, UUID(int=9)).packs) == 1


def test_a_part_is_split_over_packs(here, target):
    version = opened(here, {f"w{n}": torch.full((1000,), float(n)) for n in range(4)})
    carried = carry(version, target, SAVE, max_pack_bytes=8000)
    assert [pack.size_bytes - pack.header_bytes for pack in carried.packs] == [8000, 8000]


def test_no_two_tensors_of_a_pack_have_one_name():
    slots = [want(0, 1, name).slot for name in ("0", "0", "0/1", "0", "__metadata__")]
    names = [slot.name for slot in carrying._named_apart(slots)]
    assert names[0] == "0"
    assert len(set(names)) == len(slots)
    assert "__metadata__" not in names
    assert [slot.length for slot in carrying._named_apart(slots)] == [1] * 5


def test_a_header_that_nobody_could_read_is_refused(here, target, monkeypatch):
    version = opened(here, {"w": torch.ones(3)})
    monkeypatch.setattr(carrying, "MAX_HEADER_BYTES", 4095)
    with pytest.raises(IntegrityError, match="at most 4095 can be read"):
        carry(version, target, SAVE)


def test_a_line_that_nobody_could_read_is_refused(here, target, monkeypatch):
    version = opened(here, {"w": torch.ones(3)})
    monkeypatch.setattr(carrying, "MAX_LINE_BYTES", 10)
    with pytest.raises(IntegrityError, match="the line of part 'model' would take"):
        carry(version, target, SAVE)


@pytest.mark.parametrize("size", [1000, PIECE_BYTES])
def test_bytes_that_do_not_match_leave_nothing_behind(here, target, size, tmp_path):
    version = opened(here, {"w": torch.rand(size), "v": torch.rand(size)})
    (path,) = (tmp_path / "here").rglob("*.safetensors")
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"tensor 'model/w': .* does not hold the bytes"):
        carry(version, target, SAVE)
    assert list((tmp_path / "there").rglob("*.safetensors")) == []
    assert list(target.leftovers()) == []
