"""Tensors out of packs: mapped or read in parallel, every byte checked before anybody uses it.

The only place in ``loading`` that starts threads: reading, hashing and copying all release the
interpreter's lock, so they run side by side.
"""

from __future__ import annotations

import functools
import mmap
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Generic, TypeVar, cast

import torch

from ckptstore.format.manifest import Head
from ckptstore.format.pack import ALIGNMENT
from ckptstore.format.part import Part, Tensor
from ckptstore.loading.copies import bringing, tell_trouble
from ckptstore.loading.pinned import BUFFER_BYTES, NOWHERE, Onto, Transfer
from ckptstore.loading.reader import Reader, Want
from ckptstore.loading.tensors import copied
from ckptstore.state.tensors import as_integers, fresh_bytes, from_bytes, from_rows
from ckptstore.storage.base import Storage

# Neighbouring small tensors are read in one request of at most this much.
BLOCK_BYTES = 8 * 1024 * 1024
# From a remote storage, where each request costs the way there and back.
REMOTE_BLOCK_BYTES = 20 * 1024 * 1024
# A gap between two wanted tensors that is cheaper to read than to ask around.
GAP_BYTES = 64 * 1024
# Requests to a remote storage that are under way at once; a local disk gets one thread a core.
# Each holds a block at most, so a fetch takes 200 MiB beside the tensors themselves.
REMOTE_THREADS = 10

T = TypeVar("T")


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
    fetched = begin(storage, head, name, part, places, map_files=map_files)
    fetched.check()
    return fetched.tensors


@dataclass(frozen=True)
class Fetched:
    """Tensors of which those mapped or sent are still being checked, in other threads.

    Attributes:
        tensors: As :func:`fetch` returns them. Nobody may believe what is in them before
            :meth:`check` has returned, nor give them away.
        checking: The work on them that is under way.
    """

    tensors: dict[int, torch.Tensor]
    checking: Work[Any]

    def check(self) -> None:
        """Wait until every byte is checked, and help with it.

        Raises:
            IntegrityError: A tensor's bytes are not those that were saved; it names the tensor.
            StorageError: The storage failed.
        """
        self.checking.finish()


def begin(
    storage: Storage,
    head: Head,
    name: str,
    part: Part,
    places: Collection[int],
    *,
    map_files: bool,
    verify: bool = True,
    onto: Onto = NOWHERE,
) -> Fetched:
    """Fetch tensors, but leave the check of those that are mapped or sent to other threads.

    What is read is read and checked when this returns. The caller must call ``check()`` in the end,
    or ``checking.stop()`` if it gives up, since threads are at work until then.

    Args:
        storage: As for :func:`fetch`.
        head: As for :func:`fetch`.
        name: As for :func:`fetch`.
        part: As for :func:`fetch`.
        places: As for :func:`fetch`.
        map_files: As for :func:`fetch`.
        verify: Whether bytes are compared with their digests. Sizes and headers of packs are either
            way.
        onto: Which tensors go onto a GPU, where they have fresh memory; nothing is mapped then.
    """
    reader = Reader(storage, head, name, part, verify=verify)
    wanted = {place: part.tensors[place] for place in sorted(places)}
    dtypes = {place: reader.dtype(place) for place in wanted}
    packs = sorted(
        {chunk.pack for tensor in wanted.values() for chunk in tensor.chunks if chunk.length}
    )
    at_once = _threads(storage)
    chunks_wanted = (chunk for tensor in wanted.values() for chunk in tensor.chunks)
    Work(*bringing(storage, head.packs, chunks_wanted), at_once).finish()
    tell_trouble(storage)
    Work(reader.check_header, [head.packs[index] for index in packs], at_once).finish()
    sent = {place for place, tensor in wanted.items() if place in onto.places and _is_one(tensor)}
    maps = {index: reader.map(head.packs[index]) for index in packs if map_files and not sent}
    mapped = {
        place: view
        for place in _first_of_overlapping(wanted)
        if (view := _mapped(wanted[place], maps)) is not None
    }
    wants = [
        Want(place, chunk, fresh_bytes(chunk.length))
        for place, tensor in wanted.items()
        if place not in mapped and place not in sent
        for chunk in tensor.chunks
    ]
    # The largest go first, so that no thread is left with one when the others are done.
    most = BLOCK_BYTES if storage.local_folder is not None else REMOTE_BLOCK_BYTES
    Work(reader.read_block, _largest_first(_blocks(wants, most)), at_once).finish()
    transfer = Transfer(onto.device) if sent and onto.device is not None else None
    going = [
        Want(place, chunk, transfer.memory(chunk.length))
        for place in sorted(sent)
        for chunk in wanted[place].chunks
        if transfer is not None
    ]
    chunks: dict[int, list[Want]] = {}
    for want in [*wants, *going]:
        chunks.setdefault(want.place, []).append(want)
    tensors = {
        place: assemble(tensor, dtypes[place], mapped.get(place), chunks.get(place, []))
        for place, tensor in wanted.items()
    }
    if transfer is not None:
        blocks = _largest_first(_blocks(going, BUFFER_BYTES))
        return Fetched(tensors, Sending(reader, transfer, blocks, at_once))
    unchecked = sorted(mapped, key=lambda place: -mapped[place].numel()) if verify else []
    total = sum(mapped[place].numel() for place in unchecked)
    cores = os.cpu_count() or 1  # what is mapped is on a disk of this machine, wherever it is from
    items = [
        (place, mapped[place], _share(mapped[place].numel(), total, cores)) for place in unchecked
    ]
    return Fetched(tensors, Work(reader.check_mapped, items, cores))


def _is_one(tensor: Tensor) -> bool:
    """Say whether a tensor's bytes are one chunk of a pack, in its own order."""
    return (
        len(tensor.chunks) == 1
        and tensor.order is None
        and bool(tensor.chunks[0].length)
        and tensor.chunks[0].shape == tensor.shape
    )


def _largest_first(blocks: Iterable[list[Want]]) -> list[list[Want]]:
    return sorted(blocks, key=lambda block: -sum(want.chunk.length for want in block))


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


def _blocks(wants: Sequence[Want], most_bytes: int) -> Iterator[list[Want]]:
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
                and end - first.start <= most_bytes
            ):
                yield block
                block = []
        block.append(want)
    if block:
        yield block


def copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies of tensors, each with memory of its own, made side by side.

    Most of a copy's time goes into touching new memory, which torch does on one thread.
    """
    made: list[Any] = [None] * len(tensors)

    def copy(place: int) -> None:
        made[place] = copied(tensors[place]).requires_grad_(tensors[place].requires_grad)

    largest_first = sorted(range(len(tensors)), key=lambda place: -tensors[place].nbytes)
    Work(copy, largest_first, os.cpu_count() or 1).finish()
    return made


def _threads(storage: Storage) -> int:
    """Return how many requests or checks are to be under way at once."""
    return REMOTE_THREADS if storage.local_folder is None else os.cpu_count() or 1


def _share(length: int, total: int, threads: int) -> int:
    """Return how many threads one of several lengths is worth: the share of all that it has."""
    return max(1, round(threads * length / total)) if total else 1


class Work(Generic[T]):
    """Something to be done with every item, begun in threads of its own.

    Args:
        do: What to do with an item.
        items: Which, in what order.
        at_once: How many at once, the thread that waits for it counted.
    """

    def __init__(self, do: Callable[[T], None], items: Sequence[T], at_once: int) -> None:
        self._do = do
        self._items = iter(enumerate(items))
        self._lock = threading.Lock()
        self._stopped = False
        self._failures: dict[int, BaseException] = {}
        self._threads = [
            threading.Thread(target=self._go_on, name="ckptstore-fetch")
            for _ in range(min(len(items), at_once) - 1)
        ]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Help until all is done; raise the first failure once the others have stopped."""
        try:
            self._go_on()
            self._join()
        except BaseException:  # an interrupt
            self.stop()
            raise
        if self._failures:
            raise self._failures[min(self._failures, key=self._urgency)]

    def stop(self) -> None:
        """Give up: what is at hand is still done, and nothing that comes after it."""
        self._stopped = True
        self._join()

    def _go_on(self) -> None:
        while not self._stopped:
            with self._lock:
                number, item = next(self._items, (-1, None))
            if number < 0:
                return
            try:
                self._do(cast("T", item))
            except BaseException as error:  # noqa: BLE001 - raised by who waits for it
                self._failures[number] = error
                self._stopped = True

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _urgency(self, number: int) -> tuple[bool, int]:
        return isinstance(self._failures[number], Exception), number


class Sending(Work[Sequence[Want]]):
    """Chunks on their way to a GPU; they are there and checked once it has finished.

    Args:
        reader: Reads and checks them.
        transfer: To the device where they are wanted.
        blocks: Which, in what order.
        at_once: How many at once, the thread that waits for them counted.
    """

    def __init__(
        self,
        reader: Reader,
        transfer: Transfer,
        blocks: Sequence[Sequence[Want]],
        at_once: int,
    ) -> None:
        self._transfer = transfer
        super().__init__(functools.partial(reader.send_block, transfer), blocks, at_once)

    def finish(self) -> None:
        """Help until all is there; raise the first failure once nothing is under way."""
        try:
            super().finish()
        finally:
            self._transfer.finish()

    def stop(self) -> None:
        """Give up, and return once nothing is under way."""
        super().stop()
        self._transfer.finish()
