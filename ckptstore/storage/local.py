"""A store in a folder of this machine."""

from __future__ import annotations

import enum
import errno
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptstore.errors import CkptStoreError, StorageError
from ckptstore.storage import durable
from ckptstore.storage.base import Listing
from ckptstore.storage.failures import check_key, not_found, storage_error
from ckptstore.storage.mounts import is_on_local_disk

_GATHERED_BYTES = 2**20
"""Writes smaller than this are gathered, so that thousands of small tensors are not as many calls."""


class _Publishing(enum.Enum):
    """How a finished file gets its name, best first."""

    LINK = enum.auto()
    RENAME = enum.auto()
    IN_PLACE = enum.auto()


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
        self._root = Path(os.path.abspath(root))  # noqa: PTH100
        self.local_folder: str | None = str(self._root)
        self.url = str(self._root)
        self.exclusive = True
        self.in_place = False
        self._publishing: _Publishing | None = None
        # Folders whose own names this process has made durable. That a folder is there says nothing:
        # the process that made it may not have synced its parent yet.
        self._synced: set[Path] = set()

    def __repr__(self) -> str:
        return f"LocalStorage({self.url!r})"

    # ------------------------------------------------------------------------------------ reading

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with self._opened(key) as fd:
            return _read(fd, os.fstat(fd).st_size)

    def read_start(self, key: str, length: int) -> bytes:
        """Return the first *length* bytes of an object, fewer if it is shorter."""
        with self._opened(key) as fd:
            return _read(fd, min(length, os.fstat(fd).st_size))

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
            read = _read_into(fd, start, out.cast("B")) if out.nbytes else 0
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

    def map(self, key: str) -> mmap.mmap | None:
        """Map an object privately, or return None where its filesystem is not known to be local."""
        with self._opened(key) as fd:
            if not os.fstat(fd).st_size or not is_on_local_disk(fd, self._path(key)):
                return None
            try:
                # Private: what a caller writes to a mapped tensor never reaches the file.
                return mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
            except OSError as error:
                if error.errno == errno.ENODEV:  # a filesystem without mapping
                    return None
                raise

    # ------------------------------------------------------------------------------------ writing

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
        with _translated("create", path), _TemporaryFile(folder) as temporary:
            temporary.write(data)
            if self._publishing is None:
                self._publishing = temporary.probe()
                self.in_place = self._publishing is _Publishing.IN_PLACE
            if not temporary.publish(path, self._publishing):
                _create_in_place(path, data)
        durable.sync_folder(folder)

    def replace(self, key: str, data: bytes) -> None:
        """Write a file over what is there. For users' own files: nothing in a store is replaced."""
        path = self._path(key)
        folder = path.parent
        self._make_folders(folder)
        with _translated("write", path), _TemporaryFile(folder) as temporary:
            temporary.write(data)
            temporary.replace(path)
        durable.sync_folder(folder)

    def open_writer(self, key: str) -> _LocalWriter:
        """Start writing a large object under its final name, which nobody else uses."""
        path = self._path(key)
        self._make_folders(path.parent)
        return _LocalWriter(path)

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
        try:
            root.lstat()
        except (FileNotFoundError, NotADirectoryError):
            # Not there; but is it below a file?
            above = next((parent for parent in root.parents if parent.exists()), None)
            if above is None or above.is_dir():
                return
            raise self._no_folder(f"{above} is a file") from None
        except OSError as error:
            raise storage_error("look at", root, error) from error
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
            with _translated("read", path, FileNotFoundError):
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    raise not_found(path)
                yield fd
        finally:
            os.close(fd)

    def _make_folders(self, folder: Path) -> None:
        """Make *folder* and those above it, each with a durable name.

        Raises:
            DurabilityError: An fsync failed.
            StorageError: A folder could not be made.
        """
        made = _make_missing(folder, self._root)
        ours = {each for each in (folder, *folder.parents) if each.is_relative_to(self._root)}
        # A folder made again after someone removed it is synced again.
        for each in sorted(ours - self._synced | set(made)):
            # The root's parent may be closed to us, which matters only where we made the root.
            durable.sync_folder(each.parent, must_open=each in made or each != self._root)
            self._synced.add(each)


class _TemporaryFile:
    """An unfinished file beside its final place, gone when the block is left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = self._another_path()
        self._fd = os.open(self._path, durable.NEW_FILE, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        # What cannot be removed is a stray file nobody reads; it must not hide how creation ended.
        with suppress(OSError):
            self._path.unlink()

    def write(self, data: bytes) -> None:
        """Write and fsync the whole content."""
        durable.write_all(self._fd, memoryview(data))
        durable.sync_file(self._fd, self._path)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def probe(self) -> _Publishing:
        """Find by trying, on names nobody uses, how this filesystem lets a file be published."""
        other = self._another_path()
        if durable.link(self._path, other):
            other.unlink()
            return _Publishing.LINK
        if durable.rename_without_replacing(self._path, other):
            self._path = other
            return _Publishing.RENAME
        return _Publishing.IN_PLACE

    def publish(self, path: Path, how: _Publishing) -> bool:
        """Give the file its final name, unless something has it.

        Returns:
            False if it has to be written in place.
        """
        if how is _Publishing.LINK:
            if durable.link(self._path, path):
                return True
            how = _Publishing.RENAME
        return how is _Publishing.RENAME and durable.rename_without_replacing(self._path, path)

    def replace(self, path: Path) -> None:
        """Give the file its final name, whatever has it."""
        self._path.replace(path)

    def _another_path(self) -> Path:
        return self._folder / durable.temporary_name()


class _LocalWriter:
    """A large file being written under its final name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._small = bytearray()
        self._written = 0
        self._handed_over = 0
        with _translated("create", path):
            self._fd = os.open(path, durable.NEW_FILE, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with _translated("write", self._path):
                    self._flush()
                    durable.sync_file(self._fd, self._path)
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            self._give_up()
            return
        os.close(self._fd)
        durable.sync_folder(self._path.parent)

    def write(self, data: memoryview) -> None:
        """Append bytes.

        Raises:
            StorageError: They could not be written.
        """
        if not data.nbytes:  # an empty view of anything but bytes cannot be cast
            return
        data = data.cast("B")
        with _translated("write", self._path):
            if data.nbytes >= _GATHERED_BYTES:
                self._flush()
                self._write_out(data)
                return
            self._small += data
            if len(self._small) >= _GATHERED_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._small:
            small, self._small = self._small, bytearray()
            self._write_out(memoryview(small))

    def _write_out(self, data: memoryview) -> None:
        for start in range(0, data.nbytes, durable.WRITE_BACK_BYTES):
            piece = data[start : start + durable.WRITE_BACK_BYTES]
            durable.write_all(self._fd, piece)
            self._written += piece.nbytes
            due = self._written - self._handed_over
            if due >= durable.WRITE_BACK_BYTES:
                durable.start_write_back(self._fd, self._handed_over, due)
                self._handed_over = self._written

    def _give_up(self) -> None:
        with suppress(OSError):
            os.close(self._fd)
        with suppress(OSError):
            self._path.unlink()


def _create_in_place(path: Path, data: bytes) -> None:
    """Write an object straight under its name. A torn one stays: it spends its number."""
    fd = os.open(path, durable.NEW_FILE, 0o666)
    try:
        durable.write_all(fd, memoryview(data))
        durable.sync_file(fd, path)
    finally:
        os.close(fd)


def _make_missing(folder: Path, root: Path) -> list[Path]:
    """Make the folders of a path that are not there, and return their paths."""
    missing = []
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


def _read(fd: int, length: int) -> bytes:
    out = bytearray(length)
    with memoryview(out) as view:
        read = _read_into(fd, 0, view)
    return bytes(out) if read == length else bytes(out[:read])


def _read_into(fd: int, start: int, out: memoryview) -> int:
    """Read until *out* is full or the file ends; return how many bytes came."""
    read = 0
    if not hasattr(os, "preadv"):
        with open(fd, "rb", buffering=0, closefd=False) as file:
            file.seek(start)
            while read < out.nbytes and (got := file.readinto(out[read:])):
                read += got
        return read
    while read < out.nbytes and (got := os.preadv(fd, [out[read:]], start + read)):
        read += got
    return read


@contextmanager
def _translated(doing: str, path: Path, passing: type[OSError] = FileExistsError) -> Iterator[None]:
    """Turn the system's errors into a StorageError, all but the one that callers tell apart."""
    try:
        yield
    except (CkptStoreError, passing):
        raise
    except OSError as error:
        raise storage_error(doing, path, error) from error
