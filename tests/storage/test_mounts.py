"""Which filesystem a file is on, from what the kernel says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptstore.storage import mounts
from ckptstore.storage.mounts import (
    Mount,
    filesystem_kind,
    is_folder_on_local_disk,
    is_on_local_disk,
    read_mounts,
)

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:25 / /data rw - nfs4 server:/export rw
31 30 0:26 / /data/scratch rw shared:1 master:2 - xfs /dev/vdb rw
32 22 0:27 /sub /home/with\040space rw - btrfs /dev/vdc rw
33 22 0:28 / /over rw - tmpfs tmpfs rw
34 22 0:29 / /over rw - fuse.sshfs host:/ rw
this line is broken
"""


def kind(path: str, device: tuple[int, int] = (9, 9)) -> str | None:
    return filesystem_kind(path, os.makedev(*device), list(read_mounts(MOUNTINFO)))


def test_a_device_in_the_list_decides():
    assert kind("/anything", (0, 25)) == "nfs4"
    assert kind("/data/x", (254, 0)) == "ext4"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/x", "ext4"),
        ("/data", "nfs4"),
        ("/data/x", "nfs4"),
        ("/database", "ext4"),
        ("/data/scratch/x", "xfs"),
        ("/home/with space/x", "btrfs"),
        ("/over/x", "fuse.sshfs"),
    ],
)
def test_else_the_mount_nearest_above_decides(path, expected):
    assert kind(path) == expected


def test_nothing_mounted_is_nothing_known():
    assert filesystem_kind("/x", os.makedev(9, 9), []) is None


@pytest.mark.parametrize(
    ("found", "local"),
    [
        ("ext4", True), ("xfs", True), ("tmpfs", True), ("overlay", True), ("zfs", True),
        ("nfs", False), ("nfs4", False), ("cifs", False), ("smb3", False), ("9p", False),
        ("fuse.sshfs", False), ("fuse", False), ("lustre", False), ("virtiofs", False),
    ],
)  # fmt: skip
def test_only_known_kinds_are_local(tmp_path, monkeypatch, found, local):
    file = tmp_path / "x"
    file.write_bytes(b"x")
    device = file.stat().st_dev
    listed = tmp_path / "mountinfo"
    number = f"{os.major(device)}:{os.minor(device)}"
    listed.write_text(f"22 1 {number} / / rw - {found} what rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", listed)

    with file.open("rb") as opened:
        assert is_on_local_disk(opened.fileno(), file) is local
    assert is_folder_on_local_disk(str(tmp_path)) is local
    assert is_folder_on_local_disk(str(tmp_path / "to" / "be" / "made")) is local


def test_a_system_that_does_not_tell_is_not_trusted(tmp_path, monkeypatch):
    file = tmp_path / "x"
    file.write_bytes(b"x")
    with file.open("rb") as opened:
        monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "missing")
        assert not is_on_local_disk(opened.fileno(), file)
        assert not is_folder_on_local_disk(str(tmp_path))

        monkeypatch.setattr("sys.platform", "darwin")
        assert not is_on_local_disk(opened.fileno(), file)


def test_a_line_gives_device_point_and_kind():
    assert next(read_mounts(MOUNTINFO)) == Mount("254:0", "/", "ext4")
    assert len(list(read_mounts(MOUNTINFO))) == 6


def test_this_machine_says_something():
    assert Path("/proc/self/mountinfo") == mounts.MOUNTINFO
    assert list(read_mounts(mounts.MOUNTINFO.read_text()))
