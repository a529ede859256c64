"""What of a copy is still to be done, by whichever thread comes to it first.

The worker copies it piece by piece, as training has the cores. Whoever can't wait for that (an
optimizer that is about to step, ``wait_copied()``) copies what is left with all cores beside it. So
nobody ever waits for a worker that is busy with something else.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# How much is copied at a time: a few milliseconds, which is what an optimizer may have to wait for.
PIECE_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Pair:
    """A tensor on the CPU, dense in memory, and where it is copied to: as long, laid out alike."""

    source: torch.Tensor
    copy: torch.Tensor


@dataclass(slots=True)
class _Piece:
    pair: Pair
    start: int
    length: int


class Rest:
    """Copies that may be done later, each piece by one thread.

    Attributes:
        copied_s: How long copying took so far, seconds of all threads together.
    """

    def __init__(self, pairs: Sequence[Pair], check: Callable[[], Exception | None]) -> None:
        """Copy nothing yet.

        Args:
            pairs: What to copy. The sources are held until that is done, or given up.
            check: Called once, when all is copied: what is wrong with the copies, if anything.
        """
        self._pieces = deque(
            _Piece(pair, start, min(PIECE_BYTES, pair.source.nbytes - start))
            for pair in pairs
            for start in range(0, pair.source.nbytes, PIECE_BYTES)
        )
        self._check: Callable[[], Exception | None] | None = check
        self._turn = threading.Condition()
        # By thread: a piece is noted here before it is taken from the others, so that it is never
        # in neither place. It may be in both for a moment; to copy it twice does no harm.
        self._held: dict[int, _Piece] = {}
        self._failure: BaseException | None = None
        self._is_done = False
        self._pid = os.getpid()
        self.copied_s = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all is copied, or nothing more will be, as in a forked child."""
        return self._is_done or self.is_elsewhere

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is the parent's of this process, as may be whoever has the lock or a piece."""
        return self._pid != os.getpid()

    @property
    def failure(self) -> BaseException | None:
        """What went wrong, once it is done."""
        return self._failure

    def finish(self, *, hurried: bool) -> None:
        """Return when all is copied. It doesn't raise what copying raised: see :attr:`failure`.

        Args:
            hurried: Whether the calling thread takes all cores that torch may use.
        """
        copy = _copy_with_all_cores if hurried else _copy_alone
        while not self.is_done:
            self._copy_one(copy)

    def give_up(self) -> None:
        """Copy nothing more; return when nobody is copying any more. Nothing if it is done."""
        if self.is_done:
            return
        with self._turn:
            if not self._is_done:
                self._pieces.clear()
                self._check = None
                self._turn.wait_for(lambda: not self._held or self._is_done)
                self._settle()

    def _copy_one(self, copy: Callable[[_Piece], None]) -> None:
        me, is_copied = threading.get_ident(), False
        begun = time.perf_counter()
        try:
            with self._turn:
                self._turn.wait_for(lambda: self._pieces or not self._held or self._is_done)
                if not self._pieces:
                    self._settle()
                    return
                piece = self._held[me] = self._pieces[0]
                self._pieces.popleft()
            begun = time.perf_counter()
            copy(piece)
            is_copied = True
        except Exception as error:  # noqa: BLE001 - whoever asks for the copy gets it
            self._fail(error)
            is_copied = True
        finally:
            with self._turn:
                held = self._held.pop(me, None)
                if held is not None:
                    self.copied_s += time.perf_counter() - begun
                    if not is_copied:  # interrupted: it is copied again
                        self._pieces.appendleft(held)
                self._turn.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._turn:
            self._failure = self._failure or error
            self._pieces.clear()

    def _settle(self) -> None:
        """Note that it is done, with the lock held."""
        if not self._is_done:
            if self._failure is None and self._check is not None:
                self._failure = self._check()
            self._check = None
            self._is_done = True
        self._turn.notify_all()


def _copy_alone(piece: _Piece) -> None:
    """Copy in this thread alone, other Python threads running."""
    ctypes.memmove(
        piece.pair.copy.data_ptr() + piece.start,
        piece.pair.source.data_ptr() + piece.start,
        piece.length,
    )


def _copy_with_all_cores(piece: _Piece) -> None:
    end = piece.start + piece.length
    with torch.no_grad():
        source, copy = _as_bytes(piece.pair.source), _as_bytes(piece.pair.copy)
        copy[piece.start : end].copy_(source[piece.start : end])


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the memory of a dense tensor, in the order in which it lies there."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
