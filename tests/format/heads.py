"""Manifests of every shape, for hypothesis."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from math import prod
from typing import Any

from hypothesis import strategies as st

from ckptstore.format.digest import digest
from ckptstore.format.imported import ImportedFrom
from ckptstore.format.manifest import (
    KINDS,
    PART_KINDS,
    CopiedFrom,
    File,
    Head,
    Pack,
    Parent,
    PartInfo,
)
from ckptstore.format.part import Chunk, Part, Tensor, encode_part
from ckptstore.format.tree import encode
from tests.format.trees import floats, ints, states, texts

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
times = st.integers(10**15, 10**17).map(lambda us: EPOCH + timedelta(microseconds=us))
digests = st.binary(max_size=3).map(digest)
runs = st.sampled_from(["digits", "Sweep/lr=0.1", "a" * 120])
trees = states.map(lambda state: encode(state, "x"))
packs = st.builds(
    lambda save, number, header, data, blake3: Pack(save, number, header + data, header, blake3),
    st.uuids(),
    st.integers(0, 99),
    st.integers(1, 3).map(lambda pages: pages * 4096),
    st.integers(0, 2**40),
    digests,
)
named = st.builds(Parent, runs, st.integers(1, 9), st.uuids())
copies = st.builds(CopiedFrom, st.uuids(), named, st.uuids(), times, st.none() | named)
metrics = st.dictionaries(texts, (floats | ints).map(lambda value: encode(value, "x")), max_size=3)


@st.composite
def versions(draw: st.DrawFn) -> tuple[Head, list[bytes], list[Part]]:
    """Return a head, its parts' lines, and what those say."""
    places = draw(st.lists(packs, min_size=1, max_size=3))
    parts = [draw(parts_in(places)) for _ in range(draw(st.integers(0, 2)))]
    lines = [encode_part(part) for part in parts]
    infos = [
        PartInfo(
            f"{draw(texts)}{index}",
            draw(st.sampled_from(PART_KINDS)),
            sum(tensor.size_bytes for tensor in part.tensors),
            len(line),
            digest(line),
            draw(st.none() | texts),
            draw(st.none() | trees),
        )
        for index, (part, line) in enumerate(zip(parts, lines, strict=True))
    ]
    head = Head(
        save_id=draw(st.uuids()),
        run=draw(runs),
        version=draw(st.integers(1, 2**40)),
        kind=draw(st.sampled_from(KINDS)),
        started_at=draw(times),
        created_at=draw(times),
        parent=draw(st.none() | named),
        epoch=draw(st.none() | st.integers(-5, 2**62 - 1)),
        step=draw(st.none() | st.integers(-5, 2**62 - 1)),
        metrics=draw(metrics),
        config=draw(st.none() | trees),
        package=draw(st.none() | st.just({"class_names": ["a"]})),
        environment=draw(st.dictionaries(texts, texts, max_size=2)),
        packs=tuple(places),
        files=tuple(
            draw(
                st.lists(
                    st.builds(
                        File,
                        st.uuids(),
                        st.integers(0, 9),
                        st.integers(0, 9),
                        digests,
                        st.none() | texts,
                        st.none() | texts,
                    ),
                    max_size=2,
                    unique_by=lambda file: (file.role, file.part),
                )
            )
        ),
        parts=tuple(infos),
        copied_from=draw(st.none() | copies),
        imported_from=draw(st.sampled_from([None, ImportedFrom("x.pth", "torch", 5, "0" * 64)])),
        left_out=draw(st.sampled_from([(), ("left out",)])),
    )
    return head, lines, parts


@st.composite
def parts_in(draw: st.DrawFn, named: list[Pack]) -> Part:
    """Return a part whose tensors lie in these packs, in one chunk or in several."""
    tensors = tuple(draw(tensors_in(named)) for _ in range(draw(st.integers(0, 3))))
    names = st.lists(st.none() | texts, max_size=2).map(tuple)
    parameters = draw(st.none() | st.lists(names, max_size=2).map(tuple))
    return Part(draw(trees), tensors, parameters)


@st.composite
def tensors_in(draw: st.DrawFn, named: list[Pack]) -> Tensor:
    """Return a tensor cut along any of its dimensions."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
    itemsize = draw(st.sampled_from([1, 2, 4, 8, 16]))
    order = draw(st.none() | st.permutations(range(len(shape))).map(tuple))
    boxes = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 2)) if shape else 0):
        offsets, sizes = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        dim = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, sizes[dim]))
        boxes += halves(offsets, sizes, dim, cut)
    chunks = []
    for offsets, sizes in boxes:
        length = prod(sizes) * itemsize
        room = [n for n, pack in enumerate(named) if pack.size_bytes - pack.header_bytes >= length]
        if not room:
            return Tensor("float32", 4, (0,), None, requires_grad=False, chunks=())
        place = draw(st.sampled_from(room))
        start = draw(st.integers(named[place].header_bytes, named[place].size_bytes - length))
        chunks.append(Chunk(offsets, sizes, place, start, length, draw(digests)))
    return Tensor("float32", itemsize, shape, order, draw(st.booleans()), tuple(chunks))


def halves(offsets: tuple[int, ...], sizes: tuple[int, ...], dim: int, cut: int) -> Any:
    """Cut a box in two along one dimension."""
    first = list(sizes)
    second, moved = list(sizes), list(offsets)
    first[dim], second[dim], moved[dim] = cut, sizes[dim] - cut, offsets[dim] + cut
    return (offsets, tuple(first)), (tuple(moved), tuple(second))


SAVE = uuid.UUID("01a20cb8-5e69-7452-884a-9ec81d929f23")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
