"""Work that stops before each request to the storage, until a test lets it go on.

So a test decides what happens in between: hours, a week, somebody else's save or collection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

REQUESTS = frozenset(
    {"read", "read_start", "read_many", "size_bytes", "list_folder", "walk", "written_at"}
    | {"leftovers", "delete", "clear", "create"}
)


class Actor:
    """Somebody at work on a store, one request at a time.

    Args:
        storage: The storage that the work gets, with a stop before each request.
        work: What is done.
    """

    def __init__(self, storage: Any, work: Callable[[Any], object]) -> None:
        self.is_done = False
        self.is_hurried = False
        """Whether it stops no more: what it does next is one step for everybody else."""
        self.error: BaseException | None = None
        self.result: object = None
        self.next: tuple[str, str] | None = None
        """The request before which it stopped."""
        self._may_go = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        # A test that fails lets it stand where it is; that must not keep Python from ending.
        self._thread = threading.Thread(
            target=self._run, args=(Stopping(storage, self), work), daemon=True
        )
        self._thread.start()

    def step(self) -> None:
        """Let it do one request, and all it does up to the next."""
        if not self.is_done:
            self._may_go.release()
            self._has_stopped.acquire()
        if self.is_done:
            self._thread.join()

    def step_to(self, request: str, start: str = "") -> None:
        """Let it go on until it is about to make a request of that name and key."""
        while not self.is_done and not (
            self.next and self.next[0] == request and self.next[1].startswith(start)
        ):
            self.step()
        assert not self.is_done, f"it never came to {request} {start}: {self.error!r}"

    def finish(self) -> None:
        """Let it do the rest."""
        while not self.is_done:
            self.step()

    def hurry(self) -> None:
        """Do the rest as one step."""
        self.is_hurried = True

    def stop(self, request: str, key: str) -> None:
        """Wait for the test, in the actor's own thread."""
        if not self.is_hurried:
            self.next = (request, key)
            self._has_stopped.release()
            self._may_go.acquire()

    def _run(self, storage: Stopping, work: Callable[[Any], object]) -> None:
        self._may_go.acquire()
        try:
            self.result = work(storage)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        finally:
            self.is_done = True
            self._has_stopped.release()


class Stopping:
    """A storage that lets its actor stop before each request."""

    def __init__(self, storage: Any, actor: Actor) -> None:
        self.inner = storage
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in REQUESTS:
            return found

        def request(*args: Any, **kwargs: Any) -> Any:
            first = args[0] if args else ""
            key = first if isinstance(first, str) else (list(first) or [""])[0]
            self.actor.stop(name, str(key))
            return found(*args, **kwargs)

        return request
