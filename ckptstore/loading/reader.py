"""One part's bytes out of packs: each pack looked at once, each chunk compared with its digest."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from blake3 import blake3

from ckptstore.errors import IntegrityError
from ckptstore.format.layout import pack_key
from ckptstore.format.manifest import Head, Pack
from ckptstore.format.part import Chunk, Part
from ckptstore.loading.copies import past_copy
from ckptstore.loading.pinned import BUFFER_BYTES, Transfer
from ckptstore.manifest import path_of
from ckptstore.state.tensors import dtype_of, fresh_bytes, view_bytes
from ckptstore.storage.base import Storage

# Of a local file: small enough that what was read is still in the cache when it is hashed.
PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Want:
    """One chunk that is wanted, and the memory it goes into."""

    place: int
    """Its tensor's place in the part."""
    chunk: Chunk
    out: torch.Tensor
    """uint8, one-dimensional, as long as the chunk."""


class Reader:
    """Reads one part's tensors out of a version's packs.

    Args:
        storage: Where the packs are.
        head: The version's head.
        name: The part's name, for messages.
        part: The part's line.
        verify: Whether bytes are compared with their digests.
    """

    def __init__(
        self, storage: Storage, head: Head, name: str, part: Part, *, verify: bool = True
    ) -> None:
        self._verify = verify
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
        try:
            self._check_header(self._storage, pack)
        except IntegrityError:
            origin = past_copy(self._storage, _key(pack))
            if origin is None:
                raise
            self._check_header(origin, pack)

    def _check_header(self, storage: Storage, pack: Pack) -> None:
        key = _key(pack)
        where = f"{self._storage.url}/{key}"
        try:
            size = storage.size_bytes(key)
            if size != pack.size_bytes:
                raise IntegrityError(
                    f"{self._head.ref}: pack {where} should have {pack.size_bytes} bytes, and "
                    f"has {size}",
                    ref=self._head.ref,
                )
            header = bytearray(pack.header_bytes)
            storage.read_into(key, 0, memoryview(header))
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

    def check_mapped(self, item: tuple[int, torch.Tensor, int]) -> None:
        """Compare the bytes of a mapped tensor with their digest.

        Args:
            item: Its place in the part, its bytes, and how many threads to hash them with.
        """
        place, flat, threads = item
        self._check(place, self._chunk(place), view_bytes(flat), threads)

    def read_block(self, block: Sequence[Want]) -> None:
        """Read chunks that lie close together with one request, then hand each its bytes."""
        first, last = block[0].chunk, block[-1].chunk
        start = first.start
        if len(block) == 1:
            self._read_checked(block[0].place, first, view_bytes(block[0].out))
            return
        buffer = memoryview(bytearray(last.start + last.length - start))
        self._read(block[0].place, first, buffer)
        for want in block:
            piece = buffer[want.chunk.start - start : want.chunk.start - start + want.chunk.length]
            self._check(want.place, want.chunk, piece)
            if piece.nbytes:
                view_bytes(want.out)[:] = piece

    def send_block(self, transfer: Transfer, block: Sequence[Want]) -> None:
        """Read chunks as :meth:`read_block` does, but send them to a device through its buffers.

        Args:
            transfer: To the device where they are wanted.
            block: Several that fit into one buffer together, or one of any length.
        """
        first, last = block[0].chunk, block[-1].chunk
        if len(block) == 1:
            self._send_chunk(transfer, block[0])
            return
        with transfer.buffer() as lent:
            data = lent.data[: last.start + last.length - first.start]
            self._read(block[0].place, first, data)
            for want in block:
                start = want.chunk.start - first.start
                self._check(want.place, want.chunk, data[start:][: want.chunk.length])
                transfer.send(lent, start, want.out)

    def _send_chunk(self, transfer: Transfer, want: Want) -> None:
        hasher = blake3()
        for start in range(0, want.chunk.length, BUFFER_BYTES):
            with transfer.buffer() as lent:
                data = lent.data[: want.chunk.length - start]
                self._read_pieces(want.place, want.chunk, start, data, hasher)
                transfer.send(lent, 0, want.out[start : start + data.nbytes])
        if not self._verify or hasher.hexdigest() == want.chunk.digest:
            return
        # What a copy has wrong is put right on the way, as it is on the host.
        whole = view_bytes(self.read_chunk(want.place, want.chunk))
        for start in range(0, whole.nbytes, BUFFER_BYTES):
            with transfer.buffer() as lent:
                piece = whole[start : start + BUFFER_BYTES]
                lent.data[: piece.nbytes] = piece
                transfer.send(lent, 0, want.out[start : start + piece.nbytes])

    def read_chunk(self, place: int, chunk: Chunk) -> torch.Tensor:
        """Return a chunk's bytes, compared with their digest.

        Raises:
            IntegrityError: They are not those that were saved.
        """
        out = fresh_bytes(chunk.length)
        self._read_checked(place, chunk, view_bytes(out))
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

    def _chunk(self, place: int) -> Chunk:
        """Return the only chunk of a tensor that is mapped."""
        (chunk,) = self._part.tensors[place].chunks
        return chunk

    def _read_checked(self, place: int, chunk: Chunk, out: memoryview) -> None:
        """Read a chunk and compare it with its digest."""
        hasher = blake3()
        self._read_pieces(place, chunk, 0, out, hasher)
        self._compare(place, chunk, out, hasher.hexdigest())

    def _read_pieces(
        self, place: int, chunk: Chunk, first: int, out: memoryview, hasher: blake3
    ) -> None:
        """Read a chunk from a byte of it on, and hash what was read.

        From a local disk it is read in pieces, each hashed while the processor still has it at
        hand; elsewhere each piece would be a request.
        """
        is_local = self._storage.local_folder is not None
        step = PIECE_BYTES if is_local and self._verify else max(1, out.nbytes)
        for start in range(0, out.nbytes, step):
            piece = out[start : start + step]
            stretch = replace(chunk, start=chunk.start + first + start, length=piece.nbytes)
            self._read(place, stretch, piece)
            if self._verify:
                hasher.update(piece)

    def _read(self, place: int, chunk: Chunk, out: memoryview) -> None:
        key = _key(self._head.packs[chunk.pack])
        if not out.nbytes:
            return
        try:
            self._storage.read_into(key, chunk.start, out)
        except (EOFError, FileNotFoundError) as error:
            raise self._damaged(place, chunk, "is gone or cut short") from error

    def _check(self, place: int, chunk: Chunk, data: memoryview, threads: int = 1) -> None:
        if self._verify:
            self._compare(place, chunk, data, blake3(data, max_threads=threads).hexdigest())

    def _compare(self, place: int, chunk: Chunk, data: memoryview, found: str) -> None:
        if not self._verify or found == chunk.digest:
            return
        # The memory is ours, mapped or not: what a copy has wrong is put right where it lies.
        key = _key(self._head.packs[chunk.pack])
        origin = past_copy(self._storage, key)
        if origin is not None:
            try:
                origin.read_into(key, chunk.start, data)
            except (EOFError, FileNotFoundError) as error:
                raise self._damaged(place, chunk, "is gone or cut short") from error
        if origin is None or blake3(data).hexdigest() != chunk.digest:
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


def _key(pack: Pack) -> str:
    return pack_key(pack.save_id, pack.number)
