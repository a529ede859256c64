"""Tensors out of packs: mapped or read in parallel, every byte checked before anybody uses it.

The only place in ``loading`` that starts threads: reading, hashing and copying all release the
interpreter's lock, so they run side by side.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

import torch
from blake3 import blake3

from ckptstore.errors import IntegrityError
from ckptstore.format.layout import pack_key
from ckptstore.format.manifest import Head, Pack
from ckptstore.format.pack import ALIGNMENT
from ckptstore.format.part import Chunk, Part, Tensor
from ckptstore.manifest import path_of
from ckptstore.state.tensors import (
    as_integers,
    dtype_of,
    fresh_bytes,
    from_bytes,
    from_rows,
    view_bytes,
)
from ckptstore.storage.base import Storage

# Neighbouring small tensors are read in one request of at most this much.
BLOCK_BYTES = 8 * 1024 * 1024
# A gap between two wanted tensors that is cheaper to read than to ask around.
GAP_BYTES = 64 * 1024
# Requests to a remote storage that are under way at once; a local disk gets one thread a core.
REMOTE_THREADS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Want:
    """One chunk that is wanted, and the memory it goes into."""

    place: int
    """Its tensor's place in the part."""
    chunk: Chunk
    out: torch.Tensor
    """uint8, one-dimensional, as long as the chunk."""


def fetch(
    storage: Storage, head: Head, name: str, part: Part, places: Collection[int], *, map_files: bool
) -> dict[int, torch.Tensor]:
    """Return the tensors of a part at the given places, each checked against its digest.

    Args:
        storage: Where the packs are.
        head: The version's head.
        name: The part's name, for messages.
        part: The part's line.
        places: Which of its tensors.
        map_files: Map tensors that lie at addresses kernels like instead of reading them. Kernels
            give other bits on unaligned memory, so the rest is read into fresh memory either way.

    Returns:
        Tensors on the CPU, each with a storage of its own, in their saved dtype, shape and stride
        order.

    Raises:
        IntegrityError: A tensor's bytes are not those that were saved, or a pack is gone; it names
            the tensor.
        StorageError: The storage failed.
    """
    reader = Reader(storage, head, name, part)
    wanted = {place: part.tensors[place] for place in sorted(places)}
    dtypes = {place: reader.dtype(place) for place in wanted}
    packs = sorted(
        {chunk.pack for tensor in wanted.values() for chunk in tensor.chunks if chunk.length}
    )
    _in_parallel(reader.check_header, [head.packs[index] for index in packs], storage)
    maps = {index: reader.map(head.packs[index]) for index in packs} if map_files else {}
    mapped = {
        place: view
        for place in _first_of_overlapping(wanted)
        if (view := _mapped(wanted[place], maps)) is not None
    }
    _in_parallel(
        reader.check_mapped,
        [(place, wanted[place].chunks[0], flat) for place, flat in mapped.items()],
        storage,
    )
    wants = [
        Want(place, chunk, fresh_bytes(chunk.length))
        for place, tensor in wanted.items()
        if place not in mapped
        for chunk in tensor.chunks
    ]
    _in_parallel(reader.read_block, list(_blocks(wants)), storage)
    chunks: dict[int, list[Want]] = {}
    for want in wants:
        chunks.setdefault(want.place, []).append(want)
    return {
        place: assemble(tensor, dtypes[place], mapped.get(place), chunks.get(place, []))
        for place, tensor in wanted.items()
    }


class Reader:
    """Reads one part's tensors out of a version's packs.

    Args:
        storage: Where the packs are.
        head: The version's head.
        name: The part's name, for messages.
        part: The part's line.
    """

    def __init__(self, storage: Storage, head: Head, name: str, part: Part) -> None:
        self._storage = storage
        self._head = head
        self._name = name
        self._part = part

    def tensor_name(self, place: int) -> str:
        """Return where a tensor sits, for messages."""
        return path_of(self._part.tree, place, self._name)

    def dtype(self, place: int) -> torch.dtype:
        """Return a tensor's dtype, before any memory is asked for on its account."""
        tensor = self._part.tensors[place]
        try:
            dtype = dtype_of(tensor.dtype, tensor.itemsize, "its dtype is damaged or new")
        except IntegrityError as error:
            raise IntegrityError(
                f"{self._head.ref}: tensor {self.tensor_name(place)!r}: {error}", ref=self._head.ref
            ) from error
        if tensor.requires_grad and not (dtype.is_floating_point or dtype.is_complex):
            raise IntegrityError(
                f"{self._head.ref}: tensor {self.tensor_name(place)!r} is {tensor.dtype} and "
                "should require gradients, which no such tensor can",
                ref=self._head.ref,
            )
        return dtype

    def map(self, pack: Pack) -> mmap.mmap | None:
        """Map a pack, or return None where that is not safe."""
        try:
            return self._storage.map(_key(pack))
        except FileNotFoundError as error:
            raise self._gone(pack) from error

    def check_header(self, pack: Pack) -> None:
        """Check a pack's size and header, so that damage to the file's front is noticed."""
        key = _key(pack)
        where = f"{self._storage.url}/{key}"
        try:
            size = self._storage.size_bytes(key)
            if size != pack.size_bytes:
                raise IntegrityError(
                    f"{self._head.ref}: pack {where} should have {pack.size_bytes} bytes, and "
                    f"has {size}",
                    ref=self._head.ref,
                )
            header = bytearray(pack.header_bytes)
            self._storage.read_into(key, 0, memoryview(header))
        except FileNotFoundError as error:
            raise self._gone(pack) from error
        except EOFError as error:
            raise IntegrityError(
                f"{self._head.ref}: pack {where} is cut short", ref=self._head.ref
            ) from error
        if blake3(header).hexdigest() != pack.header_digest:
            raise IntegrityError(
                f"{self._head.ref}: pack {where} does not begin as it was saved", ref=self._head.ref
            )

    def check_mapped(self, item: tuple[int, Chunk, torch.Tensor]) -> None:
        """Compare the bytes of a mapped tensor with their digest."""
        place, chunk, flat = item
        self._check(place, chunk, view_bytes(flat))

    def read_block(self, block: Sequence[Want]) -> None:
        """Read chunks that lie close together with one request, then hand each its bytes."""
        first, last = block[0].chunk, block[-1].chunk
        start = first.start
        if len(block) == 1:
            self._read(block[0].place, first, view_bytes(block[0].out))
            self._check(block[0].place, first, view_bytes(block[0].out))
            return
        buffer = memoryview(bytearray(last.start + last.length - start))
        self._read(block[0].place, first, buffer)
        for want in block:
            piece = buffer[want.chunk.start - start : want.chunk.start - start + want.chunk.length]
            self._check(want.place, want.chunk, piece)
            if piece.nbytes:
                view_bytes(want.out)[:] = piece

    def read_chunk(self, place: int, chunk: Chunk) -> torch.Tensor:
        """Return a chunk's bytes, compared with their digest.

        Raises:
            IntegrityError: They are not those that were saved.
        """
        out = fresh_bytes(chunk.length)
        self._read(place, chunk, view_bytes(out))
        self._check(place, chunk, view_bytes(out))
        return out

    def read_stretch(self, place: int, chunk: Chunk, start: int, length: int) -> torch.Tensor:
        """Return some of a chunk's bytes, which nothing is known of to compare them with.

        Args:
            place: The tensor's place in the part.
            chunk: One of its chunks.
            start: From the chunk's first byte.
            length: How many bytes.

        Raises:
            IntegrityError: The pack ends before them.
        """
        out = fresh_bytes(length)
        stretch = replace(chunk, start=chunk.start + start, length=length)
        self._read(place, stretch, view_bytes(out))
        return out

    def _read(self, place: int, chunk: Chunk, out: memoryview) -> None:
        key = _key(self._head.packs[chunk.pack])
        if not out.nbytes:
            return
        try:
            self._storage.read_into(key, chunk.start, out)
        except (EOFError, FileNotFoundError) as error:
            raise self._damaged(place, chunk, "is gone or cut short") from error

    def _check(self, place: int, chunk: Chunk, data: memoryview) -> None:
        if blake3(data).hexdigest() != chunk.digest:
            raise self._damaged(place, chunk, "does not hold the bytes that were saved")

    def _gone(self, pack: Pack) -> IntegrityError:
        return IntegrityError(
            f"{self._head.ref}: pack {self._storage.url}/{_key(pack)} is gone; load another "
            "version",
            ref=self._head.ref,
        )

    def _damaged(self, place: int, chunk: Chunk, what: str) -> IntegrityError:
        key = _key(self._head.packs[chunk.pack])
        return IntegrityError(
            f"{self._head.ref}: tensor {self.tensor_name(place)!r} is damaged: "
            f"{self._storage.url}/{key} "
            f"{what}, bytes {chunk.start} to {chunk.start + chunk.length}; load another version",
            ref=self._head.ref,
        )


def _first_of_overlapping(wanted: Mapping[int, Tensor]) -> list[int]:
    """Return the places of tensors whose bytes no other of them has been given.

    Reuse may name one stretch of a pack for two tensors that are equal and not tied: mapped twice,
    writing to one would change the other.
    """
    stretches = sorted(
        (tensor.chunks[0].pack, tensor.chunks[0].start, tensor.chunks[0].length, place)
        for place, tensor in wanted.items()
        if len(tensor.chunks) == 1 and tensor.chunks[0].length
    )
    first: list[int] = []
    last_pack, end = -1, 0
    for pack, start, length, place in stretches:
        if pack != last_pack or start >= end:
            first.append(place)
            last_pack, end = pack, start + length
    return first


def _mapped(tensor: Tensor, maps: dict[int, mmap.mmap | None]) -> torch.Tensor | None:
    """Return a tensor's bytes where they lie in a mapped pack, None where they must be read."""
    if len(tensor.chunks) != 1 or tensor.order is not None:
        return None
    chunk = tensor.chunks[0]
    source = maps.get(chunk.pack)
    if (
        source is None
        or chunk.length == 0
        or chunk.start % ALIGNMENT
        or chunk.shape != tensor.shape
    ):
        return None
    # Each call makes a storage of its own that keeps the map alive.
    return torch.frombuffer(source, dtype=torch.uint8, count=chunk.length, offset=chunk.start)


def assemble(
    tensor: Tensor, dtype: torch.dtype, mapped: torch.Tensor | None, chunks: Sequence[Want]
) -> torch.Tensor:
    """Return a tensor of its bytes.

    Args:
        tensor: As the part's line describes it.
        dtype: Its dtype.
        mapped: Its bytes where they are mapped, else None.
        chunks: Its chunks, once they are read.
    """
    if mapped is not None:
        whole = from_bytes(mapped, dtype, tensor.shape, None)
    elif len(chunks) == 1 and chunks[0].chunk.shape == tensor.shape:
        whole = from_bytes(chunks[0].out, dtype, tensor.shape, tensor.order)
    else:
        whole = from_bytes(
            fresh_bytes(prod(tensor.shape) * tensor.itemsize), dtype, tensor.shape, None
        )
        for want in chunks:
            box = tuple(
                slice(offset, offset + size)
                for offset, size in zip(want.chunk.offsets, want.chunk.shape, strict=True)
            )
            piece = from_bytes(want.out, dtype, want.chunk.shape, None)
            # torch has no copy of integers below a byte.
            as_integers(whole)[box] = as_integers(piece)
        whole = from_rows(whole, tensor.order)
    return whole.requires_grad_(tensor.requires_grad)


def _blocks(wants: Sequence[Want]) -> Iterator[list[Want]]:
    """Gather chunks that lie close together in one pack into blocks to be read at once."""
    block: list[Want] = []
    for want in sorted(
        wants, key=lambda want: (want.chunk.pack, want.chunk.start, want.chunk.length)
    ):
        if block:
            first, last = block[0].chunk, block[-1].chunk
            end = want.chunk.start + want.chunk.length
            if not (
                want.chunk.pack == last.pack
                and 0 <= want.chunk.start - (last.start + last.length) <= GAP_BYTES
                and end - first.start <= BLOCK_BYTES
            ):
                yield block
                block = []
        block.append(want)
    if block:
        yield block


def _in_parallel(work: Callable[[T], None], items: Sequence[T], storage: Storage) -> None:
    """Do *work* on every item; the first failure is raised once the others have stopped."""
    threads = min(
        len(items), REMOTE_THREADS if storage.local_folder is None else os.cpu_count() or 1
    )
    if threads <= 1:
        for item in items:
            work(item)
        return
    stop = threading.Event()

    def guarded(item: T) -> None:
        if stop.is_set():
            return
        try:
            work(item)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(threads, thread_name_prefix="ckptstore-fetch") as pool:
        futures = [pool.submit(guarded, item) for item in items]
        for future in futures:
            future.result()


def _key(pack: Pack) -> str:
    return pack_key(pack.save_id, pack.number)
