"""Work done beside the caller; the only place in ``saving`` that starts a thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Self

from blake3 import blake3

from ckptstore.saving.effort import Meter

# Below this hashing costs less than handing it to another thread does.
WORTH_A_THREAD_BYTES = 256 * 1024
# How far hashing may run ahead of writing. It holds no memory: the pieces are the tensors' own.
MAX_AHEAD = 8


class Hasher:
    """Hashes pieces of memory in a second thread while the caller writes them.

    BLAKE3 releases the interpreter's lock, so on two cores hashing costs a save no time as long as
    it is faster than the disk.

    Args:
        beside: Whether there is a second thread; else the caller's hashes what it will write next.
        meter: Is told what was hashed.
    """

    def __init__(self, *, beside: bool = True, meter: Meter | None = None) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._beside = beside
        self._meter = meter or Meter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def digests_ahead(self, views: Sequence[memoryview]) -> Iterator[str]:
        """Return the BLAKE3 of each view in order; hashing the first begins at once."""
        if not self._beside:
            return map(self._digest, views)
        upcoming = iter(views)
        pending = deque(self._start(view) for view in islice(upcoming, MAX_AHEAD))
        return self._drain(pending, upcoming)

    def _drain(
        self, pending: deque[Future[str] | str], upcoming: Iterator[memoryview]
    ) -> Iterator[str]:
        while pending:
            digest = pending.popleft()
            pending.extend(self._start(view) for view in islice(upcoming, 1))
            yield digest if isinstance(digest, str) else digest.result()

    def beside(self, state: blake3, view: memoryview) -> Future[None] | None:
        """Add *view* to a running digest in the second thread; None where it was done at once."""
        if not self._beside or view.nbytes < WORTH_A_THREAD_BYTES:
            self._update(state, view)
            return None
        return self._threads().submit(self._update, state, view)

    def _start(self, view: memoryview) -> Future[str] | str:
        if view.nbytes < WORTH_A_THREAD_BYTES:
            return self._digest(view)
        return self._threads().submit(self._digest, view)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ckptstore-hash")
        return self._pool

    def _digest(self, view: memoryview) -> str:
        state = blake3()
        self._update(state, view)
        return state.hexdigest()

    def _update(self, state: blake3, view: memoryview) -> None:
        begun = time.perf_counter()
        state.update(view)
        self._meter.add(view.nbytes, time.perf_counter() - begun)
