"""The narrow protocol between ckptstore and the place its bytes live.

Nothing outside this folder knows a filesystem. Keys are ``/``-separated, relative to the store's
root, and come from :mod:`ckptstore.format.layout` alone, so a storage never sees a name that a user
or a file made up. Every object is immutable: no key is ever written twice.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from ckptstore.errors import StorageError


class Listing(NamedTuple):
    """What lies directly below a folder, each sorted by name."""

    folders: tuple[str, ...]
    """Names of folders, without a trailing slash."""
    files: tuple[str, ...]
    """Names of files."""


class Stored(NamedTuple):
    """An object that lies in the storage."""

    key: str
    size_bytes: int
    written_at: datetime | None
    """When it was written by the storage's own clock (LastModified; on a local disk ctime), in UTC.
    None where the storage doesn't tell."""


class Leftover(NamedTuple):
    """What an interrupted write left behind: a temporary file, or an unfinished upload."""

    key: str
    """The temporary file, or the object that the upload was to become."""
    upload: str | None
    """The id of a multipart upload, None for a file."""
    size_bytes: int | None
    """None where nobody says what the parts of an upload take up."""
    written_at: datetime | None
    """When it was written or begun by the storage's own clock, in UTC."""
    twin: str | None = None
    """The object that the file is already, by another name. To clear it sets the object's time."""


class Writer(Protocol):
    """An object being written. Leaving the ``with`` block normally makes it durable.

    Leaving by an exception gives the object up: what was written is removed, a multipart upload
    aborted, as far as the storage allows.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def write(self, data: memoryview) -> None:
        """Append bytes. *data* may be reused by the caller as soon as this returns.

        Raises:
            StorageError: The bytes could not be written (disk full, connection lost, …).
        """


class Storage(Protocol):
    """A root folder or prefix that holds one store.

    Every method raises :class:`~ckptstore.errors.StorageError` when the storage fails: no
    permission, no connection, no room. What is not there is a ``FileNotFoundError``, and only that.
    """

    url: str
    """Where it is, for people and for the catalog's key: no credentials, no trailing slash."""

    exclusive: bool
    """Whether :meth:`create` is known to let exactly one of several writers win."""

    in_place: bool
    """Whether :meth:`create` may leave a torn object behind; known after :meth:`prepare`."""

    local_folder: str | None
    """The root as a path on this machine, if it is one."""

    def read(self, key: str) -> bytes:
        """Return a whole small object (a manifest, a journal entry)."""

    def read_start(self, key: str, length: int) -> bytes:
        """Return the first *length* bytes of an object, fewer if it is shorter."""

    def read_many(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Return the first *length* bytes of each object, ``None`` where there is none.

        In parallel where that helps. Any other failure raises.
        """

    def read_into(self, key: str, start: int, out: memoryview) -> None:
        """Fill *out* with the bytes of an object from *start* on. Thread-safe.

        Raises:
            EOFError: The object ends before *out* is full.
        """

    def size_bytes(self, key: str) -> int:
        """Return an object's size."""

    def list_folder(self, key: str) -> Listing:
        """List what lies directly below *key*, freshly; empty if there is nothing there.

        A failing listing raises; it never comes back short.
        """

    def walk(self, folder: str) -> Iterator[Stored]:
        """Yield every object below *folder*, at any depth, freshly; nothing if nothing is there.

        Unfinished files are left out. A failing listing raises; it never comes back short.
        """

    def written_at(self, key: str) -> datetime | None:
        """Return when an object was written by the storage's own clock, in UTC; None if unknown."""

    def leftovers(self) -> Iterator[Leftover]:
        """Yield what interrupted writes left anywhere below the root; never short, like `walk`.

        What a write that is under way right now has made so far is among them.
        """

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        """Remove objects. One that is not there counts as removed: somebody else was faster.

        Returns:
            What could not be removed, by key, and why.
        """

    def clear(self, leftover: Leftover) -> None:
        """Remove what an interrupted write left; nothing happens if it is gone already."""

    def prepare(self) -> None:
        """Make the root and find out how objects can be created there; leaves no object behind."""

    def create(self, key: str, data: bytes) -> None:
        """Create an object whole, durably, and only if there is none.

        Raises:
            FileExistsError: There is one already.
            DurabilityError: An fsync failed; never retried, and the object may be there.
            NoAnswerError: No request got an answer; the object may be there, or may yet come.
            StorageError: Anything else; the object may be there, so the caller reads it back.
        """

    def open_writer(self, key: str) -> Writer:
        """Start writing a large object under a name nobody else uses."""

    def map(self, key: str) -> mmap.mmap | None:
        """Map an object privately into memory, or return None where that is not safe.

        Safe means a local disk: a network filesystem can take mapped bytes away mid-read.
        """

    def close(self) -> None:
        """Let go of connections."""
