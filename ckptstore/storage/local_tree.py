"""What lies below a folder, all of it: looked through, and removed."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from ckptstore.errors import DurabilityError, StorageError
from ckptstore.storage import durable
from ckptstore.storage.base import Leftover, Stored
from ckptstore.storage.failures import storage_error, translated
from ckptstore.storage.times import EPOCH


def written_at(info: os.stat_result) -> datetime:
    """Return when a file was last written, linked or copied, in UTC.

    That is its ctime, which no program can set: a copying tool that carries mtimes over does not
    make a file look older than it is here.
    """
    return EPOCH + timedelta(microseconds=info.st_ctime_ns // 1000)


def walk(path: Path, folder: str) -> Iterator[Stored]:
    """Yield every object below *path*, whose key is *folder*, sorted by name in each folder.

    Raises:
        StorageError: Some of it could not be looked at.
    """
    for key, info in _files(path, folder):
        if not durable.is_temporary(key.rpartition("/")[2]):
            yield Stored(key, info.st_size, written_at(info))


def leftovers(root: Path) -> Iterator[Leftover]:
    """Yield every temporary file below *root*; those that are an object by another name say so.

    Raises:
        StorageError: Some of it could not be looked at.
    """
    for key, info in _files(root, ""):
        folder, _, name = key.rpartition("/")
        if durable.is_temporary(name):
            twin = _twin(root.joinpath(*key.split("/")), info)
            where = None if twin is None else f"{folder}/{twin}".lstrip("/")
            yield Leftover(key, None, info.st_size, written_at(info), where)


def delete(root: Path, keys: Sequence[str]) -> dict[str, StorageError]:
    """Remove files, and make that durable once for each folder.

    A folder that is a symbolic link is not entered: what lies behind it may be in use under
    another name.

    Returns:
        What could not be removed, and what may come back after a power loss, by key.
    """
    failed: dict[str, StorageError] = {}
    removed: dict[Path, list[str]] = defaultdict(list)
    links: dict[Path, Path | None] = {}
    for key in keys:
        path = root.joinpath(*key.split("/"))
        folder = path.parent
        try:
            if folder not in links:
                links[folder] = _link_above(root, folder)
            if link := links[folder]:
                failed[key] = _behind_a_link(path, link)
                continue
            path.unlink()
            removed[folder].append(key)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failed[key] = storage_error("delete", path, error)
    for folder, gone in removed.items():
        try:
            durable.sync_folder(folder)
        except DurabilityError as error:
            if error.errno != errno.ENOENT:  # a folder that is gone holds nothing that comes back
                failed |= dict.fromkeys(gone, _not_durable(folder, len(gone), error))
    return failed


def clear(root: Path, key: str) -> None:
    """Remove a temporary file, if it is there.

    Not durably: what comes back after a power loss is a leftover again.

    Raises:
        StorageError: It could not be removed.
    """
    path = root.joinpath(*key.split("/"))
    with translated("delete", path):
        if link := _link_above(root, path.parent):
            raise _behind_a_link(path, link)
        path.unlink(missing_ok=True)


def _twin(path: Path, info: os.stat_result) -> str | None:
    """Return the name of the object that a temporary file is: linked by a process that died then.

    The second name takes no room. To remove it would set the ctime of both, and a retirement that
    was written a week ago would seem to be of now: what is deletable could be undeleted.
    """
    if info.st_nlink < 2:  # noqa: PLR2004 - one name and another
        return None
    others = (
        entry.name
        for entry in _scan(path.parent)
        if entry.inode() == info.st_ino and not durable.is_temporary(entry.name)
    )
    return next(others, None)


def _files(path: Path, key: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield key and status of every file below a folder, temporary ones too.

    Links to folders are followed, as they are by reading: a listing without what is behind them
    would be short.
    """
    for entry in _scan(path):
        below = f"{key}/{entry.name}" if key else entry.name
        with translated("look at", Path(entry.path)):
            is_folder = entry.is_dir()
            info = None if is_folder else _status(entry)
        if is_folder:
            yield from _files(Path(entry.path), below)
        elif info is not None:
            yield below, info


def _scan(path: Path) -> list[os.DirEntry[str]]:
    """Return what is directly in a folder; nothing if it is gone.

    It is read to its end before anything else is done, so that a walk holds no folder open.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError) as error:
        with translated("look at", path):
            if _has_nothing(path):
                return []
        raise storage_error("list", path, error) from error
    except OSError as error:
        raise storage_error("list", path, error) from error


def _has_nothing(path: Path) -> bool:
    """Say whether a folder that could not be opened is really gone.

    A link to nothing is not: the disk that it led to may be back in a minute.
    """
    for each in (path, *path.parents):
        try:
            mode = each.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISLNK(mode):
            return each != path and each.exists()
        return each != path or stat.S_ISREG(mode)
    return True


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return a file's status, that of the link where it leads to nothing, None if it is gone."""
    for follow in (True, False):
        try:
            return entry.stat(follow_symlinks=follow)
        except FileNotFoundError:
            continue
    return None


def _link_above(root: Path, folder: Path) -> Path | None:
    """Return the first folder between the root and a file that is a link, None if there is none."""
    between = [each for each in (folder, *folder.parents) if each.is_relative_to(root)]
    return next((each for each in reversed(between) if each != root and each.is_symlink()), None)


def _behind_a_link(path: Path, link: Path) -> StorageError:
    failure = StorageError(
        f"cannot delete {path}: {link} is a symbolic link, and what lies behind it may be in use "
        "under another name; put the folder itself there, or remove the file by hand"
    )
    failure.errno = errno.ELOOP
    return failure


def _not_durable(folder: Path, count: int, error: DurabilityError) -> StorageError:
    failure = StorageError(
        f"cannot make the removal of {count} files from {folder} durable: fsync failed "
        f"({os.strerror(error.errno or errno.EIO)}), so they may come back after a power loss; "
        "check the disk, then clean up again"
    )
    failure.errno = error.errno
    return failure
