"""Say what kind of filesystem a file lies on."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Kinds whose mapped pages cannot be taken away by another machine or by a crashed server process.
_LOCAL = frozenset(
    {
        "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660",
        "jfs", "nilfs2", "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs",
        "ubifs", "udf", "vfat", "xfs", "zfs",
    }
)  # fmt: skip

MOUNTINFO = Path("/proc/self/mountinfo")


class Mount(NamedTuple):
    """One line of ``mountinfo``."""

    device: str
    """``major:minor``."""
    point: str
    """Where it is mounted."""
    kind: str
    """The kind of filesystem, e.g. ``ext4``."""


def read_mounts(text: str) -> Iterator[Mount]:
    """Parse ``/proc/self/mountinfo``, whose format is in proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if dash and len(fields) > 4 and after.split():  # noqa: PLR2004 - the mount point is the fifth
            yield Mount(fields[2], _unescape(fields[4]), after.split()[0])


def filesystem_kind(path: str, device: int, mounts: list[Mount]) -> str | None:
    """Return the kind of filesystem that *path* is on, or None where nothing tells.

    Args:
        path: A path without symbolic links.
        device: Its ``st_dev``.
        mounts: What is mounted.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = {mount.kind for mount in mounts if mount.device == number}
    if len(kinds) == 1:
        return kinds.pop()
    # Subvolumes of btrfs and files of overlay have device numbers that stand in no list. Among
    # mounts on one point the last one covers the others.
    best = Mount("", "", "")
    for mount in mounts:
        if _lies_below(path, mount.point) and len(mount.point) >= len(best.point):
            best = mount
    return best.kind or None


def is_on_local_disk(fd: int, path: Path) -> bool:
    """Say whether an open file is known to be on a filesystem of this machine."""
    return _is_local(path, os.fstat(fd))


def is_folder_on_local_disk(folder: str) -> bool:
    """Say whether a folder is known to be on a filesystem of this machine, or would be if made."""
    path = Path(folder)
    for each in (path, *path.parents):
        with suppress(OSError):
            return _is_local(each, each.stat())
    return False


def _is_local(path: Path, found: os.stat_result) -> bool:
    if sys.platform != "linux":
        return False
    try:
        mounts = list(read_mounts(MOUNTINFO.read_text("utf-8", "surrogateescape")))
    except OSError:
        return False
    return filesystem_kind(os.path.realpath(path), found.st_dev, mounts) in _LOCAL


def _lies_below(path: str, point: str) -> bool:
    return point in {"/", path} or path.startswith(point + "/")


def _unescape(text: str) -> str:
    r"""Undo ``\040`` and the like: how mountinfo writes spaces, tabs, newlines and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
