"""A storage that writes no pack until a test lets it, and tells when it was asked to."""

from __future__ import annotations

import threading
from typing import Any, Self

from ckptstore import Store

PATIENCE_S = 60.0


class Held:
    """Holds back the writes of packs of one store. As a context, it lets them go at the end.

    Args:
        store: The store.
        fault: What each write raises once it is let go, None for nothing.
    """

    def __init__(self, store: Store, fault: BaseException | None = None) -> None:
        self.reached = threading.Event()
        self.keys: list[str] = []
        self.fault = fault
        self._free = threading.Event()
        self._open_writer = store._storage.open_writer
        store._storage.open_writer = self._held  # type: ignore[method-assign] # for this test

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Let everything be written from now on."""
        self._free.set()

    def wait(self) -> None:
        """Wait until a save is about to write."""
        assert self.reached.wait(PATIENCE_S)

    def _held(self, key: str) -> Any:
        self.keys.append(key)
        self.reached.set()
        assert self._free.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return self._open_writer(key)
