"""A storage that counts what is read, and fails where it is told to."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from unittest import mock

import torch

from ckptstore import Store
from ckptstore.errors import StorageError
from ckptstore.storage.base import Leftover, Listing, Stored
from ckptstore.storage.local import LocalStorage

Fault = Callable[[str, str], BaseException | None]
"""(method, key) -> what to raise, or None."""


class Watched:
    """Passes everything on; notes what is read, and raises what ``fault`` says."""

    def __init__(self, storage: LocalStorage, fault: Fault | None = None, *, maps: bool = True):
        self._storage = storage
        self.url = storage.url
        self.exclusive = True
        self.in_place = False
        self.local_folder = storage.local_folder
        self.fault = fault
        self.maps = maps
        self.bytes_read: dict[str, int] = {}
        self.mapped: list[str] = []
        self._made: list[mmap.mmap] = []
        self.written: list[str] = []

    def _ask(self, method: str, key: str, count: int = 0) -> None:
        error = self.fault(method, key) if self.fault else None
        if error is not None:
            raise error
        if count:
            self.bytes_read[key] = self.bytes_read.get(key, 0) + count

    def prepare(self) -> None:
        self._storage.prepare()

    def read(self, key: str) -> bytes:
        self._ask("read", key)
        data = self._storage.read(key)
        self._ask("read", key, len(data))
        return data

    def read_start(self, key: str, length: int) -> bytes:
        self._ask("read_start", key)
        data = self._storage.read_start(key, length)
        self.bytes_read[key] = self.bytes_read.get(key, 0) + len(data)
        return data

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        for key in keys:
            self._ask("read_many", key)
        return self._storage.read_many(keys, length)

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        self._ask("read_into", key, out.nbytes)
        self._storage.read_into(key, start, out)

    def size_bytes(self, key: str) -> int:
        self._ask("size_bytes", key)
        return self._storage.size_bytes(key)

    def list_folder(self, key: str) -> Listing:
        self._ask("list_folder", key)
        return self._storage.list_folder(key)

    def walk(self, folder: str) -> Iterator[Stored]:
        self._ask("walk", folder)
        return self._storage.walk(folder)

    def written_at(self, key: str) -> datetime:
        self._ask("written_at", key)
        return self._storage.written_at(key)

    def leftovers(self) -> Iterator[Leftover]:
        self._ask("leftovers", "")
        return self._storage.leftovers()

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        for key in keys:
            self._ask("delete", key)
        return self._storage.delete(keys)

    def clear(self, leftover: Leftover) -> None:
        self._ask("clear", leftover.key)
        self._storage.clear(leftover)

    def map(self, key: str) -> mmap.mmap | None:
        self._ask("map", key)
        self.mapped.append(key)
        made = self._storage.map(key) if self.maps else None
        self._made += [] if made is None else [made]
        return made

    def lies_in_a_map(self, tensor: torch.Tensor) -> bool:
        """Say whether a tensor's memory is that of a file that was mapped."""
        for made in self._made:
            first = torch.frombuffer(made, dtype=torch.uint8).data_ptr()
            if first <= tensor.data_ptr() < first + len(made):
                return True
        return False

    def create(self, key: str, data: bytes) -> None:
        self._ask("create", key)
        self.written.append(key)
        self._storage.create(key, data)

    def open_writer(self, key: str) -> Any:
        self._ask("open_writer", key)
        self.written.append(key)
        return self._storage.open_writer(key)

    def close(self) -> None:
        self._storage.close()


def store_on(storage: Any, **options: Any) -> Store:
    """Return a store whose bytes go through *storage*."""
    with mock.patch("ckptstore.opened.open_storage", return_value=storage):
        return Store(storage.url, **options)


def failing(method: str, part_of_key: str) -> Fault:
    """Return a fault: a network that is gone for some requests."""

    def fault(asked: str, key: str) -> BaseException | None:
        if asked == method and part_of_key in key:
            return StorageError(f"{key}: no connection")
        return None

    return fault
