"""A store on any filesystem that fsspec knows."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from types import TracebackType
from typing import Any

from ckptstore.errors import CkptStoreError, StorageError
from ckptstore.storage.base import Leftover, Listing, Stored, Writer
from ckptstore.storage.exclusive import CREATORS, memory_turn
from ckptstore.storage.failures import check_key, check_keys, no_leftover, not_found
from ckptstore.storage.instances import Instances
from ckptstore.storage.redaction import Options, redact
from ckptstore.storage.remote_writer import RemoteWriter
from ckptstore.storage.times import in_utc, latest_named

RANGE_BYTES = 8 * 2**20
IN_FLIGHT = 8
"""How many ranges of a read are on their way at once."""

# Object stores have no folders to make, and some would make a bucket when asked to.
_CONTAINERS = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "oss", "s3", "s3a"})
_FOLDERLESS = _CONTAINERS | {"http", "https", "memory"}
# What a mistake in a program raises passes as it is. Anything else that comes out of a filesystem's
# package is that storage failing: most of their errors derive from Exception alone.
_MISTAKES = (ArithmeticError, AssertionError, AttributeError, MemoryError, NameError, TypeError)


class RemoteStorage:
    """A store below a prefix of an fsspec filesystem.

    Args:
        protocol: fsspec's name of the filesystem, e.g. ``gs``.
        root: The path on it, without protocol.
        url: The address to show: no credentials in it.
        options: Arguments of the filesystem's class.
    """

    def __init__(
        self, protocol: str, root: str, url: str, options: Mapping[str, Any] | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self.exclusive = protocol in CREATORS
        self.in_place = False
        self.local_folder: str | None = None
        self._protocol = protocol
        self._root = root.rstrip("/")
        self._options = Options(options or {})
        self._instances = Instances(protocol, self._options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def _filesystem(self) -> Any:
        return self._instances.get()

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self._root}/{key}" if key else self._root

    def shown(self, key: str) -> str:
        """Return an object's address for people."""
        return f"{self.url}/{key}" if key else self.url

    # ------------------------------------------------------------------------------------ reading

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with self._translated("read", key), self._turn():
            return bytes(self._filesystem.cat_file(self._path(key)))

    def read_start(self, key: str, length: int) -> bytes:
        """Return the first *length* bytes of an object, fewer if it is shorter."""
        # Asking first costs a request; what a range beyond the end does is each package's own.
        end = min(length, self.size_bytes(key))
        with self._translated("read", key), self._turn():
            return (
                bytes(self._filesystem.cat_file(self._path(key), start=0, end=end)) if end else b""
            )

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Return the first *length* bytes of each object, None where there is none."""
        starts: list[bytes | None] = []
        for key in keys:
            try:
                starts.append(self.read_start(key, length))
            except FileNotFoundError:
                starts.append(None)
        return starts

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        """Fill *out* with the bytes of an object from *start* on, several ranges at a time.

        Raises:
            EOFError: The object ends before *out* is full.
        """
        size = self.size_bytes(key)
        if size < start + out.nbytes:
            raise ends_early(self.shown(key), size, start, out.nbytes)
        if not out.nbytes:  # an empty view of anything but bytes cannot be cast
            return
        out = out.cast("B")
        path = self._path(key)
        # cat_ranges holds all that it was asked for, so it is asked for a bounded window at a time.
        for first in range(0, out.nbytes, RANGE_BYTES * IN_FLIGHT):
            last = min(first + RANGE_BYTES * IN_FLIGHT, out.nbytes)
            begins = list(range(first, last, RANGE_BYTES))
            ends = [min(begin + RANGE_BYTES, last) for begin in begins]
            with self._translated("read", key), self._turn():
                pieces = self._filesystem.cat_ranges(
                    [path] * len(begins),
                    [start + begin for begin in begins],
                    [start + end for end in ends],
                    on_error="raise",
                )
            for begin, end, piece in zip(begins, ends, pieces, strict=True):
                if len(piece) != end - begin:
                    raise ends_early(self.shown(key), start + begin + len(piece), start, out.nbytes)
                out[begin:end] = piece

    def size_bytes(self, key: str) -> int:
        """Return an object's size."""
        with self._translated("look at", key), self._turn():
            return int(self._info(key)["size"])

    def list_folder(self, key: str) -> Listing:
        """List what lies directly below *key*, freshly."""
        folders: set[str] = set()
        files: set[str] = set()
        for name, info in self._entries(key):
            (folders if info["type"] == "directory" else files).add(name)
        return Listing(tuple(sorted(folders)), tuple(sorted(files)))

    def walk(self, folder: str) -> Iterator[Stored]:
        """Yield every object below *folder*, freshly.

        Not by fsspec's own ``walk`` and ``find``, which leave out what they cannot list.
        """
        check_key(folder)
        return self._walk(folder)

    def _walk(self, folder: str) -> Iterator[Stored]:
        for name, info in self._entries(folder):
            key = f"{folder}/{name}" if folder else name
            if info["type"] == "directory":
                yield from self._walk(key)
                continue
            try:
                with self._translated("look at", key), self._turn():
                    stored = Stored(key, int(info["size"]), self._written_at(key, info))
            except FileNotFoundError:  # removed since
                continue
            yield stored

    def written_at(self, key: str) -> datetime | None:
        """Return when an object was written, None where the filesystem's package doesn't tell."""
        with self._translated("look at", key), self._turn():
            return self._written_at(key, self._info(key))

    def leftovers(self) -> Iterator[Leftover]:
        """Yield nothing: fsspec cannot tell what its filesystems keep of interrupted writes.

        The object stores among them drop it by themselves, or by a rule set for the bucket.
        """
        return iter(())

    def map(self, key: str) -> mmap.mmap | None:
        """Return None: there is nothing to map."""
        check_key(key)
        return None

    # ----------------------------------------------------------------------------------- removing

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        """Remove objects one by one. Return what could not be removed, by key."""
        failed: dict[str, StorageError] = {}
        for key in check_keys(keys):
            try:
                with self._translated("delete", key), self._turn(), suppress(FileNotFoundError):
                    self._filesystem.rm_file(self._path(key))
            except StorageError as error:
                failed[key] = error
        return failed

    def clear(self, leftover: Leftover) -> None:
        """Refuse: there is none, as :meth:`leftovers` says.

        Raises:
            ArgumentError: Always.
        """
        raise no_leftover(leftover.key)

    # ------------------------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Do nothing: object stores have no folders, and create objects whole."""

    def create(self, key: str, data: bytes) -> None:
        """Create an object whole and only if there is none, where ``exclusive`` says so.

        Elsewhere it looks first and writes then, which keeps no two writers apart.

        Raises:
            FileExistsError: There is one already.
            StorageError: Anything else; the object may be there.
        """
        path = self._path(key)
        create_exclusively = CREATORS.get(self._protocol)
        with self._translated("create", key), self._turn():
            if create_exclusively is not None:
                create_exclusively(self._filesystem, path, data)
                return
            self._make_folder_of(path)
            if self._filesystem.exists(path):
                raise FileExistsError(self.shown(key))
            self._filesystem.pipe_file(path, data)

    def replace(self, key: str, data: bytes) -> None:
        """Write an object over what is there. For users' own files, never for a store's."""
        path = self._path(key)
        with self._translated("write", key), self._turn():
            self._make_folder_of(path)
            self._filesystem.pipe_file(path, data)

    def open_writer(self, key: str) -> Writer:
        """Start writing a large object under a name nobody else uses."""
        return RemoteWriter(self, key)

    def close(self) -> None:
        """Let go of this process's connections."""
        self._instances.drop()

    # ------------------------------------------------------------------------------------ details

    def _turn(self) -> AbstractContextManager[object]:
        """Wait for this thread's turn, where a filesystem takes one caller at a time."""
        return memory_turn() if self._protocol == "memory" else nullcontext()

    def _translated(self, doing: str, key: str) -> Translated:
        """Turn whatever a filesystem's package raises into our errors."""
        return Translated(self, doing, key)

    def explain(self, doing: str, key: str, error: Exception) -> Exception:
        """Say what failed without what may be secret in the package's own words."""
        shown = self.shown(key)
        if isinstance(error, FileExistsError) and doing == "create":
            return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), shown)
        if isinstance(error, (FileNotFoundError, IsADirectoryError)) and doing in {
            "read",
            "look at",
        }:
            return not_found(shown)
        said = redact(str(error), self._options).strip()
        failure = StorageError(
            f"cannot {doing} {shown}: {type(error).__name__}{said and ': '}{said}; check the "
            "address, the credentials and the network, then try again"
        )
        failure.errno = getattr(error, "errno", None)
        return failure

    def _info(self, key: str) -> Mapping[str, Any]:
        info: Mapping[str, Any] = self._filesystem.info(self._path(key))
        if info["type"] == "directory":
            raise not_found(self.shown(key))
        return info

    def _written_at(self, key: str, info: Mapping[str, Any]) -> datetime | None:
        """Return when a file was written, by what is told of it or else by asking."""
        time = latest_named(info)
        if time is None:
            with suppress(NotImplementedError):  # what fsspec's base class raises
                time = in_utc(self._filesystem.modified(self._path(key)))
        return time

    def _entries(self, key: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return what lies directly below a folder, by name; nothing if nothing is there."""
        path = self._path(key)
        with self._translated("list", key), self._turn():
            self._filesystem.invalidate_cache()
            try:
                entries = self._filesystem.ls(path, detail=True)
            except FileNotFoundError:
                self._check_container()
                return []
        named = [(str(each["name"]).rstrip("/").rpartition("/")[2], each) for each in entries]
        # Some list the folder's own marker object, or a file when asked what lies below it.
        return [
            (name, each)
            for name, each in named
            if name and str(each["name"]).strip("/") != path.strip("/")
        ]

    def _make_folder_of(self, path: str) -> None:
        if self._protocol not in _FOLDERLESS:
            self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _check_container(self) -> None:
        """Tell a bucket that is not there from one with nothing below a prefix.

        Raises:
            StorageError: There is no such bucket.
        """
        if self._protocol not in _CONTAINERS:
            return
        container = self._root.strip("/").partition("/")[0]
        try:
            self._filesystem.info(container)
        except FileNotFoundError:
            raise no_bucket("list", self.url, container) from None


def no_bucket(doing: str, shown: str, bucket: str) -> StorageError:
    """Say that a bucket is not there."""
    failure = StorageError(
        f"cannot {doing} {shown}: there is no bucket {bucket!r} for these credentials and this "
        "endpoint; create it, or mend the address"
    )
    failure.errno = errno.ENOENT
    return failure


def ends_early(shown: str, size: int, start: int, length: int) -> EOFError:
    """Say that an object is shorter than what was asked of it."""
    return EOFError(f"{shown} ends at byte {size}: {length} bytes from byte {start} were expected")


class Translated:
    """Raise our own errors for those of a filesystem's package.

    The original is not shown as the cause: its text may hold what :func:`redact` takes out.
    """

    def __init__(self, storage: RemoteStorage, doing: str, key: str) -> None:
        self._storage = storage
        self._doing = doing
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ours = (CkptStoreError, EOFError, *_MISTAKES)
        if isinstance(error, Exception) and not isinstance(error, ours):
            raise self._storage.explain(self._doing, self._key, error) from None
