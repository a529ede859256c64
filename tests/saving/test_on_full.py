"""What is done where there is no room."""

from __future__ import annotations

import errno
import warnings

import pytest

from ckptstore.errors import ArgumentError, DurabilityError, RoomWarning, StorageError
from ckptstore.saving import on_full
from ckptstore.saving.on_full import (
    ANYWAY_S,
    BESIDE_BYTES,
    COLLECT_S,
    HEED_S,
    LOOK_S,
    WARN_S,
    WhenFull,
    check_on_full,
    impatient,
    is_due,
    may_be_repeated,
)
from ckptstore.storage.local import LocalStorage
from tests.clocks import WaitingClock

GB = 10**9


def no_room(needed_bytes=GB, kind=StorageError, code=errno.ENOSPC):
    error = kind("cannot write x: the disk is full")
    error.errno, error.needed_bytes = code, needed_bytes
    return error


class Disk:
    """A disk with so much room, and a write that needs some of it."""

    def __init__(self, monkeypatch, free=0):
        self.free, self.tries = free, 0
        monkeypatch.setattr(on_full, "free_bytes", lambda _: self.free)

    def write(self):
        self.tries += 1
        if self.free is None or self.free < GB:
            raise no_room()
        return "written"


@pytest.fixture
def clock(monkeypatch):
    return WaitingClock(monkeypatch, "ckptstore.saving.on_full")


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


def test_it_waits_until_there_is_room_and_goes_on(monkeypatch, clock, storage):
    disk = Disk(monkeypatch, free=2000)

    def make_room(passed_s):
        if passed_s >= 33 * LOOK_S:
            disk.free = 2 * GB

    clock.then = make_room

    with pytest.warns(RoomWarning, match="no room for a version") as caught:
        assert WhenFull(storage, "wait").write("a version", disk.write) == "written"

    assert disk.tries == 2
    assert clock.passed_s == 33 * LOOK_S
    said = [str(each.message) for each in caught]
    assert len(said) == 3  # at once, and after one and two minutes
    for part in ("the disk is full", storage.url, "2.0 kB are free", "1.0 GB are needed"):
        assert part in said[0]
    assert "for 2 min" in said[2]


def test_it_raises_where_that_is_the_policy(monkeypatch, clock, storage):
    disk = Disk(monkeypatch)

    with pytest.raises(StorageError, match="the disk is full"):
        WhenFull(storage, "raise").write("a version", disk.write)

    assert disk.tries == 1
    assert clock.passed_s == 0


@pytest.mark.parametrize(
    "error",
    [
        StorageError("the connection broke"),
        no_room(code=errno.EIO),
        no_room(None, DurabilityError),
    ],
)
def test_nothing_else_is_waited_for(clock, storage, error):
    def write():
        raise error

    with pytest.raises(StorageError) as caught:
        WhenFull(storage, "wait").write("a version", write)

    assert caught.value is error
    assert clock.passed_s == 0


def test_where_nobody_can_tell_the_room_it_is_tried_once_a_minute(monkeypatch, clock, storage):
    disk = Disk(monkeypatch, free=None)
    clock.then = lambda passed_s: setattr(disk, "free", GB if passed_s > 2 * WARN_S else None)
    tried = []

    def write():
        tried.append(clock.passed_s)
        return disk.write()

    with pytest.warns(RoomWarning, match="can't be told"):
        WhenFull(storage, "wait").write("a version", write)

    assert tried[:3] == [0, WARN_S, 2 * WARN_S]


def test_ctrl_c_ends_the_waiting(monkeypatch, clock, storage):
    disk = Disk(monkeypatch)

    def interrupt(_):
        raise KeyboardInterrupt

    clock.then = interrupt

    with pytest.warns(RoomWarning), pytest.raises(KeyboardInterrupt):
        WhenFull(storage, "wait").write("a version", disk.write)


def test_nobody_waits_longer_than_the_impatient(monkeypatch, clock, storage):
    disk = Disk(monkeypatch)

    with (
        impatient(lambda: 30 - clock.passed_s),
        pytest.warns(RoomWarning),
        pytest.raises(StorageError, match="the disk is full") as caught,
    ):
        WhenFull(storage, "wait").write("a version", disk.write)

    assert clock.passed_s == 30
    assert caught.value.__notes__ == ["ckptstore: waited 30 s for room, and no longer"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clock.then = lambda _: setattr(disk, "free", 2 * GB)
        assert WhenFull(storage, "wait").write("a version", disk.write) == "written"


def test_nobody_sleeps_longer_than_the_impatient(monkeypatch, clock, storage):
    disk = Disk(monkeypatch)
    left_s = LOOK_S + LOOK_S / 4

    with (
        impatient(lambda: left_s - clock.passed_s),
        pytest.warns(RoomWarning),
        pytest.raises(StorageError, match="the disk is full"),
    ):
        WhenFull(storage, "wait").write("a version", disk.write)

    assert clock.passed_s == left_s


def test_whoever_becomes_impatient_while_it_sleeps_is_heeded(monkeypatch, clock, storage):
    """Python goes on sleeping after a signal."""
    disk, left_s = Disk(monkeypatch), [float("inf")]
    clock.then = lambda _: left_s.__setitem__(0, 0)

    with (
        impatient(lambda: left_s[0]),
        pytest.warns(RoomWarning),
        pytest.raises(StorageError, match="the disk is full"),
    ):
        WhenFull(storage, "wait").write("a version", disk.write)

    assert clock.passed_s == HEED_S


def test_room_is_made_before_it_is_waited_for(monkeypatch, clock, storage):
    disk = Disk(monkeypatch)

    def make_room():
        disk.free = 2 * GB
        return "3 versions were retired"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert WhenFull(storage, "retire", make_room).write("it", disk.write) == "written"

    assert clock.passed_s == 0


def test_room_is_made_once_an_hour_and_the_warning_says_what_was_done(monkeypatch, clock, storage):
    disk, made = Disk(monkeypatch), []

    def make_room():
        made.append(clock.passed_s)
        return "nothing could be retired"

    clock.then = lambda s: setattr(disk, "free", 2 * GB if s > 2.5 * COLLECT_S else 0)

    with pytest.warns(RoomWarning, match="nothing could be retired"):
        WhenFull(storage, "retire", make_room).write("it", disk.write)

    assert made == [0, COLLECT_S, 2 * COLLECT_S]


def test_waiting_alone_retires_nothing(monkeypatch, clock, storage):
    disk = Disk(monkeypatch)
    clock.then = lambda _: setattr(disk, "free", 2 * GB)

    with pytest.warns(RoomWarning):
        WhenFull(storage, "wait", lambda: pytest.fail("retired")).write("it", disk.write)


@pytest.mark.parametrize(
    ("before", "now", "since_s", "due"),
    [
        (0, GB - 1, WARN_S, False),
        (0, GB, WARN_S, False),  # a manifest has to go there, too
        (0, GB + GB // 100 + BESIDE_BYTES, 0, True),
        (0, GB, ANYWAY_S, True),  # a filesystem that compresses takes more than it says
        (2 * GB, 2 * GB, LOOK_S, False),  # a quota that nobody shows
        (2 * GB, 3 * GB, WARN_S, True),
        (None, None, LOOK_S, False),
        (None, None, WARN_S, True),
        (0, None, WARN_S, True),
    ],
)
def test_when_it_is_tried_again(before, now, since_s, due):
    assert is_due(no_room(), before, now, since_s) is due


def test_a_failed_fsync_is_no_reason_to_write_again_unless_nothing_is_left():
    assert may_be_repeated(no_room(None))
    assert may_be_repeated(no_room(7, DurabilityError))
    assert not may_be_repeated(no_room(None, DurabilityError))


def test_what_is_no_policy_is_refused():
    assert check_on_full("retire") == "retire"
    for wrong in ("stop", None, True):
        with pytest.raises(ArgumentError, match="takes 'wait'"):
            check_on_full(wrong)
