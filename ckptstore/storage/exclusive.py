"""How each fsspec filesystem that can creates an object only where there is none.

fsspec's own ``mode="create"`` says nothing: its base class looks first and writes then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

_lock = threading.RLock()
"""Threads share the files of ``memory://``, positions included."""


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - a fork copies a lock that another thread may hold
    _lock = threading.RLock()


def memory_turn() -> AbstractContextManager[object]:
    """Return the lock to hold while using ``memory://``."""
    return _lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _create_in_memory(filesystem: Any, path: str, data: bytes) -> None:
    """Create an object of ``memory://``; exclusive in the turn of the caller."""
    if filesystem.exists(path):
        raise FileExistsError(path)
    filesystem.pipe_file(path, data)


def _create_on_google(filesystem: Any, path: str, data: bytes) -> None:
    """Create with ``ifGenerationMatch=0``, which is what gcsfs makes of this mode."""
    filesystem.pipe_file(path, data, mode="create")


def _create_on_azure(filesystem: Any, path: str, data: bytes) -> None:
    """Create with ``If-None-Match: *``, which Azure's client makes of ``overwrite=False``."""
    filesystem.pipe_file(path, data, overwrite=False)


CREATORS: dict[str, Callable[[Any, str, bytes], None]] = {
    "memory": _create_in_memory,
    "gs": _create_on_google,
    "gcs": _create_on_google,
    "abfs": _create_on_azure,
    "abfss": _create_on_azure,
    "az": _create_on_azure,
}
