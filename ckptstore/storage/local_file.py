"""Read an open file of this machine: a stretch of it into memory, or all of it mapped."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from ckptstore.storage.mounts import is_on_local_disk


def read_file_into(fd: int, start: int, out: memoryview) -> int:
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


def map_privately(fd: int, path: Path) -> mmap.mmap | None:
    """Map a file, or return None where its filesystem is not known to be local.

    Private: what a caller writes to a mapped tensor never reaches the file.
    """
    if not os.fstat(fd).st_size or not is_on_local_disk(fd, path):
        return None
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        if error.errno == errno.ENODEV:  # a filesystem without mapping
            return None
        raise
