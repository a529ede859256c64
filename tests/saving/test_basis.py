"""Where the bytes of a version's tensors lie."""

from __future__ import annotations

from uuid import UUID

from ckptstore.format.manifest import Pack, Parent
from ckptstore.format.part import Chunk, Part, Tensor
from ckptstore.saving.basis import Place, basis_of

VERSION = Parent("digits", 1, UUID(int=1))
PACKS = [Pack(UUID(int=number), 0, 10_000, 4096, "0" * 64) for number in (1, 2)]


def tensor(*chunks):
    return Tensor("float32", 4, (8,), None, requires_grad=False, chunks=chunks)


def chunk(pack, start, length, digest):
    return Chunk((0,), (length // 4,), pack, start, length, digest)


def test_each_chunk_has_its_place_by_its_digest():
    parts = [
        Part(None, (tensor(chunk(0, 4096, 16, "a"), chunk(1, 4096, 16, "b")),)),
        Part(None, (tensor(chunk(1, 5000, 32, "c")),)),
    ]

    basis = basis_of(VERSION, PACKS, parts)

    assert basis.places == {
        "a": Place(PACKS[0], 4096, 16),
        "b": Place(PACKS[1], 4096, 16),
        "c": Place(PACKS[1], 5000, 32),
    }
    assert basis.lengths == {16, 32}


def test_what_has_no_bytes_has_no_place():
    assert not basis_of(VERSION, PACKS, [Part(None, (tensor(chunk(0, 4096, 0, "e")),))]).places
