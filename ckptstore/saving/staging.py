"""Memory that copies of a state lie in: kept and already touched from the second save on.

To copy into fresh memory takes several times as long as the copy itself, as the system hands out
and clears each page at its first touch. So what a save has used is kept for the next one.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from typing import Any

import torch

from ckptstore.errors import StorageError

# What a system calls a huge page; whole ones are asked for, so that the last is huge too.
HUGE_BYTES = 2 * 1024 * 1024
# How much larger than what is needed kept memory may be; what is larger is let go. It is half of
# what a save may take beside one copy of the state.
SPARE_BYTES = 32 * 1024 * 1024
# Linux's madvise() that gives a forked child zeros instead of pages that both share, which the
# parent would have to copy one by one as it writes its next save. Python has no name for it.
WIPE_ON_FORK = 18

# CUDA's cudaHostRegisterPortable: pinned for all devices.
PORTABLE = 1


class Buffer:
    """Memory that is one save's until it is given back.

    Attributes:
        memory: uint8, one-dimensional, on the CPU, at a page's start; at least what was asked for.
        is_pinned: Whether a GPU can copy into it while the CPU goes on.
        size_bytes: How much memory it has, or had.
    """

    def __init__(self, staging: Staging, stretch: _Stretch) -> None:
        self._staging: Staging | None = staging
        self._stretch: _Stretch | None = stretch
        self._pid = os.getpid()
        self.memory = stretch.memory
        self.is_pinned = stretch.is_pinned
        self.size_bytes = stretch.size_bytes

    def give_back(self) -> None:
        """Let the next save have it, and nobody look at it any more; idempotent."""
        staging, stretch, self._staging, self._stretch = self._staging, self._stretch, None, None
        self.memory = self.memory[:0].clone()  # whoever keeps this keeps no memory
        if staging is not None and stretch is not None and self._pid == os.getpid():
            staging._take_back(stretch)  # noqa: SLF001 - the two are one


class _Stretch:
    """A stretch of memory, lent or kept; it goes with the last tensor in it."""

    def __init__(self, size_bytes: int, *, pinned: bool) -> None:
        self.size_bytes = size_bytes
        self.memory = _map(size_bytes)
        self.wants_pinning = pinned
        self.is_pinned = pinned and _pin(self.memory)

    def let_go(self) -> None:
        if self.is_pinned:
            _unpin(self.memory)


class Staging:
    """The memory that the copies of one store's saves lie in.

    It never has more than what is in flight, or was at the last save, and 32 MiB: what does not
    fit is let go before anything new is made. May be used by several threads.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._free: list[_Stretch] = []
        self._lent_bytes = 0
        self._is_closed = False
        self._pid = os.getpid()

    @property
    def held_bytes(self) -> int:
        """How much memory there is, lent or kept."""
        self._leave_to_parent()
        with self._lock:
            return self._lent_bytes + sum(stretch.size_bytes for stretch in self._free)

    def take(self, size_bytes: int, *, pinned: bool = False) -> Buffer:
        """Return memory for a copy of so many bytes.

        Args:
            size_bytes: How much is needed.
            pinned: Whether GPUs copy into it: it is pinned then, if the system lets it.

        Raises:
            StorageError: There is no such amount of memory.
        """
        self._leave_to_parent()
        with self._lock:
            fitting = [
                stretch
                for stretch in self._free
                if size_bytes <= stretch.size_bytes <= _whole(size_bytes) + SPARE_BYTES
                and (stretch.wants_pinning or not pinned)
            ]
            taken = min(fitting, key=lambda stretch: stretch.size_bytes, default=None)
            self._let_go_of_all_but(taken)
            if taken is None:
                taken = _Stretch(_whole(size_bytes), pinned=pinned)
            self._lent_bytes += taken.size_bytes
            self._is_closed = False
            return Buffer(self, taken)

    def close(self) -> None:
        """Let go of what is kept, and of what is lent as soon as it is given back."""
        self._leave_to_parent()
        with self._lock:
            self._is_closed = True
            self._let_go_of_all_but(None)

    def _leave_to_parent(self) -> None:
        """Have none of the parent's memory in a forked child, nor its lock, which may be held."""
        if self._pid != os.getpid():
            self._begin()

    def _let_go_of_all_but(self, taken: _Stretch | None) -> None:
        while self._free:
            stretch = self._free.pop()
            if stretch is not taken:
                stretch.let_go()

    def _take_back(self, stretch: _Stretch) -> None:
        with self._lock:
            self._lent_bytes -= stretch.size_bytes
            if self._is_closed:
                stretch.let_go()
            else:
                self._free.append(stretch)


def _whole(size_bytes: int) -> int:
    """Return a size in whole pages, huge ones where it is as much as one."""
    page = HUGE_BYTES if size_bytes >= HUGE_BYTES else mmap.PAGESIZE
    return max(1, -(-size_bytes // page)) * page


def _map(size_bytes: int) -> torch.Tensor:
    private: dict[str, Any] = (
        {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    )
    try:
        memory = mmap.mmap(-1, size_bytes, **private)
    except (OSError, ValueError, OverflowError) as error:
        raise StorageError(
            f"there is no memory for a copy of a state of {size_bytes} bytes: {error}; save() "
            "needs none"
        ) from error
    if sys.platform == "linux":
        for advice in (mmap.MADV_HUGEPAGE, WIPE_ON_FORK):
            with contextlib.suppress(OSError):  # a kernel without it
                memory.madvise(advice)
    with torch.inference_mode(mode=False):  # else it could be written within inference mode only
        return torch.frombuffer(memory, dtype=torch.uint8)


def _pin(memory: torch.Tensor) -> bool:
    """Pin memory, which lets a GPU copy into it while the CPU goes on; say whether that was done.

    It has not run on a GPU yet; the calls are those of torch/cuda/_pin_memory_utils.py.
    """
    cuda: Any = torch.cuda
    done = int(cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), PORTABLE))
    if done != 0:
        # CUDA keeps the failure for whoever asks next, which would be a kernel of the training.
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda")
    return done == 0


def _unpin(memory: torch.Tensor) -> None:
    cuda: Any = torch.cuda
    cuda.cudart().cudaHostUnregister(memory.data_ptr())
