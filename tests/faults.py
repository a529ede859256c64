"""A storage that fails where a test says so, around any other storage."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from unittest import mock

from ckptstore import Store
from ckptstore.errors import StorageError
from ckptstore.storage.base import Leftover, Listing, Storage, Stored, Writer

Fault = Callable[[], BaseException]


def lost() -> StorageError:
    """Return what a storage says when the connection breaks."""
    return StorageError("the connection broke")


class Failing:
    """A storage whose operations fail as told, and which remembers what it was asked.

    Operations are the protocol's methods by name, and of a writer ``open_writer``, ``write`` and
    ``finish`` (leaving its block normally). They are counted from 1.

    Args:
        storage: The one that does the work.
        at: The number of the operation that fails; None: none does.
        fault: Makes the exception. It may also not return at all, as a killed process.
        after: Do the work first: the reply is lost, not the request.
        always: From then on every counted operation fails.
        only: The operations that count.
    """

    def __init__(
        self,
        storage: Storage,
        at: int | None = None,
        *,
        fault: Fault = lost,
        after: bool = False,
        always: bool = False,
        only: frozenset[str] | set[str] | None = None,
    ) -> None:
        self.storage = storage
        self.at = at
        self.fault = fault
        self.after = after
        self.always = always
        self.only = only
        self.count = 0
        self.done: list[tuple[str, str]] = []

    def rest(self) -> None:
        """Count from the beginning again, and fail no more."""
        self.at, self.count = None, 0
        self.done.clear()

    def do(self, operation: str, key: str, work: Callable[[], Any]) -> Any:
        """Do one operation, or fail."""
        fails = self._fails(operation, key)
        if fails and not self.after:
            raise self.fault()
        result = work()
        if fails:
            raise self.fault()
        return result

    def each(self, operation: str, key: str, work: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Do one operation that yields, or fail; with ``after``, once all was yielded."""
        fails = self._fails(operation, key)
        if fails and not self.after:
            raise self.fault()
        yield from work()
        if fails:
            raise self.fault()

    def _fails(self, operation: str, key: str) -> bool:
        self.done.append((operation, key))
        if self.only is not None and operation not in self.only:
            return False
        self.count += 1
        return self.at is not None and (
            self.count == self.at or (self.always and self.count > self.at)
        )

    @property
    def url(self) -> str:
        return self.storage.url

    @property
    def exclusive(self) -> bool:
        return self.storage.exclusive

    @exclusive.setter
    def exclusive(self, value: bool) -> None:
        self.storage.exclusive = value

    @property
    def in_place(self) -> bool:
        return self.storage.in_place

    @property
    def local_folder(self) -> str | None:
        return self.storage.local_folder

    def read(self, key: str) -> bytes:
        return self.do("read", key, lambda: self.storage.read(key))

    def read_start(self, key: str, length: int) -> bytes:
        return self.do("read_start", key, lambda: self.storage.read_start(key, length))

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        return self.do("read_many", ",".join(keys), lambda: self.storage.read_many(keys, length))

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        self.do("read_into", key, lambda: self.storage.read_into(key, start, out))

    def size_bytes(self, key: str) -> int:
        return self.do("size_bytes", key, lambda: self.storage.size_bytes(key))

    def list_folder(self, key: str) -> Listing:
        return self.do("list_folder", key, lambda: self.storage.list_folder(key))

    def walk(self, folder: str) -> Iterator[Stored]:
        return self.each("walk", folder, lambda: self.storage.walk(folder))

    def written_at(self, key: str) -> datetime | None:
        return self.do("written_at", key, lambda: self.storage.written_at(key))

    def leftovers(self) -> Iterator[Leftover]:
        return self.each("leftovers", "", self.storage.leftovers)

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        return self.do("delete", ",".join(keys), lambda: self.storage.delete(keys))

    def clear(self, leftover: Leftover) -> None:
        self.do("clear", leftover.key, lambda: self.storage.clear(leftover))

    def prepare(self) -> None:
        self.do("prepare", "", self.storage.prepare)

    def create(self, key: str, data: bytes) -> None:
        self.do("create", key, lambda: self.storage.create(key, data))

    def open_writer(self, key: str) -> Writer:
        return FailingWriter(
            self, key, self.do("open_writer", key, lambda: self.storage.open_writer(key))
        )

    def map(self, key: str) -> mmap.mmap | None:
        return self.do("map", key, lambda: self.storage.map(key))

    def close(self) -> None:
        self.storage.close()


class FailingWriter:
    """A writer whose operations are counted by its storage."""

    def __init__(self, storage: Failing, key: str, writer: Writer) -> None:
        self._storage = storage
        self._key = key
        self._writer = writer

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._writer.__exit__(kind, error, trace)
            return
        finished: list[bool] = []

        def finish() -> None:
            finished.append(True)
            self._writer.__exit__(None, None, None)

        try:
            self._storage.do("finish", self._key, finish)
        except BaseException as fault:
            if not finished:
                self._writer.__exit__(type(fault), fault, fault.__traceback__)
            raise

    def write(self, data: memoryview) -> None:
        self._storage.do("write", self._key, lambda: self._writer.write(data))


def store_on(storage: Storage, **options: Any) -> Store:
    """Return a store on a storage of the test's own making, its index in memory.

    Where there is no room it raises, unless the test says otherwise.
    """
    with mock.patch("ckptstore.opened.open_storage", return_value=storage):
        return Store(storage.url, **{"catalog": "sqlite://", "on_full": "raise", **options})
