"""From the addresses people write to storages; nothing is touched, nothing secret repeated."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ckptstore.errors import ArgumentError, MissingPackageError
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.opening import Address, open_storage, parse
from ckptstore.storage.remote import RemoteStorage
from ckptstore.storage.s3 import S3Storage


def test_a_path_becomes_an_absolute_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")

    assert parse("checkpoints") == Address("file", str(tmp_path / "checkpoints"))
    assert parse("./a/../b/") == Address("file", str(tmp_path / "b"))
    assert parse(Path("a")) == Address("file", str(tmp_path / "a"))
    assert parse("~/checkpoints") == Address("file", "/home/someone/checkpoints")
    assert parse("/data/a::b") == Address("file", "/data/a::b")
    assert parse(tmp_path / "s3:" / "x").protocol == "file"


def test_a_file_address_is_the_folder_it_names(tmp_path):
    folder = tmp_path / "with space & ü"

    assert parse(folder.as_uri()).path == str(folder)
    assert parse("file://localhost/data") == Address("file", "/data")
    assert parse("file:///data/") == Address("file", "/data")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("S3://bucket//a///b", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("memory://a/b", "memory://a/b"),
        ("abfs://container@account.dfs.core.windows.net/p",) * 2,
    ],
)
def test_an_address_has_one_spelling(url, shown):
    assert parse(url).url == shown


def test_each_protocol_has_its_storage(tmp_path):
    assert type(open_storage(tmp_path)) is LocalStorage
    assert type(open_storage("s3://bucket/p")) is S3Storage
    assert type(open_storage("s3a://bucket/p")) is S3Storage
    assert type(open_storage("memory://p")) is RemoteStorage
    assert open_storage("memory://p").exclusive
    assert not open_storage("github://org:repo@/".replace("org:repo@", "x")).exclusive


def test_opening_touches_nothing(tmp_path):
    open_storage(tmp_path / "store")
    open_storage("s3://no-such-bucket/p", {"endpoint_url": "http://127.0.0.1:9"})

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (b"folder", "expected an address"),
        ("a\0b", "NUL"),
        ("s3://", "names no bucket"),
        ("s3:///", "names no bucket"),
        ("s3:bucket/prefix", "two slashes of an address: write s3://bucket…"),
        ("s3:/bucket/prefix", "two slashes"),
        ("nosuch://bucket/x", "nosuch:// is no protocol"),
        ("simplecache::s3://bucket/x", "two slashes|chained"),
        ("zip://a.zip::s3://bucket/x", "chained"),
        ("s3://bucket/../x", "'..'"),
        ("s3://bucket/x?versionId=3", "before '\\?'"),
        ("file://host/path", "another machine"),
        ("~nobody-of-that-name/x", "no such user"),
    ],
)
def test_what_is_no_address_of_a_store_is_refused(url, says):
    with pytest.raises(ArgumentError, match=says):
        open_storage(url)


def test_a_drive_letter_is_a_path_of_windows():
    for url in ("C:\\data", "c:/data", "C:"):
        with pytest.raises(ArgumentError, match="path of Windows"):
            open_storage(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:hunter2/x@bucket/p",
        "s3://AKIAKEY:hunter2@bucket/p",
        "s3://hunter2@bucket/p",
        "sftp://bob:hunter2@host/p",
        "abfs://container:hunter2@account/p",
        "simplecache::s3://a:hunter2@b/p",
        "zip://x::s3://a:hunter2@b/p",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(url):
    with pytest.raises(ArgumentError) as caught:
        open_storage(url)

    assert "hunter2" not in str(caught.value)
    assert "AKIAKEY" not in str(caught.value)


def test_a_folder_takes_no_options(tmp_path):
    with pytest.raises(ArgumentError, match=r"storage_options \(secret\)") as caught:
        open_storage(tmp_path, {"secret": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "install"),
    [
        ("s3://b/p", "s3fs", r"pip install 'ckptstore\[s3\]'"),
        ("gs://b/p", "gcsfs", "pip install gcsfs"),
        ("az://b/p", "adlfs", "pip install adlfs"),
    ],
)
def test_a_missing_package_is_named_with_the_command_to_install_it(
    monkeypatch, url, module, install
):
    monkeypatch.setitem(sys.modules, module, None)
    protocol = url.partition(":")[0]
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)

    with pytest.raises(MissingPackageError, match=install):
        open_storage(url)


def test_options_show_in_no_repr_or_error():
    storage = open_storage("s3://bucket/p", {"key": "some-key-id", "secret": "hunter2"})

    shown = repr(storage) + repr(vars(storage)) + repr(vars(storage._instances))
    assert "hunter2" not in shown
    assert "some-key-id" not in shown


def test_a_relative_root_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = open_storage("store")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")

    storage.create("x", b"")

    assert (tmp_path / "store" / "x").exists()
