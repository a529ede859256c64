"""A storage of which copies are kept on this machine: read through them, written past them.

Objects never change, so a copy is never out of date. It may be damaged, though, or of another
store's object of the same name; so whoever reads compares with digests as ever, and on a mismatch
asks :meth:`CachedStorage.without_copy` for where to read again.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from ckptstore.errors import ArgumentError, StorageError
from ckptstore.storage.base import Leftover, Listing, Storage, Stored, Writer
from ckptstore.storage.cache import Cache
from ckptstore.storage.copies import Copies, NewCopy
from ckptstore.storage.failures import check_key
from ckptstore.storage.local_file import map_privately, read_file_into
from ckptstore.storage.mounts import is_folder_on_local_disk
from ckptstore.storage.service import service_of

MOST_BYTES = 256 * 2**20
"""How much memory the copies that one load makes take together while they are fetched."""
PIECE_BYTES = 64 * 2**20
"""What is asked for at once of one object; a storage reads it in several ranges at a time."""
LEAST_PIECE_BYTES = 8 * 2**20


def cached(
    storage: Storage,
    cache: Cache | str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None = None,
) -> Storage:
    """Return a storage that reads through a cache, or the storage itself where there is none.

    Args:
        storage: The storage.
        cache: The cache or its folder.
        options: What the storage was opened with, of which the endpoint matters.

    Raises:
        ArgumentError: *cache* is neither a cache nor a path, or the store is in a folder on a disk
            of this machine.
    """
    if cache is None:
        return storage
    if not isinstance(cache, Cache):
        cache = Cache(cache)
    folder = storage.local_folder
    if folder is not None:
        if is_folder_on_local_disk(folder):
            raise ArgumentError(
                f"cache={cache.folder!r}: {folder} is on a disk of this machine already, so a copy "
                "would only cost: leave cache= out for it"
            )
        if os.path.commonpath([folder, cache.folder]) in {folder, cache.folder}:
            raise ArgumentError(
                f"cache={cache.folder!r}: the store at {folder} and its cache lie within each "
                "other: name a folder on a disk of this machine"
            )
    return CachedStorage(storage, cache, service_of(storage.url, options or {}))


class CachedStorage:
    """Any storage, with copies of what loads want whole.

    Only :meth:`read_into`, :meth:`size_bytes` and :meth:`map` look at copies, and only
    :meth:`bring` makes one. Whatever goes wrong with the cache is remembered to be told, and the
    storage itself is read.

    Args:
        origin: The storage.
        cache: Where copies are kept.
        service: Which of several services the storage is on.
    """

    def __init__(self, origin: Storage, cache: Cache, service: str = "") -> None:
        self.origin = origin
        self.url = origin.url
        self.local_folder = origin.local_folder
        self._copies = Copies(cache, origin.url, service)
        self._trouble: str | None = None
        self._told = False

    def __repr__(self) -> str:
        return f"CachedStorage({self.origin!r}, {self._copies.cache!r})"

    # ------------------------------------------------------------------------------------ copies

    def bring(self, key: str, size_bytes: int, *, beside: Collection[str] = ()) -> None:
        """Fetch an object whole into the cache, unless it is there. Thread-safe.

        If another process or thread is fetching it, wait for that one.

        Args:
            key: The object.
            size_bytes: Its size.
            beside: The objects that are brought with it, which must not make room for it.

        Raises:
            StorageError: The storage failed. That there is no such object is not said here, but
                when it is read.
        """
        new = self._begin(key, size_bytes, beside)
        if new is None:
            return
        most = max(LEAST_PIECE_BYTES, min(PIECE_BYTES, MOST_BYTES // max(1, len(beside))))
        with new:
            buffer = memoryview(bytearray(min(most, size_bytes)))
            for start in range(0, size_bytes, most):
                piece = buffer[: size_bytes - start]
                try:
                    self.origin.read_into(key, start, piece)
                except (EOFError, FileNotFoundError):
                    return
                try:
                    new.write(piece)
                except OSError as error:
                    self._note(error)
                    return
            try:
                new.commit()
            except OSError as error:
                self._note(error)

    def _begin(self, key: str, size_bytes: int, beside: Collection[str]) -> NewCopy | None:
        try:
            if self._copies.has(key, size_bytes):
                return None
        except OSError as error:
            self._note(error)
            return None
        # Before anything makes room for it: a head may say anything.
        try:
            if self.origin.size_bytes(key) != size_bytes:
                return None
        except FileNotFoundError:
            return None
        try:
            return self._copies.add(key, size_bytes, beside)
        except OSError as error:
            self._note(error)
            return None

    def without_copy(self, key: str) -> Storage:
        """Drop an object's copy, whose bytes are wrong, and return the storage itself."""
        try:
            self._copies.drop(key)
        except OSError as error:
            self._note(error)
        return self.origin

    def trouble(self) -> str | None:
        """Return, once, what went wrong with the cache; None where nothing did."""
        if self._told or self._trouble is None:
            return None
        self._told = True
        return self._trouble

    def _note(self, error: OSError) -> None:
        said = str(error) if isinstance(error, StorageError) else error.strerror or str(error)
        where = self._copies.cache.folder
        self._trouble = self._trouble or (
            f"the cache at {where} could not be used: {said}. What is loaded is read from "
            f"{self.origin.url} without it"
        )

    def _open(self, key: str) -> int | None:
        try:
            return self._copies.open(check_key(key))
        except OSError as error:
            self._note(error)
            return None

    # ----------------------------------------------------------------------------------- reading

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        """Fill *out* with the bytes of an object from *start* on, out of its copy if there is one.

        Raises:
            EOFError: The object ends before *out* is full.
        """
        if not self._read_copy_into(key, start, out):
            self.origin.read_into(key, start, out)

    def _read_copy_into(self, key: str, start: int, out: memoryview) -> bool:
        fd = self._open(key)
        if fd is None:
            return False
        try:
            # An empty view of anything but bytes cannot be cast.
            read = read_file_into(fd, start, out.cast("B")) if out.nbytes else 0
        except OSError as error:
            self._note(error)
            return False
        finally:
            with suppress(OSError):  # it was only read from
                os.close(fd)
        return read == out.nbytes

    def size_bytes(self, key: str) -> int:
        """Return an object's size, its copy's if there is one."""
        fd = self._open(key)
        if fd is None:
            return self.origin.size_bytes(key)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def map(self, key: str) -> mmap.mmap | None:
        """Map an object's copy privately, or else what the storage itself can map."""
        fd = self._open(key)
        if fd is None:
            return self.origin.map(key)
        try:
            return map_privately(fd, self._copies.path(key))
        except OSError as error:
            self._note(error)
            return None
        finally:
            os.close(fd)

    # ---------------------------------------------------------------------- as the storage does it

    @property
    def exclusive(self) -> bool:
        """Whether the storage lets exactly one of several writers win."""
        return self.origin.exclusive

    @exclusive.setter
    def exclusive(self, value: bool) -> None:
        self.origin.exclusive = value

    @property
    def in_place(self) -> bool:
        """Whether the storage may leave a torn object behind."""
        return self.origin.in_place

    @in_place.setter
    def in_place(self, value: bool) -> None:
        self.origin.in_place = value

    def read(self, key: str) -> bytes:
        """Return a whole small object."""
        return self.origin.read(key)

    def read_start(self, key: str, length: int) -> bytes:
        """Return the first *length* bytes of an object, fewer if it is shorter."""
        return self.origin.read_start(key, length)

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Return the first *length* bytes of each object, ``None`` where there is none."""
        return self.origin.read_many(keys, length)

    def list_folder(self, key: str) -> Listing:
        """List what lies directly below *key* in the storage."""
        return self.origin.list_folder(key)

    def walk(self, folder: str) -> Iterator[Stored]:
        """Yield every object of the storage below *folder*."""
        return self.origin.walk(folder)

    def written_at(self, key: str) -> datetime | None:
        """Return when an object was written by the storage's own clock."""
        return self.origin.written_at(key)

    def leftovers(self) -> Iterator[Leftover]:
        """Yield what interrupted writes left in the storage."""
        return self.origin.leftovers()

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        """Remove objects, and their copies."""
        failed = self.origin.delete(keys)
        for key in keys:
            if key not in failed:
                self.without_copy(key)
        return failed

    def clear(self, leftover: Leftover) -> None:
        """Remove what an interrupted write left."""
        self.origin.clear(leftover)

    def prepare(self) -> None:
        """Make the storage's root."""
        self.origin.prepare()

    def create(self, key: str, data: bytes) -> None:
        """Create an object in the storage."""
        self.origin.create(key, data)

    def open_writer(self, key: str) -> Writer:
        """Start writing a large object to the storage."""
        return self.origin.open_writer(key)

    def close(self) -> None:
        """Let go of connections."""
        self.origin.close()
