"""Give a finished file its name, which only one of several writers gets."""

from __future__ import annotations

import enum
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptstore.storage import durable


class Publishing(enum.Enum):
    """How a finished file gets its name, best first."""

    LINK = enum.auto()
    RENAME = enum.auto()
    IN_PLACE = enum.auto()


class TemporaryFile:
    """An unfinished file beside its final place, gone when the block is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = self._another_path()
        self._fd = os.open(self._path, durable.NEW_FILE, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            with suppress(OSError):  # what was not finished is of no use: away with it
                os.close(self._fd)
        # What cannot be removed is a stray file nobody reads; it must not hide how creation ended.
        with suppress(OSError):
            self._path.unlink()

    def write(self, data: bytes) -> None:
        """Write and fsync the whole content."""
        durable.write_all(self._fd, memoryview(data))
        durable.sync_file(self._fd, self._path)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def probe(self) -> Publishing:
        """Find by trying, on names nobody uses, how this filesystem lets a file be published."""
        other = self._another_path()
        try:
            linked = durable.link(self._path, other)
        finally:
            with suppress(OSError):  # it may be there although the system said that it failed
                other.unlink()
        if linked:
            return Publishing.LINK
        if durable.rename_without_replacing(self._path, other):
            self._path = other
            return Publishing.RENAME
        return Publishing.IN_PLACE

    def publish(self, path: Path, how: Publishing) -> bool:
        """Give the file its final name, unless something has it.

        Returns:
            False if it has to be written in place.
        """
        if how is Publishing.LINK:
            if durable.link(self._path, path):
                return True
            how = Publishing.RENAME
        return how is Publishing.RENAME and durable.rename_without_replacing(self._path, path)

    def replace(self, path: Path) -> None:
        """Give the file its final name, whatever has it."""
        self._path.replace(path)

    def _another_path(self) -> Path:
        return self._folder / durable.temporary_name()


def create_in_place(path: Path, data: bytes) -> None:
    """Write an object straight under its name. A torn one stays: it spends its number."""
    fd = os.open(path, durable.NEW_FILE, 0o666)
    try:
        durable.write_all(fd, memoryview(data))
        durable.sync_file(fd, path)
    finally:
        os.close(fd)
