"""The storage's clock, read off an object that is written for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ckptstore.errors import StorageError
from ckptstore.storage.local import LocalStorage
from ckptstore.storage.opening import open_storage
from ckptstore.upkeep.clock import storage_now
from tests.catalog.places import START, DictStorage
from tests.clocks import Clock, Clocked
from tests.faults import Failing


def test_now_is_the_storages_time_and_nothing_is_left():
    storage = DictStorage()
    storage.now = START + timedelta(days=400)
    assert storage_now(storage) == storage.now
    assert storage.objects == {}


def test_every_storage_tells_it(store_url):
    storage = open_storage(store_url)
    storage.create("runs/before", b"x")
    now = storage_now(storage)
    assert now is not None
    assert storage.written_at("runs/before") <= now
    assert abs(now - datetime.now(UTC)) < timedelta(hours=1)
    assert list(storage.walk("clock")) == []


def test_a_test_can_set_it(tmp_path):
    clock = Clock()
    storage = Clocked(LocalStorage(tmp_path), clock)
    clock.pass_by(timedelta(days=3))
    assert storage_now(storage) == clock.now


def test_a_storage_without_times_tells_none(monkeypatch):
    monkeypatch.setattr(DictStorage, "written_at", lambda *_: None)
    assert storage_now(DictStorage()) is None


def test_what_was_swept_away_meanwhile_tells_none(monkeypatch):
    storage = DictStorage()
    real = DictStorage.written_at

    def swept(self, key):
        self.objects.clear()
        return real(self, key)

    monkeypatch.setattr(DictStorage, "written_at", swept)
    assert storage_now(storage) is None


def test_an_object_that_was_swept_away_once_is_written_again(monkeypatch):
    storage, swept = DictStorage(), []
    real = DictStorage.written_at

    def sweep_once(self, key):
        if not swept:
            swept.append(key)
            self.objects.clear()
        return real(self, key)

    monkeypatch.setattr(DictStorage, "written_at", sweep_once)

    assert storage_now(storage) is not None
    assert not storage.objects


def test_an_attempt_that_landed_unseen_tells_the_time_and_is_removed(monkeypatch):
    """The reply to it was lost on the way, and the next attempt is told that it is there."""
    storage, real = DictStorage(), DictStorage.create

    def create(self, key, data):
        real(self, key, data)
        raise FileExistsError(key)

    monkeypatch.setattr(DictStorage, "create", create)
    assert storage_now(storage) == storage.now
    assert storage.objects == {}


@pytest.mark.parametrize("error", [FileExistsError, StorageError])
def test_where_the_reply_was_lost_the_object_is_asked_for_all_the_same(error):
    inner = DictStorage()
    fault = Failing(inner, at=1, only={"create"}, after=True, fault=lambda: error("412"))
    assert storage_now(fault) == START
    assert inner.objects == {}


def test_what_failed_first_is_what_is_said():
    inner = DictStorage()
    faults = iter([StorageError("no room"), StorageError("the connection broke")])
    broken = {"create", "written_at"}
    with pytest.raises(StorageError, match="no room"):
        storage_now(Failing(inner, at=1, only=broken, always=True, fault=lambda: next(faults)))
    assert inner.objects == {}


@pytest.mark.parametrize("operation", ["create", "written_at"])
def test_a_storage_that_fails_is_no_clock_and_nothing_is_left(operation):
    inner = DictStorage()
    with pytest.raises(StorageError, match="broke"):
        storage_now(Failing(inner, at=1, only={operation}))
    assert inner.objects == {}
