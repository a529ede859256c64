"""A folder looked through and cleaned up under fault: denied, failing, changing meanwhile."""

from __future__ import annotations

import errno
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ckptstore.errors import ArgumentError, StorageError
from ckptstore.storage import durable
from ckptstore.storage.base import Leftover
from ckptstore.storage.local import LocalStorage

KEYS = ["packs/aa/1", "packs/bb/2", "packs/cc/3"]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    for key in KEYS:
        storage.create(key, b"data")
    return storage


@pytest.fixture
def root(storage: LocalStorage) -> Path:
    return Path(storage.url)


def keys_below(storage: LocalStorage, folder: str = "") -> list[str]:
    return [stored.key for stored in storage.walk(folder)]


def fails_at(monkeypatch, name: str, path: Path, code: int) -> list[Path]:
    """Let ``os.name`` fail for one path. Return the paths it was asked for."""
    real = getattr(os, name)
    asked: list[Path] = []

    def call(first, *args, **kwargs):
        asked.append(Path(first))
        if Path(first) == path:
            raise OSError(code, os.strerror(code), str(path))
        return real(first, *args, **kwargs)

    monkeypatch.setattr(os, name, call)
    return asked


def syncs(monkeypatch, fault: int | None = None) -> list[str]:
    """Note which folders are synced; fail with *fault*."""
    real = os.fsync
    synced: list[str] = []

    def fsync(fd):
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        if fault is not None:
            raise OSError(fault, os.strerror(fault))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


# ---------------------------------------------------------------------------------- walking


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("folder", ["", "packs", "packs/bb"])
def test_a_folder_that_cannot_be_listed_fails_the_walk(storage, root, monkeypatch, code, folder):
    fails_at(monkeypatch, "scandir", root / folder, code)

    with pytest.raises(StorageError, match="cannot list") as caught:
        keys_below(storage)
    assert caught.value.errno == code
    with pytest.raises(StorageError):
        list(storage.leftovers())


def test_a_folder_that_says_it_is_gone_and_is_there_fails_the_walk(storage, root, monkeypatch):
    fails_at(monkeypatch, "scandir", root / "packs" / "bb", errno.ENOENT)

    with pytest.raises(StorageError, match="cannot list"):
        keys_below(storage)


def test_a_folder_whose_reading_breaks_off_fails_the_walk(storage, root, monkeypatch):
    scandir = os.scandir

    class Broken:
        def __init__(self, path):
            self.entries = scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *_exc):
            self.entries.close()

        def __iter__(self):
            yield next(self.entries)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def broken(path):
        return Broken(path) if Path(path) == root / "packs" else scandir(path)

    monkeypatch.setattr(os, "scandir", broken)

    with pytest.raises(StorageError, match="device failed"):
        keys_below(storage)


def test_a_folder_removed_during_a_walk_is_not_there(storage, root):
    walk = storage.walk("")
    assert next(walk).key == "packs/aa/1"
    (root / "packs/bb/2").unlink()
    (root / "packs/bb").rmdir()

    assert [stored.key for stored in walk] == ["packs/cc/3"]


def test_a_file_removed_between_listing_and_looking_is_not_there(storage, root):
    storage.create("packs/aa/0", b"")
    walk = storage.walk("packs/aa")
    assert next(walk).key == "packs/aa/0"
    (root / "packs/aa/1").unlink()

    assert list(walk) == []


def test_a_file_that_cannot_be_looked_at_fails_the_walk(storage, monkeypatch):
    monkeypatch.setattr(
        "ckptstore.storage.local_tree._status",
        lambda entry: (_ for _ in ()).throw(OSError(errno.EIO, "broken", entry.path)),
    )

    with pytest.raises(StorageError, match="cannot look at"):
        keys_below(storage)


def test_a_walk_is_lazy_and_may_be_left(storage, root, monkeypatch):
    asked = fails_at(monkeypatch, "scandir", root / "packs" / "cc", errno.EIO)

    assert next(storage.walk("")).key == "packs/aa/1"
    assert asked == [root, root / "packs", root / "packs" / "aa"]


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    storage = LocalStorage(tmp_path / "file")

    for look in (lambda: storage.walk(""), storage.leftovers):
        with pytest.raises(StorageError, match="is a file"):
            look()


def test_what_lies_behind_a_link_to_a_folder_is_seen(storage, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "4").write_bytes(b"x")
    (root / "packs" / "dd").symlink_to(tmp_path / "elsewhere")

    assert keys_below(storage) == [*KEYS, "packs/dd/4"]


@pytest.mark.parametrize("folder", ["runs", "runs/digits"])
def test_a_link_to_a_folder_that_is_away_fails_the_walk(storage, root, tmp_path, folder):
    (root / "runs").symlink_to(tmp_path / "a disk that is not mounted")

    with pytest.raises(StorageError, match="cannot list"):
        keys_below(storage, folder)
    assert "runs" in keys_below(storage)  # and as an object it is no missing one


def test_links_that_lead_back_fail_the_walk(storage, root):
    (root / "packs" / "again").symlink_to(root / "packs")

    with pytest.raises(StorageError, match="symbolic link leads back"):
        keys_below(storage)


def test_the_time_is_no_mtime_that_a_copying_tool_sets(storage, root):
    os.utime(root / KEYS[0], (0, 0))

    year = timedelta(days=365)
    assert datetime.now(UTC) - storage.written_at(KEYS[0]) < year
    assert all(datetime.now(UTC) - stored.written_at < year for stored in storage.walk(""))


def test_times_are_in_the_order_of_writing(storage):
    time.sleep(0.05)  # a kernel's clock for files ticks every few milliseconds
    storage.create("packs/aa/later", b"")

    assert storage.written_at("packs/aa/later") > storage.written_at("packs/aa/1")


# ---------------------------------------------------------------------------------- leftovers


@pytest.mark.parametrize("folder", ["", "runs/digits/_versions", "packs/aa", "files/f", "clock"])
def test_temporary_files_are_leftovers_wherever_they_are_and_no_objects(storage, root, folder):
    name = durable.temporary_name()
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_bytes(b"torn")

    (leftover,) = storage.leftovers()

    assert leftover.key == f"{folder}/{name}".lstrip("/")
    assert (leftover.upload, leftover.size_bytes) == (None, 4)
    assert datetime.now(UTC) - leftover.written_at < timedelta(minutes=10)
    assert keys_below(storage) == KEYS
    storage.clear(leftover)
    assert list(storage.leftovers()) == []
    storage.clear(leftover)  # gone already


def test_a_leftover_that_cannot_be_removed_says_so(storage, root, monkeypatch):
    path = root / "packs" / durable.temporary_name()
    path.write_bytes(b"")
    (leftover,) = storage.leftovers()
    fails_at(monkeypatch, "unlink", path, errno.EACCES)

    with pytest.raises(StorageError, match="permission denied"):
        storage.clear(leftover)


def test_a_leftover_behind_a_link_is_left(storage, root, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / durable.temporary_name()).write_bytes(b"of another store")
    (root / "packs" / "dd").symlink_to(tmp_path / "other")
    (leftover,) = storage.leftovers()

    with pytest.raises(StorageError, match="symbolic link"):
        storage.clear(leftover)
    assert len(list((tmp_path / "other").iterdir())) == 1


# ---------------------------------------------------------------------------------- deleting


def test_each_folder_is_synced_once_after_its_files_are_gone(storage, monkeypatch):
    storage.create("packs/aa/0", b"")
    steps = syncs(monkeypatch)
    unlink = os.unlink

    def noted(path, *args, **kwargs):
        steps.append("unlink")
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", noted)

    storage.delete(["packs/aa/0", "packs/bb/2", "packs/aa/1"])

    assert steps[:3] == ["unlink"] * 3
    assert sorted(steps[3:]) == ["aa", "bb"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EROFS, errno.EBUSY])
def test_what_cannot_be_deleted_is_named_and_the_rest_is_gone(storage, root, monkeypatch, code):
    fails_at(monkeypatch, "unlink", root / KEYS[1], code)

    failed = storage.delete(KEYS)

    assert list(failed) == [KEYS[1]]
    assert failed[KEYS[1]].errno == code
    assert str(root / KEYS[1]) in str(failed[KEYS[1]])
    assert keys_below(storage) == [KEYS[1]]


def test_a_removal_that_is_not_durable_is_reported_for_its_folder(storage, monkeypatch):
    with monkeypatch.context() as fault:
        synced = syncs(fault, errno.EIO)
        failed = storage.delete([*KEYS, "packs/aa/none"])

    assert sorted(failed) == KEYS
    assert len(synced) == 3  # never tried again
    assert "may come back after a power loss" in str(failed[KEYS[0]])
    assert all(error.errno == errno.EIO for error in failed.values())
    assert storage.delete(KEYS) == {}


def test_a_folder_removed_meanwhile_needs_no_sync(storage, root, monkeypatch):
    unlink = os.unlink

    def and_the_folder(path, *args, **kwargs):
        unlink(path, *args, **kwargs)
        Path(path).parent.rmdir()

    monkeypatch.setattr(os, "unlink", and_the_folder)

    assert storage.delete(["packs/aa/1"]) == {}
    assert not (root / "packs/aa").exists()


def test_a_folder_is_not_deleted(storage):
    failed = storage.delete(["packs"])

    assert list(failed) == ["packs"]
    assert keys_below(storage) == KEYS


def test_a_link_is_removed_and_what_it_leads_to_stays(storage, root, tmp_path):
    (tmp_path / "mine").write_bytes(b"precious")
    (root / "packs/aa/link").symlink_to(tmp_path / "mine")

    assert storage.delete(["packs/aa/link"]) == {}

    assert (tmp_path / "mine").read_bytes() == b"precious"
    assert not (root / "packs/aa/link").is_symlink()


def test_nothing_is_deleted_behind_a_link_as_it_may_be_in_use_under_another_name(storage, root):
    (root / "packs" / "dd").symlink_to(root / "packs" / "aa")

    failed = storage.delete(["packs/dd/1"])

    assert failed["packs/dd/1"].errno == errno.ELOOP
    assert str(root / "packs/dd") in str(failed["packs/dd/1"])
    assert storage.read("packs/aa/1") == b"data"


def test_a_root_that_is_a_link_is_cleaned_as_any_other(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    through = LocalStorage(tmp_path / "link")
    (root / durable.temporary_name()).write_bytes(b"")

    assert through.delete(KEYS) == {}
    for leftover in through.leftovers():
        through.clear(leftover)

    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_an_upload_is_no_leftover_of_a_folder(storage):
    with pytest.raises(ArgumentError, match="nothing that an interrupted write leaves"):
        storage.clear(Leftover(durable.temporary_name(), "upload", None, None))


# ---------------------------------------------------------------------------------- second names


def test_the_second_name_of_an_object_says_so(storage, root):
    """A process was killed between link and unlink. Unlinking would set the object's time anew."""
    second = root / "packs" / "aa" / durable.temporary_name()
    second.hardlink_to(root / "packs" / "aa" / "1")

    (left,) = storage.leftovers()

    assert (left.key, left.twin) == (f"packs/aa/{second.name}", "packs/aa/1")
    storage.clear(left)
    assert not second.exists()
    assert keys_below(storage) == KEYS


def test_an_unfinished_file_that_has_two_names_is_a_leftover(storage, root, tmp_path):
    """Neither another unfinished one nor a name outside of the store makes it an object."""
    names = sorted(durable.temporary_name() for _ in range(2))
    first, second = (root / "packs" / "aa" / name for name in names)
    first.write_bytes(b"half")
    second.hardlink_to(first)
    (tmp_path / "backup").hardlink_to(first)

    left = list(storage.leftovers())
    assert [each.key for each in left] == [f"packs/aa/{name}" for name in names]
    for each in left:
        storage.clear(each)

    assert (first.exists(), second.exists()) == (False, False)
