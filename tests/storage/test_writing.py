"""One small file of a user's own choosing, anywhere."""

from __future__ import annotations

import errno
import os

import pytest

from ckptstore.errors import ArgumentError, StorageError
from ckptstore.storage.opening import open_storage
from ckptstore.storage.writing import write_file


def test_a_file_is_written_and_replaced_on_every_storage(store_url):
    write_file(f"{store_url}/below/metadata.json", b"first")
    write_file(f"{store_url}/below/metadata.json", b"second")

    storage = open_storage(store_url)
    assert storage.read("below/metadata.json") == b"second"
    assert storage.list_folder("below").files == ("metadata.json",)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    write_file(tmp_path / "x", b"old")

    def full(_fd, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="disk is full"):
        write_file(tmp_path / "x", b"new")

    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]  # noqa: PTH208 - as for any string


def test_options_reach_the_storage(s3_url, storage_options, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ENDPOINT_URL")

    write_file(f"{s3_url}/x", b"data", storage_options=storage_options)

    assert open_storage(s3_url, storage_options).read("x") == b"data"


@pytest.mark.parametrize("url", ["folder/", "/", "s3://bucket/x/", "memory://"])
def test_a_folder_is_no_file(url):
    with pytest.raises(ArgumentError, match="names a folder"):
        write_file(url, b"")


@pytest.mark.usefixtures("memory_url")
def test_a_file_at_the_top_of_memory_is_written(memory_url):
    name = "memory://" + memory_url.removeprefix("memory://").partition("/")[0]
    write_file(name, b"x")

    assert open_storage("memory://").read(name.removeprefix("memory://")) == b"x"
