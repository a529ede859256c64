"""What is wrong with a version's packs is that version's damage, and names the pack."""

from __future__ import annotations

import errno

import pytest
import torch

from ckptstore import Store
from ckptstore.errors import IntegrityError, StorageError
from ckptstore.manifest import open_manifest
from ckptstore.upkeep.version_bytes import VersionBytes
from tests.faults import Failing
from tests.loading.forging import packs_of


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "here")
    state = {"w": torch.ones(16), "b": torch.ones(3), "e": torch.empty(0), "f": torch.empty(0)}
    store.save(state, run="r", rng=False)
    return store


@pytest.fixture
def pack(store):
    (path,) = packs_of(store.url, "r")
    path.chmod(0o600)
    return path


def bytes_of(store, storage=None):
    return VersionBytes(open_manifest(storage or store._storage, "r", 1))


def test_a_stretch_has_the_name_that_its_pack_gives_it(store):
    found = bytes_of(store)
    assert found.name(0, 4096, 64) == "w"
    assert found.name(0, 4160, 12) == "b"
    assert found.name(0, 4096, 32) is None
    assert {found.name(0, 4096, 0), found.name(0, 4096, 0)} == {"e", "f"}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "should have 4172 bytes, and has"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), "does not begin as"),
    ],
)
def test_a_pack_that_is_not_as_it_was_saved_is_named(store, pack, harm, message):
    harm(pack)
    with pytest.raises(IntegrityError, match=f"r@1, a pack: .*{pack.name} {message}") as error:
        bytes_of(store).name(0, 4096, 64)
    assert error.value.ref == "r@1"


def fault(number):
    error = StorageError("no such luck")
    error.errno = number
    return error


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (EOFError, "is cut short"),
        (FileNotFoundError, "is gone"),
        (lambda: fault(errno.EIO), "can't be read: no such luck"),
    ],
)
def test_what_is_about_one_file_is_damage(store, raised, message):
    storage = Failing(store._storage, 1, fault=raised, only={"read_into"})
    with pytest.raises(IntegrityError, match=f"r@1, tensor 'x': .*/k {message}"):
        bytes_of(store, storage).read("k", 0, 10, "tensor 'x'")


def test_what_is_about_the_storage_is_not(store):
    storage = Failing(store._storage, 1, fault=lambda: fault(errno.EACCES), only={"read_into"})
    with pytest.raises(StorageError, match="no such luck"):
        bytes_of(store, storage).read("k", 0, 10, "tensor 'x'")


def test_bytes_are_read_where_they_are_asked_for(store, pack):
    found = bytes_of(store)
    key = f"packs/{pack.parent.name}/{pack.name}"
    assert bytes(found.read(key, 4096, 8, "w")) == pack.read_bytes()[4096:4104]
    assert bytes(found.read(key, 4096, 0, "w")) == b""
