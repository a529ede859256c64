from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptstore.errors import StorageError
from ckptstore.storage.private import check_private_folder, make_private_folder, open_private


def test_a_folder_is_made_for_this_user_alone(tmp_path):
    os.umask(os.umask(0o022))
    make_private_folder(tmp_path / "mine")
    make_private_folder(tmp_path / "mine")

    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_there_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_private_folder(tmp_path / "none")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path, mode):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)

    with pytest.raises(StorageError, match=f"others can write to it \\(mode {mode:04o}\\)"):
        make_private_folder(tmp_path / "open")


def test_a_link_to_a_folder_of_this_user_is_refused(tmp_path):
    make_private_folder(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")

    with pytest.raises(StorageError, match="it is no folder"):
        make_private_folder(tmp_path / "link")


def test_what_belongs_to_another_user_is_not_used(tmp_path, monkeypatch):
    make_private_folder(tmp_path / "theirs")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(StorageError, match=r"belongs to user .*, and this process is user 4711"):
        check_private_folder(tmp_path / "theirs")
    assert open_private(tmp_path / "file") is None


def test_a_file_of_this_user_is_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0o600)

    fd = open_private(tmp_path / "file")

    assert fd is not None
    assert os.read(fd, 2) == b"x"
    os.close(fd)


def test_links_folders_and_what_others_can_write_to_are_no_private_files(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir(0o700)
    (tmp_path / "open").write_bytes(b"x")
    (tmp_path / "open").chmod(0o620)

    for name in ("link", "folder", "open", "none", "file/below"):
        assert open_private(tmp_path / name) is None


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(OSError, match="too long"):
        open_private(tmp_path / ("x" * 300))


def test_a_pipe_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)

    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_private, tmp_path / "pipe")
        try:
            assert opened.result(timeout=20) is None
        finally:
            if not opened.done():
                os.close(os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))
