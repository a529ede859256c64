from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from ckptstore.errors import StorageError
from ckptstore.storage import durable, locks
from ckptstore.storage.cache import Cache
from ckptstore.storage.copies import Copies
from ckptstore.storage.locks import try_lock

URL = "s3://bucket/store"
FORK = multiprocessing.get_context("fork")


def copies_in(folder: Path, max_bytes: int = 10**9) -> Copies:
    return Copies(Cache(folder, max_bytes=max_bytes), URL)


@pytest.fixture
def copies(tmp_path) -> Copies:
    return copies_in(tmp_path)


def put(copies: Copies, key: str, data: bytes, beside=(), used_s: float | None = None) -> None:
    with copies.add(key, len(data), beside) as new:
        new.write(memoryview(data))
        new.commit()
    if used_s is not None:
        os.utime(copies.path(key), (used_s, used_s))


def content(copies: Copies, key: str) -> bytes | None:
    fd = copies.open(key)
    if fd is None:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()


def names(copies: Copies) -> list[str]:
    """All that lies beside the copies, but the address."""
    return sorted(path.name for path in copies.path("x").parent.iterdir() if path.name != "%url")


def test_a_copy_is_there_once_it_is_committed(copies):
    assert content(copies, "packs/ab/1") is None
    with copies.add("packs/ab/1", 10) as new:
        new.write(memoryview(b"01234"))
        assert content(copies, "packs/ab/1") is None
        new.write(memoryview(b"56789"))
        new.commit()

    assert content(copies, "packs/ab/1") == b"0123456789"
    assert names(copies) == ["packs%2Fab%2F1"]
    assert copies.path("packs/ab/1").stat().st_mode & 0o777 == 0o600
    assert copies.add("packs/ab/1", 10) is None


def test_a_copy_that_is_given_up_leaves_nothing(copies):
    def begin() -> None:
        with copies.add("packs/1", 10) as new:
            new.write(memoryview(b"01234"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()

    assert names(copies) == []


def test_a_copy_is_durable_before_it_has_its_name(copies, monkeypatch):
    done = []
    sync, replace = durable.sync_file, Path.replace
    monkeypatch.setattr(durable, "sync_file", lambda *a: (done.append("sync"), sync(*a)))
    monkeypatch.setattr(Path, "replace", lambda *a: (done.append("name"), replace(*a)))

    put(copies, "packs/1", b"12345")

    assert done == ["sync", "name"]


@pytest.mark.parametrize("fails", ["open", "ftruncate", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_leaves_no_copy_and_no_temporary(copies, monkeypatch, fails, code):
    put(copies, "packs/0", b"x")

    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    if fails == "open":
        real = os.open
        monkeypatch.setattr(
            os, "open", lambda path, *a: fail() if "%tmp-" in str(path) else real(path, *a)
        )
    else:
        monkeypatch.setattr(os, fails, fail)
    with pytest.raises(OSError, match=r"."):
        put(copies, "packs/1", b"12345")
    monkeypatch.undo()

    assert names(copies) == ["packs%2F0"]
    put(copies, "packs/1", b"12345")  # nobody holds a lock either
    assert content(copies, "packs/1") == b"12345"


def test_stores_do_not_share_names(tmp_path):
    put(Copies(Cache(tmp_path), "s3://one/x"), "packs/1", b"one")

    assert content(Copies(Cache(tmp_path), "s3://two/x"), "packs/1") is None
    assert content(Copies(Cache(tmp_path), "s3://one/x"), "packs/1") == b"one"


def test_a_copy_of_another_size_is_made_anew(copies):
    put(copies, "packs/1", b"12345")
    copies.path("packs/1").write_bytes(b"123")

    assert not copies.has("packs/1", 5)
    put(copies, "packs/1", b"54321")

    assert content(copies, "packs/1") == b"54321"


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    copies = copies_in(tmp_path, max_bytes=10)
    other = Copies(copies.cache, "s3://other/x")
    put(copies, "packs/1", b"1111", used_s=100)
    put(other, "packs/2", b"2222", used_s=50)
    assert copies.has("packs/1", 4)  # used now

    put(copies, "packs/3", b"3333")

    assert [content(copies, f"packs/{n}") for n in (1, 3)] == [b"1111", b"3333"]
    assert content(other, "packs/2") is None


def test_what_is_loaded_together_does_not_make_room_for_each_other(tmp_path):
    copies = copies_in(tmp_path, max_bytes=10)
    beside = ["packs/1", "packs/2", "packs/3"]
    put(copies, "packs/1", b"1111", beside)
    put(copies, "packs/2", b"2222", beside)

    with pytest.raises(StorageError, match=r"packs/3 \(4 bytes\) finds no room .* max_bytes"):
        put(copies, "packs/3", b"3333", beside)

    assert names(copies) == ["packs%2F1", "packs%2F2"]


def test_what_can_never_fit_makes_nothing_go(tmp_path):
    copies = copies_in(tmp_path, max_bytes=10)
    put(copies, "packs/1", b"1111")

    with pytest.raises(StorageError, match=r"packs/2 \(11 bytes\) finds no room"):
        copies.add("packs/2", 11)

    assert content(copies, "packs/1") == b"1111"


def test_copies_being_made_count_with_the_size_they_will_have(tmp_path):
    copies = copies_in(tmp_path, max_bytes=10)
    with copies.add("packs/1", 6):
        with pytest.raises(StorageError, match="finds no room"):
            copies.add("packs/2", 5)
        put(copies, "packs/3", b"3333")


def test_what_windows_keeps_stays_and_another_one_goes(tmp_path, monkeypatch):
    copies = copies_in(tmp_path, max_bytes=10)
    put(copies, "packs/1", b"1111", used_s=1)
    put(copies, "packs/2", b"2222", used_s=2)
    unlink = Path.unlink

    def refuse(path, **options):
        if path == copies.path("packs/1"):
            raise PermissionError(errno.EACCES, "it is mapped")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    put(copies, "packs/3", b"3333")

    assert names(copies) == ["packs%2F1", "packs%2F3"]


@pytest.mark.parametrize("same", [True, False], ids=["the same", "another"])
def test_what_a_killed_process_left_is_removed_by_the_next_copy(copies, same):
    begun = FORK.Event()

    def fetch():
        with copies.add("packs/1", 10) as new:
            new.write(memoryview(b"01234"))
            begun.set()
            threading.Event().wait()

    process = FORK.Process(target=fetch)
    process.start()
    assert begun.wait(60)
    left = names(copies)
    assert len(left) == 2
    put(copies, "packs/0", b"x")
    assert set(left) < set(names(copies))  # it lives
    process.kill()
    process.join()

    put(copies, "packs/1" if same else "packs/2", b"0123456789")

    assert names(copies) == ["packs%2F0", "packs%2F1" if same else "packs%2F2"]


def test_who_wants_what_another_is_copying_waits_for_it(copies, monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.001)
    with copies.add("packs/1", 3) as new:
        waits = threading.Event()
        found = []
        real = copies.has

        def has(*args):
            if waiting.ident == threading.get_ident():
                asked.append(1)
                if len(asked) > 2:
                    waits.set()
            return real(*args)

        asked: list[int] = []
        copies.has = has
        waiting = threading.Thread(target=lambda: found.append(copies.add("packs/1", 3)))
        waiting.start()
        assert waits.wait(60)
        assert not found
        new.write(memoryview(b"123"))
        new.commit()
    waiting.join(60)

    assert found == [None]
    assert content(copies, "packs/1") == b"123"


def test_who_waited_for_one_that_gave_up_copies_itself(copies, monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.001)
    new = copies.add("packs/1", 3)
    found = []
    waiting = threading.Thread(target=lambda: found.append(copies.add("packs/1", 3)))
    waiting.start()
    new.give_up()
    waiting.join(60)

    with found[0] as mine:
        mine.write(memoryview(b"123"))
        mine.commit()
    assert content(copies, "packs/1") == b"123"


def test_a_copy_that_is_dropped_stays_with_who_has_it(copies):
    put(copies, "packs/1", b"12345")
    fd = copies.open("packs/1")

    copies.drop("packs/1")
    copies.drop("packs/1")

    assert content(copies, "packs/1") is None
    assert os.read(fd, 9) == b"12345"
    os.close(fd)


@pytest.mark.parametrize("what", ["link", "mode"])
def test_a_copy_that_cannot_be_trusted_is_not_read_and_made_anew(copies, tmp_path, what):
    put(copies, "packs/1", b"12345")
    path = copies.path("packs/1")
    if what == "link":
        path.unlink()
        (tmp_path / "elsewhere").write_bytes(b"evil!")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.chmod(0o666)

    assert content(copies, "packs/1") is None
    put(copies, "packs/1", b"54321")

    assert content(copies, "packs/1") == b"54321"
    assert path.stat().st_mode & 0o777 == 0o600
    if what == "link":
        assert (tmp_path / "elsewhere").read_bytes() == b"evil!"


@pytest.mark.parametrize("depth", [0, 1])
def test_a_folder_that_others_can_write_to_is_neither_read_nor_written(copies, depth):
    put(copies, "packs/1", b"12345")
    folder = copies.path("packs/1").parents[depth]
    folder.chmod(0o777)

    for verb in (copies.open, lambda key: copies.add(key, 5)):
        with pytest.raises(StorageError, match="others can write to it"):
            verb("packs/1")
        with pytest.raises(StorageError, match="others can write to it"):
            verb("packs/2")
    folder.chmod(0o700)


def test_a_lock_left_without_anything_else_is_removed(copies):
    put(copies, "packs/1", b"1")
    lock = Path(f"{copies.path('packs/9')}%lock")
    lock.write_bytes(b"")

    put(copies, "packs/2", b"2")

    assert not lock.exists()
    again = try_lock(lock)
    assert again is not None
    again.release()
