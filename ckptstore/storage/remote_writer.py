"""Write a large object through a filesystem's own file."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ckptstore.errors import StorageError

if TYPE_CHECKING:
    from ckptstore.storage.remote import RemoteStorage, Translated

PART_BYTES = 16 * 2**20


class RemoteWriter:
    """A large object being written through a filesystem's own file."""

    def __init__(self, storage: RemoteStorage, key: str) -> None:
        self._storage = storage
        self._key = key
        self._path = storage._path(key)  # noqa: SLF001 - a part of it
        with self._translated("create"):
            storage._make_folder_of(self._path)  # noqa: SLF001 - a part of it
            self._file = storage._filesystem.open(self._path, "wb", block_size=PART_BYTES)  # noqa: SLF001 - a part of it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._give_up(error)
            return
        try:
            with self._translated("write"):
                self._file.close()
        except BaseException as failure:
            self._give_up(failure)
            raise

    def write(self, data: memoryview) -> None:
        """Append bytes.

        Raises:
            StorageError: They could not be written.
        """
        if not data.nbytes:  # an empty view of anything but bytes cannot be cast
            return
        data = data.cast("B")
        # A file of fsspec keeps all that one call brings until the call ends.
        for start in range(0, data.nbytes, PART_BYTES):
            with self._translated("write"):
                self._file.write(data[start : start + PART_BYTES])

    def _give_up(self, error: BaseException) -> None:
        """Leave nothing behind; what cannot be removed is noted on *error*."""
        try:
            with self._translated("remove"):
                # Closing would commit what is there, and a file that is not closed closes itself
                # when it is collected.
                with suppress(AttributeError):  # not every kind of file has these two
                    self._file.discard()
                with suppress(AttributeError):
                    self._file.closed = True
                if self._storage._filesystem.exists(self._path):  # noqa: SLF001 - a part of it
                    self._storage._filesystem.rm_file(self._path)  # noqa: SLF001 - a part of it
        except StorageError as failure:
            error.add_note(f"and what was written could not be removed: {failure}")

    def _translated(self, doing: str) -> Translated:
        return self._storage._translated(doing, self._key)  # noqa: SLF001 - a part of it
