"""Copies of one store's objects in a cache: whole files that appear at once, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from ckptstore.errors import StorageError
from ckptstore.storage import durable
from ckptstore.storage.cache import LOCK, Cache, remove_abandoned
from ckptstore.storage.locks import Lock, wait_for_lock
from ckptstore.storage.private import FILE_MODE, check_private_folder, open_private


class Copies:
    """Copies of a store's objects, by key.

    Every method raises an ``OSError`` where the cache fails, which is never a reason for a load to.

    Args:
        cache: Where they are.
        url: The store's address.
        service: Which of several services it is on, as :func:`.service.service_of` says.
    """

    def __init__(self, cache: Cache, url: str, service: str = "") -> None:
        self.cache = cache
        self._url, self._service = url, service
        self._place = cache.place_of(url, service)

    def path(self, key: str) -> Path:
        """Return where an object's copy is, if there is one."""
        return self._place / quote(key, safe="")

    def open(self, key: str) -> int | None:
        """Open a copy for reading, or return None where there is none that can be trusted."""
        try:
            check_private_folder(self.cache.root)
            check_private_folder(self._place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return open_private(self.path(key))

    def has(self, key: str, size_bytes: int) -> bool:
        """Say whether there is a copy of that size, and note that it was asked for."""
        fd = self.open(key)
        if fd is None:
            return False
        try:
            if os.fstat(fd).st_size != size_bytes:
                return False
            with suppress(OSError):  # it seems older than it is, no more
                os.utime(self.path(key), follow_symlinks=False)
        finally:
            os.close(fd)
        return True

    def drop(self, key: str) -> None:
        """Remove a copy; whoever has it mapped or open keeps it."""
        self.path(key).unlink(missing_ok=True)

    def add(self, key: str, size_bytes: int, beside: Collection[str] = ()) -> NewCopy | None:
        """Begin a copy; None where there is one, or will be once another process has made it.

        Args:
            key: The object.
            size_bytes: Its size.
            beside: Objects whose copies must not make room for this one: they are wanted with it.

        Raises:
            StorageError: There is no room for it in the cache, or the cache is not this user's own.
            OSError: The disk failed; or who makes the copy has stopped working on it.
        """
        self._make_sure_it_fits(key, size_bytes)
        if self.has(key, size_bytes):
            return None
        self.cache.make(self._url, self._service)
        path = self.path(key)
        lock = wait_for_lock(Path(f"{path}{LOCK}"), lambda: self.has(key, size_bytes))
        if lock is None:
            return None
        try:
            if self.has(key, size_bytes):
                lock.release()
                return None
            new = NewCopy(path, lock)
        except BaseException:
            lock.release()
            raise
        try:
            new.reserve(size_bytes)
            self._make_room(new, key, size_bytes, {self.path(each) for each in (key, *beside)})
        except BaseException:
            new.give_up()
            raise
        return new

    def _make_sure_it_fits(self, key: str, size_bytes: int) -> None:
        if size_bytes > self.cache.max_bytes:
            raise self._no_room(key, size_bytes)

    def _make_room(self, new: NewCopy, key: str, size_bytes: int, keep: Collection[Path]) -> None:
        """Remove what was not used for longest, until all copies fit.

        Copies that others are making count with the size they will have, so that several at once
        do not go beyond what is allowed together.
        """
        total = 0
        copies = []
        for file in self.cache.files():
            if file.lock == new.lock_path:
                if file.path != new.temporary and not file.is_lock:
                    file.path.unlink(missing_ok=True)  # a killed process left it: the lock is ours
                    continue
            elif file.lock is not None and remove_abandoned(file):
                continue
            total += file.size_bytes
            if file.lock is None and file.path not in keep:
                copies.append(file)
        copies.sort(key=lambda file: file.used_s)
        for file in copies:
            if total <= self.cache.max_bytes:
                break
            try:
                # Whoever has it mapped keeps it. Windows refuses, and then another one goes.
                file.path.unlink(missing_ok=True)
            except PermissionError:
                continue
            total -= file.size_bytes
        if total > self.cache.max_bytes:
            raise self._no_room(key, size_bytes)

    def _no_room(self, key: str, size_bytes: int) -> StorageError:
        failure = StorageError(
            f"{self._url}/{key} ({size_bytes} bytes) finds no room in the cache at "
            f"{self.cache.folder}, which may have {self.cache.max_bytes} bytes, beside what is "
            "loaded with it: give it a larger max_bytes"
        )
        failure.errno = errno.ENOSPC
        return failure


class NewCopy:
    """A copy being made: a file of its own, whose name it gets at the end.

    Leaving the ``with`` block before :meth:`commit` leaves nothing.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        self._path = path
        self._lock = lock
        self.lock_path = Path(f"{path}{LOCK}")
        self.temporary = Path(f"{path}%tmp-{secrets.token_hex(8)}")
        self._fd = os.open(self.temporary, durable.NEW_FILE, FILE_MODE)
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_up()

    def reserve(self, size_bytes: int) -> None:
        """Take the size that it will have, without writing."""
        os.ftruncate(self._fd, size_bytes)

    def write(self, data: memoryview) -> None:
        """Append bytes, and show whoever waits that work goes on."""
        durable.write_all(self._fd, data)
        durable.start_write_back(self._fd, self._written, data.nbytes)
        self._written += data.nbytes
        self._lock.beat()

    def commit(self) -> None:
        """Make it a copy that everybody sees.

        Its bytes are made durable first: a power loss must not leave a name with other bytes, as a
        slice is not compared with a digest.
        """
        durable.sync_file(self._fd, self.temporary)
        fd, self._fd = self._fd, -1
        os.close(fd)
        self.temporary.replace(self._path)

    def give_up(self) -> None:
        """Leave nothing behind but what was committed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # of no use to anybody
                os.close(fd)
        with suppress(OSError):  # not there after a commit; else it is cleaned up by the next
            self.temporary.unlink()
        self._lock.release()
