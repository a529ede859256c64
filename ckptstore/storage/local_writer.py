"""Write a large file under its final name."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptstore.storage import durable
from ckptstore.storage.failures import translated

_GATHERED_BYTES = 2**20
"""Smaller writes are gathered, so that thousands of small tensors are not as many calls."""


class LocalWriter:
    """A large file being written under its final name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._small = bytearray()
        self._written = 0
        self._handed_over = 0
        with translated("create", path):
            self._fd = os.open(path, durable.NEW_FILE, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with translated("write", self._path):
                    self._flush()
                    durable.sync_file(self._fd, self._path)
                    fd, self._fd = self._fd, -1
                    os.close(fd)
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            self._give_up()
            return
        durable.sync_folder(self._path.parent)

    def write(self, data: memoryview) -> None:
        """Append bytes.

        Raises:
            StorageError: They could not be written.
        """
        if not data.nbytes:  # an empty view of anything but bytes cannot be cast
            return
        data = data.cast("B")
        with translated("write", self._path):
            if data.nbytes >= _GATHERED_BYTES:
                self._flush()
                self._write_out(data)
                return
            self._small += data
            if len(self._small) >= _GATHERED_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._small:
            small, self._small = self._small, bytearray()
            self._write_out(memoryview(small))

    def _write_out(self, data: memoryview) -> None:
        for start in range(0, data.nbytes, durable.WRITE_BACK_BYTES):
            piece = data[start : start + durable.WRITE_BACK_BYTES]
            durable.write_all(self._fd, piece)
            self._written += piece.nbytes
            due = self._written - self._handed_over
            if due >= durable.WRITE_BACK_BYTES:
                durable.start_write_back(self._fd, self._handed_over, due)
                self._handed_over = self._written

    def _give_up(self) -> None:
        with suppress(OSError):
            os.close(self._fd)
        with suppress(OSError):
            self._path.unlink()
