"""Files and folders of others, wherever they lie: on this machine for as long as they are read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from ckptstore.errors import ArgumentError, NotFoundError, StorageError
from ckptstore.storage.base import Listing
from ckptstore.storage.opening import Address, open_storage, parse

PIECE_BYTES = 16 * 1024 * 1024
START_BYTES = 512


class Place(Protocol):
    """A file or a folder."""

    where: str
    """Where it is, for people; without credentials."""
    name: str
    """Its name alone."""

    def is_folder(self) -> bool:
        """Say whether it is a folder.

        Raises:
            NotFoundError: There is nothing there.
            StorageError: The storage failed.
        """

    def names(self, inside: str | None = None) -> Listing:
        """Return the names of the folders and files in it, or in a folder in it, sorted."""

    def here(self, inside: str | None = None) -> AbstractContextManager[Path]:
        """Give it, or a file or folder in it, as a path of this machine.

        What lies elsewhere is fetched into a temporary folder, which is removed at the end.

        Raises:
            StorageError: It could not be fetched.
        """

    def start(self, inside: str) -> bytes:
        """Return the first 512 bytes of a file in it, fewer if it is shorter."""

    def close(self) -> None:
        """Let go of connections."""


def find_place(
    path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> Place:
    """Return the place at a path of this machine, or at an address that fsspec knows.

    Args:
        path: Where it is.
        storage_options: Arguments of the fsspec filesystem; they are never shown.

    Raises:
        ArgumentError: *path* is no such thing.
        MissingPackageError: The package for this protocol is not installed.
    """
    address = parse(path)
    if address.protocol == "file":
        if storage_options:
            raise ArgumentError("storage_options are for remote storage; a file takes none")
        return LocalPlace(Path(address.path))
    return RemotePlace(address, storage_options)


class LocalPlace:
    """A file or folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.where, self.name = str(path), path.name
        self._path = path

    def is_folder(self) -> bool:
        """Say whether it is a folder; raises NotFoundError if it is nothing."""
        if not self._path.exists():
            raise NotFoundError(f"{self.where} is not there: name a file or folder to import")
        return self._path.is_dir()

    def names(self, inside: str | None = None) -> Listing:
        """Return the names of the folders and files in it."""
        folder = self._path if inside is None else self._path / inside
        with _reading(folder):
            entries = sorted(folder.iterdir())
        return Listing(
            tuple(each.name for each in entries if each.is_dir()),
            tuple(each.name for each in entries if not each.is_dir()),
        )

    def here(self, inside: str | None = None) -> AbstractContextManager[Path]:
        """Give its own path."""
        return nullcontext(self._path if inside is None else self._path / inside)

    def start(self, inside: str) -> bytes:
        """Return the first 512 bytes of a file in it."""
        path = self._path / inside
        if not path.is_file() and os.path.lexists(path):
            return b""  # a pipe would be waited for, and a link that leads nowhere has nothing
        with _reading(path), path.open("rb") as file:
            return file.read(START_BYTES)

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} can't be read: {error.strerror or error}") from error


class RemotePlace:
    """A file or folder of another storage."""

    def __init__(self, address: Address, storage_options: Mapping[str, Any] | None) -> None:
        above, _, self.name = address.path.rpartition("/")
        self.where = address.url
        if not self.name or (not above and address.protocol != "memory"):
            raise ArgumentError(f"{self.where} is all there is: name a file or folder in it")
        self._storage = open_storage(f"{address.protocol}://{above}", storage_options)

    def is_folder(self) -> bool:
        """Say whether it is a folder; raises NotFoundError if it is nothing."""
        if any(self._storage.list_folder(self.name)):
            return True
        try:
            self._storage.size_bytes(self.name)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{self.where} is not there: name a file or folder to import"
            ) from error
        return False

    def names(self, inside: str | None = None) -> Listing:
        """Return the names of the folders and files in it."""
        return self._storage.list_folder(self.name if inside is None else f"{self.name}/{inside}")

    @contextmanager
    def here(self, inside: str | None = None) -> Iterator[Path]:
        """Fetch it into a temporary folder."""
        key = self.name if inside is None else f"{self.name}/{inside}"
        with tempfile.TemporaryDirectory(prefix="ckptstore-import-") as folder:
            target = Path(folder) / key.rpartition("/")[2]
            files = self._storage.list_folder(key).files
            if files:
                target.mkdir()
                for file in files:
                    self._fetch(f"{key}/{file}", target / Path(file).name)
            else:
                self._fetch(key, target)
            yield target

    def start(self, inside: str) -> bytes:
        """Return the first 512 bytes of a file in it."""
        return self._storage.read_start(f"{self.name}/{inside}", START_BYTES)

    def close(self) -> None:
        """Let go of connections."""
        self._storage.close()

    def _fetch(self, key: str, target: Path) -> None:
        try:
            size = self._storage.size_bytes(key)
            with target.open("wb") as file:
                for start in range(0, size, PIECE_BYTES):
                    piece = bytearray(min(PIECE_BYTES, size - start))
                    self._storage.read_into(key, start, memoryview(piece))
                    file.write(piece)
        except (FileNotFoundError, EOFError) as error:
            raise StorageError(f"{self.where} changed while it was fetched: {key}") from error
