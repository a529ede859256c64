"""Bytes onto a GPU: read, checked and sent at once, in a few pinned buffers.

While a buffer's bytes travel, the next is read and hashed; a stream of its own sends them, and an
event a buffer says when it may be written again. Device memory is fresh, so that bytes that turn
out to be damaged have been nobody's. Others do it alike (fastsafetensors and Run:ai's model
streamer read in threads into pinned buffers and copy from them); they compare no digests.

It has not run on a GPU yet. What is tested, with stand-ins for ``torch.cuda``'s stream and event,
is everything but that copies are non-blocking and memory is pinned.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ckptstore.errors import StorageError
from ckptstore.format.part import Part
from ckptstore.format.untree import has_made_up
from ckptstore.state.tensors import view_bytes

# A transfer takes longer than starting it by far, and all buffers are 64 MiB.
BUFFER_BYTES = 8 * 1024 * 1024
BUFFERS = 8
CPU = torch.device("cpu")


class Buffer:
    """Pinned memory on the way to a device.

    Attributes:
        memory: uint8, one-dimensional, of ``BUFFER_BYTES``.
        data: The same as bytes.
        sent: When what it held is on the device; None before it was sent.
    """

    def __init__(self) -> None:
        self.memory = pinned_bytes(BUFFER_BYTES)
        self.data = view_bytes(self.memory)
        self.sent: torch.cuda.Event | None = None


class Transfer:
    """Copies onto one device, by several threads, of which each has a buffer at a time.

    Whoever makes one must call :meth:`finish` in the end, whatever happened: device memory must
    not go to anybody else while copies into it are under way.

    Args:
        device: Where the memory is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch left it untyped
        self._free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(Buffer())

    def memory(self, length: int) -> torch.Tensor:
        """Return *length* bytes of fresh memory on the device, uint8, to be sent into.

        Copies begin when all is done that the current stream was given so far: what comes out of
        torch's cache of freed memory may be in use until then.
        """
        memory = device_bytes(length, self.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        return memory

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        """Lend the buffer that was sent longest ago, once it has arrived."""
        lent = self._free.get()
        try:
            if lent.sent is not None:
                lent.sent.synchronize()
                lent.sent = None
            yield lent
        finally:
            self._free.put(lent)

    def send(self, lent: Buffer, start: int, target: torch.Tensor) -> None:
        """Begin to copy some of a buffer to the device.

        Args:
            lent: The buffer; it is written again only once the copy is done.
            start: From which of its bytes.
            target: uint8, one-dimensional, on the device.
        """
        with torch.cuda.stream(self._stream), torch.no_grad():
            copy(target, lent.memory[start : start + target.numel()])
            lent.sent = self._stream.record_event()

    def finish(self) -> None:
        """Return once all that was sent is on the device, for every stream to see."""
        self._stream.synchronize()


def copy(target: torch.Tensor, source: torch.Tensor) -> None:
    """Begin a copy from pinned memory; the stream that is entered does it."""
    target.copy_(source, non_blocking=True)


def pinned_bytes(length: int) -> torch.Tensor:
    """Return pinned memory, which torch keeps for the next load.

    Raises:
        StorageError: The system pins no more of it.
    """
    try:
        with torch.inference_mode(mode=False):  # else other threads could not write to it
            return torch.empty(length, dtype=torch.uint8, device="cpu", pin_memory=True)
    except RuntimeError as error:
        raise StorageError(f"there is no pinned memory of {length} bytes: {error}") from error


def device_bytes(length: int, device: torch.device) -> torch.Tensor:
    """Return *length* bytes of fresh memory on a device.

    Raises:
        StorageError: There is no such amount of memory.
    """
    try:
        with torch.inference_mode(mode=False):
            return torch.empty(length, dtype=torch.uint8, device=device)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        raise StorageError(
            f"{device} has no memory for a tensor of {length} bytes: {error}"
        ) from error


@dataclass(frozen=True)
class Onto:
    """Which tensors of a part go onto a device through pinned buffers."""

    device: torch.device | None = None
    places: frozenset[int] = frozenset()


NOWHERE = Onto()


def onto(device: torch.device, part: Part) -> Onto:
    """Say which of a part's tensors go onto a device through pinned buffers.

    None do of a part in which values are made of tensors' values, as arrays are: those have no
    device. Nor do tensors that are converted.
    """
    if not takes(device) or has_made_up(part.tree):
        return NOWHERE
    places = (place for place, tensor in enumerate(part.tensors) if tensor.was is None)
    return Onto(device, frozenset(places))


def takes(device: torch.device) -> bool:
    """Say whether pinned buffers lead to a device."""
    return device.type == "cuda"


def has_room(device: torch.device, size_bytes: int) -> bool:
    """Say whether a GPU has so many bytes free, those counted that torch keeps for later."""
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return size_bytes <= free + kept
