"""Turn what goes wrong below into one of our errors, with the cause and a way out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptstore.errors import ArgumentError, CkptStoreError, DurabilityError, StorageError

_NO_ROOM = "free some room; what was saved before is intact"
_NO_PERMISSION = "let this user read and write there, or name another place"
_ADVICE: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _NO_ROOM),
    errno.EDQUOT: ("the disk quota is used up", _NO_ROOM),
    errno.EFBIG: ("the file is larger than this filesystem takes", "name another place"),
    errno.EACCES: ("permission denied", _NO_PERMISSION),
    errno.EPERM: ("operation not permitted", _NO_PERMISSION),
    errno.EROFS: ("the filesystem is read-only", "name a place that can be written"),
    errno.EIO: ("the device failed", "check the disk (the system's log has more)"),
    errno.ESTALE: ("the network filesystem lost the file", "mount it again, then try again"),
    errno.EMFILE: ("too many files are open", "raise the limit ('ulimit -n')"),
    errno.ENFILE: ("too many files are open on this machine", "close some, then try again"),
    errno.ENAMETOOLONG: ("the path is too long", "choose a shorter root or run name"),
    errno.ELOOP: ("a symbolic link leads back to itself", "mend the link"),
    errno.ENOTDIR: ("part of the path is a file", "name a folder"),
    errno.ENOENT: ("a folder of the path went away", "see who removes it, then try again"),
    errno.ETIMEDOUT: ("no answer in time", "check the network, then try again"),
}


def storage_error(doing: str, where: str | os.PathLike[str], error: OSError) -> StorageError:
    """Say what failed, where, why, and what to do.

    Args:
        doing: The work that failed, as in "cannot *write*".
        where: A path or address without credentials.
        error: What the system said.

    Returns:
        A StorageError with the ``errno`` of *error*.
    """
    said = error.strerror or str(error) or type(error).__name__
    cause, advice = _ADVICE.get(
        error.errno or 0, (said, "see what the system says, then try again")
    )
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    failure = StorageError(f"cannot {doing} {where}: {cause} ({name}); {advice}")
    failure.errno = error.errno
    return failure


# EDQUOT is not everywhere: Windows has no quotas of that kind.
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def is_full(error: OSError) -> bool:
    """Say whether there was no room: the disk or bucket is full, or a quota is used up."""
    return error.errno in _FULL


def durability_error(where: str | os.PathLike[str], error: OSError) -> DurabilityError:
    """Say that an fsync failed. Never try again: a second one may succeed with the data lost."""
    said = error.strerror or str(error) or type(error).__name__
    failure = DurabilityError(
        f"cannot make {where} durable: fsync failed ({said}); what was written may not survive a "
        "power loss, so this save does not count: check the disk, then save again"
    )
    failure.errno = error.errno
    return failure


def not_found(where: str | os.PathLike[str]) -> FileNotFoundError:
    """Say that an object is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(where))


def check_key(key: str) -> str:
    """Return *key*, or refuse it: the last guard between a made-up name and a path.

    Raises:
        ArgumentError: *key* could lead out of the root.
    """
    segments = key.split("/") if key else []
    if any(part in {"", ".", ".."} for part in segments) or any(c in key for c in "\\\0"):
        raise ArgumentError(
            f"{key!r} is no key of a storage: expected '/'-separated names below the root"
        )
    return key


def check_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys of objects, each once, or refuse them all.

    Raises:
        ArgumentError: One is no key, or is the root's.
    """
    if "" in (checked := [check_key(key) for key in keys]):
        raise ArgumentError("'' is the root of the storage, and no object")
    return list(dict.fromkeys(checked))


def no_leftover(key: str) -> ArgumentError:
    """Say that something is not what an interrupted write leaves in this kind of storage."""
    return ArgumentError(
        f"{key!r} is nothing that an interrupted write leaves there: expected what leftovers() "
        "yields; remove objects with delete()"
    )


@contextmanager
def translated(doing: str, path: Path, passing: type[OSError] = FileExistsError) -> Iterator[None]:
    """Turn the system's errors into a StorageError, all but the one that callers tell apart."""
    try:
        yield
    except (CkptStoreError, passing):
        raise
    except OSError as error:
        raise storage_error(doing, path, error) from error
