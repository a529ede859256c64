"""The cache: where it is, how large it may get, and what is in it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from ckptstore.errors import ArgumentError
from ckptstore.storage.failures import translated
from ckptstore.storage.locks import try_lock
from ckptstore.storage.private import check_private_folder, make_private_folder, open_private

MAX_BYTES = 50 * 2**30
LAYOUT = "copies-1"
"""The folder in a cache's folder that has everything; another layout would have another number."""
# A copy's name is its key with "/" and the like as %2F, so "%" before no hexadecimal digit is ours.
ADDRESS = "%url"
LOCK = "%lock"
_NAME = re.compile(r"(?P<copy>[^%]*(?:%[0-9A-F]{2}[^%]*)*)(?P<rest>%lock|%tmp-[0-9a-f]{16})?")
_PLACE = re.compile(r"[0-9a-f]{32}")
_MOST_ADDRESS_BYTES = 4096
# Back-up programs leave out a folder with such a file: https://bford.info/cachedir/
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# ckptstore keeps copies here of what stores elsewhere hold. They may be deleted.\n"
)


@dataclass(frozen=True)
class CachedFile:
    """A file in a cache."""

    path: Path
    size_bytes: int
    used_s: float
    """When a load last asked for it, in seconds since 1970."""
    lock: Path | None
    """None for a copy. For what belongs to one that is being made, the lock of whoever makes it."""

    @property
    def is_lock(self) -> bool:
        """Whether it is that lock."""
        return self.path == self.lock


class CachedStore(NamedTuple):
    """What a cache has of one store."""

    url: str
    """The store's address; empty where it can't be told."""
    files: int
    """How many of its packs and files are there."""
    size_bytes: int
    used_at: datetime
    """When a load last asked for one of them, in UTC."""


@dataclass(frozen=True, init=False)
class Cache:
    """A folder of this machine that keeps copies of the packs that were loaded from elsewhere.

    Creates nothing before something is loaded. Any number of stores and processes of one user can
    share it.

    Args:
        folder: Where (``~`` is expanded); best on a disk of this machine, or nothing can be mapped.
        max_bytes: How large all copies together may get. What was not used for longest makes room.

    Raises:
        ArgumentError: *folder* is no path, or *max_bytes* no positive number.
    """

    folder: str
    max_bytes: int

    def __init__(self, folder: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> None:
        given: object = folder
        text: object = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
        if not isinstance(text, str) or not text.strip() or "\0" in text or "://" in text:
            raise ArgumentError(
                f"cache={folder!r:.80}: a cache is a folder of this machine: give its path"
            )
        if type(max_bytes) is not int or max_bytes <= 0:
            raise ArgumentError(
                f"max_bytes={max_bytes!r:.80}: give a whole number of bytes above 0"
            )
        path = os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - Path's raises where there is no user, and leaves ".." in
        object.__setattr__(self, "folder", path)
        object.__setattr__(self, "max_bytes", max_bytes)

    def stores(self) -> list[CachedStore]:
        """Return what the cache has of each store, by address.

        Raises:
            StorageError: The folder can't be read, or is not this user's own.
        """
        found: dict[Path, list[CachedFile]] = {}
        with translated("list", self.root):
            for file in self.files():
                if file.lock is None:
                    found.setdefault(file.path.parent, []).append(file)
            stores = [
                CachedStore(
                    _address(place),
                    len(files),
                    sum(file.size_bytes for file in files),
                    datetime.fromtimestamp(max(file.used_s for file in files), UTC),
                )
                for place, files in found.items()
            ]
        return sorted(stores)

    def clear(self) -> int:
        """Delete all copies. What a process has mapped or open stays there for it.

        Returns:
            How many bytes the copies had.

        Raises:
            StorageError: Something can't be deleted, or the folder is not this user's own.
        """
        cleared = 0
        with translated("clear", self.root, FileNotFoundError):
            for file in list(self.files()):
                cleared += _remove(file)
            for place in self._places():
                # Somebody may put a copy there this very moment: then the folder stays.
                with suppress(OSError):
                    (place / ADDRESS).unlink()
                    place.rmdir()
        return cleared

    # ------------------------------------------------------------ how

    @property
    def root(self) -> Path:
        """The folder that has the folders of all stores."""
        return Path(self.folder, LAYOUT)

    def place_of(self, url: str, service: str = "") -> Path:
        """Return the folder that has the copies of one store.

        Args:
            url: The store's address.
            service: Which of several services it is on, as :func:`.service.service_of` says.
        """
        named = f"{url}\0{service}" if service else url
        return self.root / blake3(named.encode()).hexdigest()[:32]

    def make(self, url: str, service: str = "") -> Path:
        """Make the folder of one store, which nobody else can enter, and return it.

        Raises:
            StorageError: What is there is not this user's own.
            OSError: It could not be made.
        """
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        make_private_folder(self.root)
        place = self.place_of(url, service)
        make_private_folder(place)
        _write_once(self.root / _TAG, _TAG_TEXT)
        _write_once(place / ADDRESS, url.encode())
        return place

    def files(self) -> Iterator[CachedFile]:
        """Yield every file of every store; nothing if there is no cache.

        Raises:
            StorageError: The folder is not this user's own.
            OSError: It can't be read.
        """
        for place in self._places():
            with suppress(FileNotFoundError), os.scandir(place) as entries:
                for entry in entries:
                    match = _NAME.fullmatch(entry.name)
                    if match is None or not match["copy"]:
                        continue
                    try:
                        about = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # it was renamed or made room meanwhile
                    if stat.S_ISDIR(about.st_mode):
                        continue
                    lock = None if match["rest"] is None else place / (match["copy"] + LOCK)
                    path = place / entry.name
                    yield CachedFile(path, about.st_size, about.st_mtime, lock)

    def _places(self) -> list[Path]:
        try:
            check_private_folder(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        with os.scandir(self.root) as entries:
            return [
                self.root / entry.name
                for entry in entries
                if _PLACE.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]


def remove_abandoned(file: CachedFile) -> bool:
    """Remove what a process that was killed left of a copy; say whether nobody was at work on it.

    Raises:
        OSError: It can't be removed.
    """
    if file.lock is None:
        return False
    lock = try_lock(file.lock)
    if lock is None:
        return False
    try:
        if not file.is_lock:
            file.path.unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def _remove(file: CachedFile) -> int:
    if file.lock is None:
        file.path.unlink(missing_ok=True)
        return file.size_bytes
    remove_abandoned(file)
    return 0


def _write_once(path: Path, data: bytes) -> None:
    """Write a small file unless it is there. Nothing relies on it."""
    with suppress(FileExistsError), path.open("xb") as file:
        file.write(data)


def _address(place: Path) -> str:
    fd = open_private(place / ADDRESS)
    if fd is None:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(_MOST_ADDRESS_BYTES).decode("utf-8", "replace")
