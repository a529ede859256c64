"""Stand between ckptstore and the operating system: see, and fail, each call about some files."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from unittest import mock

BY_PATH = ("open", "unlink", "mkdir", "rmdir", "stat", "lstat", "scandir", "listdir", "utime")
BY_TWO_PATHS = ("link", "rename", "replace")
BY_FD = ("write", "preadv", "pwrite", "fstat", "fsync", "fdatasync", "ftruncate", "close")


class Call(NamedTuple):
    """One call to the operating system about a file or folder below the root."""

    name: str
    """The function's name in ``os``, or ``mmap``."""
    path: str
    """Relative to the root; empty for the root itself."""
    arguments: tuple[Any, ...]
    to: str = ""
    """The second path of a link or a renaming."""

    @property
    def creates(self) -> bool:
        """Say whether it opens a file that is not there yet."""
        return self.name == "open" and bool(self.arguments[1] & os.O_CREAT)


class Around(Protocol):
    """What happens at a call; *do* makes it and returns what the system says."""

    def __call__(self, call: Call, do: Callable[..., Any]) -> Any: ...


class Calls:
    """Hands every call about files below a root to *around*, from all threads, one at a time.

    Only what Python code asks of the system goes through here; SQLite's own files do not.

    Args:
        root: A folder. A store below it is watched together with the folder it lies in.
        around: Makes the call, or raises in its place.
    """

    def __init__(self, root: Path, around: Around) -> None:
        self._root = str(root)
        self._around = around
        self._turn = threading.RLock()
        self._opened: dict[int, str] = {}
        self._patches: list[Any] = []

    def __enter__(self) -> Self:
        for name in (*BY_PATH, *BY_TWO_PATHS, *BY_FD):
            if real := getattr(os, name, None):
                make = self._by_fd if name in BY_FD else self._by_path
                self._patches.append(mock.patch.object(os, name, make(name, real)))
        self._patches.append(mock.patch.object(mmap, "mmap", self._by_fd("mmap", mmap.mmap)))
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for patch in reversed(self._patches):
            patch.stop()
        self._patches.clear()

    def _below(self, path: object) -> str | None:
        """Return a path relative to the root, None where it is elsewhere or no path."""
        if isinstance(path, int) or path is None:
            return None
        text = os.fsdecode(os.fspath(path))  # type: ignore[call-overload] # str, bytes or a Path
        if text == self._root:
            return ""
        return text[len(self._root) + 1 :] if text.startswith(self._root + os.sep) else None

    def _by_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            path = self._below(arguments[0]) if arguments else None
            if path is None:
                return real(*arguments, **options)
            to = self._below(arguments[1]) if name in BY_TWO_PATHS else ""
            with self._turn:
                result = self._around(
                    Call(name, path, arguments, to or ""), lambda: real(*arguments, **options)
                )
                if name == "open":
                    self._opened[result] = path
                return result

        return call

    def _by_fd(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            path = self._opened.get(arguments[0]) if arguments else None
            if path is None:
                return real(*arguments, **options)
            with self._turn:
                if name == "close":
                    self._opened.pop(arguments[0], None)

                def do(*others: Any) -> Any:
                    return real(*(others or arguments), **options)

                return self._around(Call(name, path, arguments), do)

        return call
