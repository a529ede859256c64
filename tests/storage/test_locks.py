from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from ckptstore.storage import locks
from ckptstore.storage.locks import try_lock, wait_for_lock

SPAWN = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


def test_one_has_a_lock_and_leaves_no_file_behind(path):
    lock = try_lock(path)

    assert lock is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert try_lock(path) is None
    lock.release()
    assert not path.exists()
    again = try_lock(path)
    assert again is not None
    again.release()


def test_a_lock_on_a_name_that_was_removed_meanwhile_is_none(path, monkeypatch):
    held = try_lock(path)
    real, opened = os.open, []

    def late(*args, **options):
        fd = real(*args, **options)
        if not opened:
            held.release()  # between this open and this lock
        opened.append(fd)
        return fd

    monkeypatch.setattr(os, "open", late)
    lock = try_lock(path)
    monkeypatch.undo()

    assert len(opened) == 2
    assert try_lock(path) is None
    lock.release()


def test_a_killed_holder_lets_go(path):
    ready = SPAWN.Event()

    def hold():
        try_lock(path)
        ready.set()
        threading.Event().wait()

    process = SPAWN.Process(target=hold)
    process.start()
    assert ready.wait(60)
    assert try_lock(path) is None

    process.kill()
    process.join()

    lock = try_lock(path)
    assert lock is not None
    lock.release()


def test_a_child_that_was_forked_meanwhile_does_not_keep_it(path):
    lock = try_lock(path)
    go_on = SPAWN.Event()
    process = SPAWN.Process(target=go_on.wait)
    process.start()

    lock.release()

    again = try_lock(path)
    assert again is not None
    again.release()
    go_on.set()
    process.join()


def test_who_waits_gets_the_lock_when_it_is_free(path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.001)
    held = try_lock(path)
    asked = threading.Event()
    got = []

    def done():
        asked.set()
        return False

    thread = threading.Thread(target=lambda: got.append(wait_for_lock(path, done)))
    thread.start()
    assert asked.wait(60)
    assert not got
    held.release()
    thread.join(60)

    assert got[0] is not None
    got[0].release()


def test_nobody_waits_once_the_work_is_done(path):
    held = try_lock(path)

    assert wait_for_lock(path, lambda: True) is None
    held.release()


def test_a_holder_without_a_sign_of_life_is_not_waited_for(path, monkeypatch):
    held = try_lock(path)
    now = [0.0]
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    slept = []

    def sleep(_seconds):
        now[0] += 40
        slept.append(now[0])
        if len(slept) == 2:
            os.utime(path, ns=(1, 1))  # a sign of life: it is waited for as long again

    monkeypatch.setattr(locks.time, "sleep", sleep)

    with pytest.raises(TimeoutError, match="has stopped working"):
        wait_for_lock(path, lambda: False)

    assert len(slept) == 4
    held.release()


def test_a_sign_of_life_is_seen_by_others(path):
    lock = try_lock(path)
    os.utime(path, ns=(1, 1))

    lock.beat()

    assert path.stat().st_mtime_ns > 1
    lock.release()
    lock.beat()  # nothing is there any more: no matter


def test_a_link_is_no_lock_file(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="ymbolic"):
        try_lock(path)
    assert not (tmp_path / "elsewhere").exists()
