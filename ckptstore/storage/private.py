"""Files and folders that nobody but this user can have put there or can change.

What was compared with its digest must stay as it was, also while it is mapped; and what a bucket
gives to one user is not for the others of a machine. So nothing is used that belongs to another
user, that others can write to, or that a symbolic link leads to.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ckptstore.errors import StorageError

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Flags for :func:`os.open` with which a symbolic link is an error."""


def make_private_folder(path: Path) -> None:
    """Make a folder for this user alone, if it is not there, below one that is.

    Raises:
        StorageError: What is there is no such folder.
        OSError: It could not be made.
    """
    with suppress(FileExistsError):
        path.mkdir(FOLDER_MODE)
    check_private_folder(path)


def check_private_folder(path: Path) -> None:
    """Refuse what is not this user's own folder.

    Raises:
        FileNotFoundError: There is nothing.
        StorageError: It is a link or a file, or others own it or can write to it.
    """
    found = path.lstat()
    reason = None if stat.S_ISDIR(found.st_mode) else "it is no folder"
    reason = reason or _reason(found)
    if reason is not None:
        failure = StorageError(
            f"{path} is not used, as {reason}: expected a folder that belongs to this user and "
            "that nobody else can write to; remove it, or name another folder"
        )
        failure.errno = errno.EPERM
        raise failure


def open_private(path: Path) -> int | None:
    """Open a file for reading if it is this user's own; None where there is no such file.

    Raises:
        OSError: It could not be opened.
    """
    try:
        # A pipe would keep whoever opens it waiting for somebody to write.
        fd = os.open(path, os.O_RDONLY | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK}:  # a symbolic link; EMLINK on FreeBSD
            return None
        raise
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and _reason(found) is None:
        return fd
    os.close(fd)
    return None


def _reason(found: os.stat_result) -> str | None:
    """Say why a file or folder is not this user's own, or None if it is."""
    if not hasattr(os, "geteuid"):  # Windows, where a user's own folders are closed to others
        return None
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}, and this process is user {os.geteuid()}"
    if found.st_mode & _WRITABLE_BY_OTHERS:
        return f"others can write to it (mode {stat.S_IMODE(found.st_mode):04o})"
    return None
