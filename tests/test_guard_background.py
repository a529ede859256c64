"""A guard and saves in the background: what is under way when a signal comes counts."""

from __future__ import annotations

import errno
import signal
import threading
from datetime import timedelta

import pytest

from ckptstore import Store
from ckptstore.errors import GuardWarning, StorageError
from tests.holding import Held
from tests.loading.trainings import Training
from tests.test_guard import boundary, exits, handlers  # noqa: F401 - a fixture that is used by itself


@pytest.fixture
def run(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://").run("digits")


@pytest.fixture
def training():
    training = Training()
    training.epoch()
    return training


def pending_when_told(run, training, held, step):
    """A step that saves in the background, and a signal while that is under way."""

    def do(_guard):
        run.save_async(**training.parts(), step=step)
        held.wait()
        signal.raise_signal(signal.SIGTERM)
        threading.Timer(0.05, held.let_go).start()

    return do


@pytest.mark.parametrize(("next_step", "versions"), [(1, [1]), (2, [1, 2])])
def test_a_background_save_is_waited_for_and_one_of_this_step_is_not_made_twice(
    run, training, next_step, versions
):
    held = Held(run._store)

    ends = exits(run, pending_when_told(run, training, held, 1), boundary(training, step=next_step))

    assert ends == 143
    assert [each.step for each in run.history()] == versions


@pytest.mark.parametrize(("asked_since", "versions"), [(False, [1, 2]), (True, [1])])
def test_one_of_an_epoch_counts_only_if_it_was_asked_for_since(
    run, training, asked_since, versions
):
    held = Held(run._store)

    def do(_guard):
        if asked_since:
            signal.raise_signal(signal.SIGTERM)
        run.save_async(**training.parts(), epoch=3)
        held.wait()
        if not asked_since:  # and batches were trained meanwhile
            signal.raise_signal(signal.SIGTERM)
        threading.Timer(0.05, held.let_go).start()

    exits(run, do, boundary(training, epoch=3))

    assert [each.version for each in run.history()] == versions


def test_one_that_failed_is_told_and_what_there_is_now_is_saved(run, training):
    held = Held(run._store, StorageError("the disk is gone"))

    def mended(_guard):
        run._store._pending.wait()
        held.fault = None

    with pytest.warns(GuardWarning, match="the disk is gone"):
        exits(run, pending_when_told(run, training, held, 1), mended, boundary(training, step=2))

    assert [each.step for each in run.history()] == [2]
    run._store.close()


def test_one_that_waits_for_room_makes_way_for_less(run, training, monkeypatch):
    monkeypatch.setattr("ckptstore.saving.on_full.LOOK_S", 0.01)
    full = StorageError(errno.ENOSPC, "no room")
    held = Held(run._store, full)
    monkeypatch.setattr("ckptstore.saving.on_full.warn", lambda *_: setattr(held, "warned", True))

    def made_room(guard):
        settle = guard._settle_pending

        def and_then_there_is_room():
            settle()
            held.fault = None

        guard._settle_pending = and_then_there_is_room

    with pytest.warns(GuardWarning, match="no room"):
        exits(
            run,
            made_room,
            pending_when_told(run, training, held, 1),
            boundary(training, step=1),
            deadline=timedelta(minutes=5),
        )

    assert [each.step for each in run.history()] == [1]
    run._store.close()


def test_what_is_under_way_is_saved_before_a_signal_is_passed_on(run, training):
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append(len(run._store._pending._jobs)))
    held = Held(run._store)

    with run.guard() as guard:
        pending_when_told(run, training, held, 1)(guard)

    assert seen == [0]
    assert run.latest().step == 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
