"""The protocol and those who follow it have the same methods."""

from __future__ import annotations

import inspect

import pytest

from ckptstore.storage.base import Storage, Writer
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.local_writer import LocalWriter
from ckptstore.storage.remote import RemoteStorage
from ckptstore.storage.remote_writer import RemoteWriter
from ckptstore.storage.s3 import S3Storage
from ckptstore.storage.s3_upload import S3Writer


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        (Storage, LocalStorage),
        (Storage, RemoteStorage),
        (Storage, S3Storage),
        (Writer, LocalWriter),
        (Writer, RemoteWriter),
        (Writer, S3Writer),
    ],
)
def test_parameters_have_the_same_names(protocol, kind):
    methods = {
        name: method
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_") or name in {"__enter__", "__exit__"}
    }
    assert methods
    for name, method in methods.items():
        mine = inspect.signature(getattr(kind, name)).parameters
        assert list(mine) == list(inspect.signature(method).parameters), name


def test_attributes_are_there(tmp_path):
    for storage in (LocalStorage(tmp_path), RemoteStorage("memory", "/x", "memory://x")):
        for name in Storage.__annotations__:
            assert hasattr(storage, name)
