"""The primitives of a local filesystem, and what happens when one of them fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ckptstore.errors import DurabilityError
from ckptstore.storage import durable


def fail_with(code: int):
    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "a").write_bytes(b"a")
    return tmp_path / "a", tmp_path / "b"


def test_everything_is_written_however_little_one_write_takes(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))

    with (tmp_path / "x").open("wb") as file:
        durable.write_all(file.fileno(), memoryview(b"0123456789"))

    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_link_never_replaces(two):
    assert durable.link(*two)
    assert two[1].read_bytes() == b"a"
    other = two[0].with_name("c")
    other.write_bytes(b"c")

    with pytest.raises(FileExistsError):
        durable.link(other, two[1])
    assert two[1].read_bytes() == b"a"


def test_a_link_whose_reply_was_lost_is_ours(two, monkeypatch):
    link = os.link

    def link_and_lose_the_reply(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "sent again by NFS")

    monkeypatch.setattr(os, "link", link_and_lose_the_reply)

    assert durable.link(*two)


@pytest.mark.parametrize("code", ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"])
def test_a_filesystem_without_links_says_so(two, monkeypatch, code):
    monkeypatch.setattr(os, "link", fail_with(getattr(errno, code)))

    assert not durable.link(*two)


def test_any_other_failure_of_a_link_is_raised(two, monkeypatch):
    monkeypatch.setattr(os, "link", fail_with(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        durable.link(*two)


def test_renaming_never_replaces(two):
    assert durable.rename_without_replacing(*two)
    assert two[1].read_bytes() == b"a"
    two[0].write_bytes(b"second")

    with pytest.raises(FileExistsError):
        durable.rename_without_replacing(*two)
    assert two[1].read_bytes() == b"a"


def test_a_system_without_such_a_rename_says_so(two, monkeypatch):
    monkeypatch.setattr(durable, "_libc", lambda: None)

    assert not durable.rename_without_replacing(*two)
    assert two[0].exists()


def test_a_failed_fsync_of_a_file_is_an_error_and_is_not_tried_again(tmp_path, monkeypatch):
    calls = []

    def fsync(fd):
        calls.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with (tmp_path / "x").open("wb") as file, pytest.raises(DurabilityError) as caught:
        durable.sync_file(file.fileno(), tmp_path / "x")

    assert caught.value.errno == errno.EIO
    assert len(calls) == 1


def test_a_failed_fsync_of_a_folder_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))

    with pytest.raises(DurabilityError, match="power loss"):
        durable.sync_folder(tmp_path)


def test_a_filesystem_that_cannot_sync_folders_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail_with(errno.EINVAL))

    durable.sync_folder(tmp_path)


def test_a_folder_that_is_closed_to_us_fails_only_where_it_must_be_synced(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", fail_with(errno.EACCES))

    durable.sync_folder(tmp_path, must_open=False)
    with pytest.raises(DurabilityError):
        durable.sync_folder(tmp_path)


def test_where_write_back_is_not_offered_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "_libc", lambda: None)
    durable._sync_file_range.cache_clear()
    try:
        with (tmp_path / "x").open("wb") as file:
            durable.start_write_back(file.fileno(), 0, 1)
    finally:
        durable._sync_file_range.cache_clear()


def test_temporary_names_differ_and_are_known_again():
    names = {durable.temporary_name() for _ in range(100)}

    assert len(names) == 100
    assert all(map(durable.is_temporary, names))
    others = ("00000001.jsonl", ".tmp-", ".tmp-precious.csv", ".tmp-0123456789ABCDEF", "tmp-mine")
    assert not any(map(durable.is_temporary, others))
