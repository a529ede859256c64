"""A store in a folder of this machine."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ckptstore.errors import DurabilityError, StorageError
from ckptstore.storage import durable, local_tree
from ckptstore.storage.base import Leftover, Listing, Stored
from ckptstore.storage.failures import (
    check_key,
    check_keys,
    no_leftover,
    not_found,
    storage_error,
    translated,
)
from ckptstore.storage.local_file import map_privately, read_file_into
from ckptstore.storage.local_writer import LocalWriter
from ckptstore.storage.publishing import Publishing, TemporaryFile, create_in_place


class LocalStorage:
    """A store in a folder.

    Every object appears whole and durable: a temporary file beside it, write, fsync, hard link,
    fsync of the folder. Where there are no hard links it is renamed without replacing, and where
    there is no such renaming either it is written in place (see ``in_place``).

    Args:
        root: The folder. It need not be there; reading never creates it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        # abspath takes ".." out, which Path.absolute leaves in.
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - see above
        self.local_folder: str | None = str(self._root)
        self.url = str(self._root)
        self.exclusive = True
        self.in_place = False
        self._publishing: Publishing | None = None
        # Folders whose own names this process has made durable. That a folder is there says
        # nothing: the process that made it may not have synced its parent yet.
        self._synced: set[Path] = set()
        # Folders that could not be synced. A name in doubt is made sure before another comes after
        # it: or a power loss might leave version 2 without version 1, which is damage.
        self._in_doubt: set[Path] = set()

    def __repr__(self) -> str:
        return f"LocalStorage({self.url!r})"

    # ------------------------------------------------------------------------------------ reading

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with self._opened(key) as fd:
            return _read(fd, os.fstat(fd).st_size, self._path(key))

    def read_start(self, key: str, length: int) -> bytes:
        """Return the first *length* bytes of an object, fewer if it is shorter."""
        with self._opened(key) as fd:
            return _read(fd, min(length, os.fstat(fd).st_size), self._path(key))

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
        """Fill *out* with the bytes of an object from *start* on.

        Raises:
            EOFError: The object ends before *out* is full.
        """
        with self._opened(key) as fd:
            # An empty view of anything but bytes cannot be cast.
            read = read_file_into(fd, start, out.cast("B")) if out.nbytes else 0
        if read < out.nbytes:
            raise EOFError(
                f"{self._path(key)} ends at byte {start + read}: "
                f"{out.nbytes} bytes from byte {start} were expected"
            )

    def size_bytes(self, key: str) -> int:
        """Return an object's size."""
        with self._opened(key) as fd:
            return os.fstat(fd).st_size

    def list_folder(self, key: str) -> Listing:
        """List what lies directly below *key*; unfinished files are left out."""
        path = self._path(key)
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if not durable.is_temporary(entry.name):
                        (folders if entry.is_dir() else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return Listing((), ())
        except OSError as error:
            raise storage_error("list", path, error) from error
        return Listing(tuple(sorted(folders)), tuple(sorted(files)))

    def walk(self, folder: str) -> Iterator[Stored]:
        """Yield every object below *folder*, freshly; unfinished files are left out."""
        path = self._path(folder)
        self._check_root()
        return local_tree.walk(path, folder)

    def written_at(self, key: str) -> datetime:
        """Return an object's ctime."""
        with self._opened(key) as fd:
            return local_tree.written_at(os.fstat(fd))

    def leftovers(self) -> Iterator[Leftover]:
        """Yield every temporary file."""
        self._check_root()
        return local_tree.leftovers(self._root)

    def map(self, key: str) -> mmap.mmap | None:
        """Map an object privately, or return None where its filesystem is not known to be local."""
        with self._opened(key) as fd:
            return map_privately(fd, self._path(key))

    # ----------------------------------------------------------------------------------- removing

    def delete(self, keys: Sequence[str]) -> Mapping[str, StorageError]:
        """Remove objects durably. Return what could not be removed, by key."""
        return local_tree.delete(self._root, check_keys(keys))

    def clear(self, leftover: Leftover) -> None:
        """Remove a temporary file; nothing happens if it is gone already."""
        path = self._path(leftover.key)
        if leftover.upload is not None or not durable.is_temporary(path.name):
            raise no_leftover(leftover.key)
        local_tree.clear(self._root, leftover.key)

    # ------------------------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Make the root and try, on names nobody uses, how its filesystem lets a file be named."""
        self._make_folders(self._root)
        with translated("write to", self._root), TemporaryFile(self._root) as temporary:
            self._settle(temporary)

    def create(self, key: str, data: bytes) -> None:
        """Create an object whole, durably, and only if there is none.

        Raises:
            FileExistsError: There is one already.
            DurabilityError: An fsync failed; never retried, and the object may be there.
            StorageError: Anything else.
        """
        path = self._path(key)
        folder = path.parent
        self._make_folders(folder)
        with translated("create", path), TemporaryFile(folder) as temporary:
            temporary.write(data)
            if folder in self._in_doubt:
                durable.sync_folder(folder)
                self._in_doubt.discard(folder)
            if not temporary.publish(path, self._settle(temporary)):
                create_in_place(path, data)
        try:
            durable.sync_folder(folder)
        except DurabilityError:
            self._in_doubt.add(folder)
            raise

    def _settle(self, temporary: TemporaryFile) -> Publishing:
        if self._publishing is None:
            self._publishing = temporary.probe()
            self.in_place = self._publishing is Publishing.IN_PLACE
        return self._publishing

    def replace(self, key: str, data: bytes) -> None:
        """Write a file over what is there. For users' own files: nothing in a store is replaced."""
        path = self._path(key)
        folder = path.parent
        self._make_folders(folder)
        with translated("write", path), TemporaryFile(folder) as temporary:
            temporary.write(data)
            temporary.replace(path)
        durable.sync_folder(folder)

    def open_writer(self, key: str) -> LocalWriter:
        """Start writing a large object under its final name, which nobody else uses."""
        path = self._path(key)
        self._make_folders(path.parent)
        return LocalWriter(path)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    # ------------------------------------------------------------------------------------ folders

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*check_key(key).split("/"))

    def _check_root(self) -> None:
        """Refuse a root that is something else than a folder.

        Raises:
            StorageError: It is a file, or a link to nothing.
        """
        root = self._root
        with translated("look at", root):
            try:
                root.lstat()
            except (FileNotFoundError, NotADirectoryError):
                # Not there; but is it below a file?
                above = next((parent for parent in root.parents if parent.exists()), None)
                if above is None or above.is_dir():
                    return
                raise self._no_folder(f"{above} is a file") from None
            if root.is_dir():
                return
            found = "a file" if root.exists() else "a link to nothing"
            raise self._no_folder(f"it is {found}")

    def _no_folder(self, found: str) -> StorageError:
        failure = StorageError(
            f"{self._root} cannot hold a store: expected a folder or nothing, but {found}; "
            "name another folder"
        )
        failure.errno = errno.ENOTDIR
        return failure

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        """Open an object for reading.

        Raises:
            FileNotFoundError: There is no such object.
            StorageError: It could not be opened or read.
        """
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            raise not_found(path) from None
        except OSError as error:
            raise storage_error("open", path, error) from error
        try:
            with translated("read", path, FileNotFoundError):
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    raise not_found(path)
                yield fd
        finally:
            with suppress(OSError):  # it was only read from
                os.close(fd)

    def _make_folders(self, folder: Path) -> None:
        """Make *folder* and those above it, each with a durable name.

        Raises:
            DurabilityError: An fsync failed.
            StorageError: A folder could not be made.
        """
        made = _make_missing(folder, self._root)
        if not made and folder in self._synced:  # and then those above it are, too
            return
        ours = {each for each in (folder, *folder.parents) if each.is_relative_to(self._root)}
        # A folder made again after someone removed it is synced again.
        for each in sorted(ours - self._synced | set(made)):
            # The root's parent may be closed to us, which matters only where we made the root.
            durable.sync_folder(each.parent, must_open=each in made or each != self._root)
            self._synced.add(each)


def _make_missing(folder: Path, root: Path) -> list[Path]:
    """Make the folders of a path that are not there, and return their paths."""
    missing = []
    with translated("make folder", folder):
        for path in (folder, *folder.parents):
            if path.is_dir():
                break
            missing.append(path)
    for path in reversed(missing):
        try:
            path.mkdir()
        except FileExistsError as error:
            if not path.is_dir():
                what = "the root" if path == root else "part of the path"
                failure = StorageError(
                    f"cannot make folder {folder}: {path}, {what}, is no folder; name another one"
                )
                failure.errno = errno.ENOTDIR
                raise failure from error
        except OSError as error:
            raise storage_error("make folder", path, error) from error
    return missing


def _read(fd: int, length: int, path: Path) -> bytes:
    """Read a file's first bytes.

    Raises:
        StorageError: Fewer came than it is long: no object is ever made shorter, so this is the
            filesystem's failure and says nothing about the object.
    """
    out = bytearray(length)
    with memoryview(out) as view:
        read = read_file_into(fd, 0, view)
    if read < length:
        raise StorageError(
            f"cannot read {path}: {read} bytes came of the {length} that it has; try again"
        )
    return bytes(out)
