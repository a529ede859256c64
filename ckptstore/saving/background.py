"""Work done beside the caller; the only place in ``saving`` that starts a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Self

from blake3 import blake3

# Below this hashing costs less than handing it to another thread does.
WORTH_A_THREAD_BYTES = 256 * 1024
# How far hashing may run ahead of writing. It holds no memory: the pieces are the tensors' own.
MAX_AHEAD = 8


class Hasher:
    """Hashes pieces of memory in a second thread while the caller writes them.

    BLAKE3 releases the interpreter's lock, so on two cores hashing costs a save no time as long as
    it is faster than the disk.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

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
        if view.nbytes < WORTH_A_THREAD_BYTES:
            state.update(view)
            return None
        return self._threads().submit(_update, state, view)

    def _start(self, view: memoryview) -> Future[str] | str:
        if view.nbytes < WORTH_A_THREAD_BYTES:
            return blake3(view).hexdigest()
        return self._threads().submit(lambda: blake3(view).hexdigest())

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ckptstore-hash")
        return self._pool


def _update(state: blake3, view: memoryview) -> None:
    state.update(view)
