"""A training that is told to stop saves at its next step boundary and exits."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
import warnings
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from ckptstore import Keep, Store
from ckptstore import guard as guard_module
from ckptstore.errors import (
    ArgumentError,
    FallbackWarning,
    GuardWarning,
    RoomWarning,
    StateWarning,
    StorageError,
    UnsupportedValueError,
    VersionNotFoundError,
)
from ckptstore.format.journal import RetireEntry
from ckptstore.saving.leaner import ladder
from ckptstore.saving.pace import Pace
from ckptstore.storage.local import LocalStorage
from tests.clocks import WaitingClock
from tests.faults import Failing, store_on
from tests.loading.trainings import Training

SIGNALS = [signal.SIGTERM, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def handlers():
    """Signals do nothing in this process, and each test must leave them as they were."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * 2
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path):
    return Store(tmp_path / "store", catalog="sqlite://").run("digits")


@pytest.fixture
def training():
    training = Training()
    training.epoch()
    return training


def exits(run, *steps, **options):
    """Enter a guard and do some steps, each called with the guard. Return the exit code."""
    try:
        with run.guard(**options) as guard:
            for step in steps:
                step(guard)
    except SystemExit as end:
        return end.code
    return pytest.fail("it went on")


def told(number=signal.SIGTERM):
    """A step in which a signal comes."""
    return lambda _: signal.raise_signal(number)


def boundary(training, **facts):
    """The boundary of a training's step."""
    return lambda guard: guard.step(**training.parts(), **facts)


def test_without_a_signal_a_step_does_nothing(run, training):
    with run.guard() as guard:
        for step in range(3):
            guard.step(**training.parts(), step=step)
        assert not guard.stopping

    assert not training.resume(run)


@pytest.mark.parametrize("number", SIGNALS)
def test_after_a_signal_the_next_step_saves_and_exits(run, training, number):
    stops = boundary(training, epoch=3, step=2, val_loss=0.5, tags=["stopped"])

    assert exits(run, boundary(training, step=1), told(number), stops) == 143

    saved = run.get("@stopped")
    assert (saved.ref, saved.epoch, saved.step) == ("digits@1", 3, 2)
    assert saved.metrics == {"val_loss": 0.5}
    assert training.resume(run).audit.restored


def test_the_exit_code_is_ones_choice(run, training):
    assert exits(run, told(), boundary(training), exit_code=0) == 0


def test_only_the_signals_of_choice_are_watched_for(run):
    with run.guard(signals=[signal.SIGUSR1]):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR1) != signal.SIG_IGN


def test_handlers_that_were_there_are_called_once_all_is_saved(run, training):
    called = []
    signal.signal(signal.SIGTERM, lambda number, _: called.append((number, run.latest().step)))

    def not_yet(_):
        assert called == []

    exits(run, told(), told(), not_yet, boundary(training, step=7))

    assert called == [(signal.SIGTERM, 7)]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_a_signal_that_nobody_acted_on_is_passed_on(run):
    called = []
    signal.signal(signal.SIGTERM, lambda number, _: called.append(number))

    with run.guard():
        signal.raise_signal(signal.SIGTERM)
        assert called == []

    assert called == [signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_whoever_looked_at_stopping_acts_on_it(run):
    called = []
    signal.signal(signal.SIGTERM, lambda number, _: called.append(number))

    with run.guard() as guard:
        signal.raise_signal(signal.SIGTERM)
        assert guard.stopping

    assert called == []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_signals_during_the_guards_own_save_do_not_break_it(tmp_path, training):
    storage = Failing(LocalStorage(tmp_path / "store"))
    run = store_on(storage).run("digits")

    def more(operation, key, work, do=storage.do):
        if operation == "write":
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGUSR1)
        return do(operation, key, work)

    storage.do = more

    assert exits(run, told(), boundary(training, step=1)) == 143
    assert run.latest().step == 1


@pytest.mark.parametrize(("next_step", "versions"), [(1, 1), (2, 2)])
def test_a_save_under_way_when_the_signal_came_counts_for_its_step(
    tmp_path, training, next_step, versions
):
    storage = Failing(LocalStorage(tmp_path / "store"))
    run = store_on(storage).run("digits")

    came = []

    def in_the_middle(operation, key, work, do=storage.do):
        if operation == "write" and not came:
            came.append(True)
            signal.raise_signal(signal.SIGTERM)
        return do(operation, key, work)

    storage.do = in_the_middle

    exits(run, lambda _: training.save(run, step=1), boundary(training, step=next_step))

    assert run.latest().version == versions


def test_a_save_before_the_signal_does_not_count(run, training):
    exits(run, lambda _: training.save(run, step=1), told(), boundary(training, step=1))

    assert run.latest().version == 2


def test_a_save_of_less_does_not_count(run, training):
    exits(run, told(), lambda _: run.save(training.model, step=1), boundary(training, step=1))

    assert run.latest().version == 2
    assert "optimizer" in run.latest().parts


def test_a_save_that_names_no_step_does_not_count(run, training):
    exits(run, told(), lambda _: training.save(run), boundary(training))

    assert run.latest().version == 2


def test_a_guard_entered_again_knows_nothing_of_what_came_before(run, training):
    guard = run.guard()
    with guard:
        signal.raise_signal(signal.SIGTERM)
    with guard:
        guard.step(**training.parts())
        assert not guard.stopping


def fail(_):
    raise ZeroDivisionError


def test_a_signal_is_passed_on_also_where_an_error_leaves_the_block(run):
    called = []
    signal.signal(signal.SIGTERM, lambda number, _: called.append(number))

    with pytest.raises(ZeroDivisionError):
        exits(run, told(), fail)

    assert called == [signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_a_signal_that_would_end_the_process_does_not_hide_an_error(run):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    with pytest.raises(ZeroDivisionError) as caught:
        exits(run, told(), fail)

    assert "SIGTERM had come when this was raised" in caught.value.__notes__[0]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# ------------------------------------------------------------ where it can't be


def test_guards_are_not_nested(run):
    with run.guard(), pytest.raises(ArgumentError, match="while that of run 'digits' is in place"):
        run.guard().__enter__()


def test_a_guard_is_entered_in_the_main_thread_alone(run):
    said = []

    def enter():
        try:
            run.guard().__enter__()
        except ArgumentError as error:
            said.append(str(error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()

    assert "in the main thread" in said[0]


def test_a_handler_that_could_not_be_put_back_is_left_alone(run, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: None)

    with pytest.raises(ArgumentError, match="SIGTERM has a handler that was not installed by"):
        run.guard().__enter__()
    monkeypatch.undo()


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline": 30},
        {"deadline": timedelta(0)},
        {"exit_code": True},
        {"exit_code": 256},
        {"exit_code": "0"},
        {"signals": []},
        {"signals": [signal.SIGKILL]},
        {"signals": ["SIGTERM"]},
    ],
)
def test_what_can_not_be_is_refused_at_once(run, wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        run.guard(**wrong)


def test_a_step_of_a_guard_that_was_never_entered_is_refused(run, training):
    guard = run.guard()

    for _ in range(2):
        with pytest.raises(ArgumentError, match="the guard was never entered"):
            guard.step(**training.parts())


def test_a_step_after_the_block_warns_once(run, training):
    guard = run.guard()
    with guard:
        guard.step(**training.parts())

    with pytest.warns(GuardWarning, match="after its block was left"):
        guard.step(**training.parts())
    guard.step(**training.parts())

    with guard:
        guard.step(**training.parts())


def test_a_step_after_the_block_saves_if_a_signal_came_in_it(run, training):
    with run.guard() as guard:
        guard.step(**training.parts())
        signal.raise_signal(signal.SIGTERM)
        assert guard.stopping

    with pytest.raises(SystemExit):
        guard.step(**training.parts(), step=1)
    assert run.latest().step == 1


def test_a_step_in_a_forked_child_is_none_of_its_business(run, training):
    guard = run.guard()
    with guard:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of torch's
            child = os.fork()
        if not child:  # pragma: no cover - another process
            guard.step(**training.parts())
            os._exit(0)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_child_dies_of_its_signals(run):
    with run.guard():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of torch's
            child = os.fork()
        if not child:  # pragma: no cover - another process
            os._exit(signal.getsignal(signal.SIGTERM) != signal.SIG_IGN)
        _, status = os.waitpid(child, 0)
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN

    assert os.waitstatus_to_exitcode(status) == 0


def test_what_save_would_refuse_is_refused_at_the_first_step(run, training):
    unkeepable(training)(None)

    for wrong, kind in [
        (training.parts(), UnsupportedValueError),
        ({"model": training.model, "optimizer": training.model}, ArgumentError),
        ({"model": training.model, "epochs": 3}, ArgumentError),
        ({"model": training.model, "run": "other"}, ArgumentError),
        ({"model": training.model, "extra": {"args": object()}}, UnsupportedValueError),
        ({"model": training.model, "config": {"lr": object()}}, UnsupportedValueError),
        ({"model": training.model, "metrics": [0.5]}, ArgumentError),
        ({"model": training.model, "step": 1.5}, ArgumentError),
        ({"model": training.model, "tags": "stopped"}, ArgumentError),
        ({"model": training.model, "only": {"modle": "*"}}, ArgumentError),
        ({"epoch": 3}, ArgumentError),
    ]:
        with run.guard() as guard, pytest.raises(kind):
            guard.step(**wrong)


# ------------------------------------------------------------ leaner


@pytest.fixture
def clock(monkeypatch):
    clock = WaitingClock(monkeypatch, "ckptstore.guard")
    monkeypatch.setattr("ckptstore.saving.attempts.time", guard_module.time)
    return clock


def paced(run, seconds):
    """Let the run's saves have taken so many seconds, those of this training."""
    run._store._writer(run.name).pace = Pace([(2_000, seconds)])


def stop(run, training, clock, *, late_s, **options):
    """Be told to stop, and come to the next boundary so late."""

    def pass_by(_):
        clock.passed_s += late_s

    exits(run, told(), pass_by, boundary(training, step=1), **options)


def test_in_time_all_is_saved(run, training, clock):
    paced(run, seconds=1e-3)
    stop(run, training, clock, late_s=20)

    assert run.latest().parts_left_out == ()


def test_near_the_deadline_the_optimizer_is_left_out_and_the_version_says_so(run, training, clock):
    training.save(run, step=0)
    paced(run, seconds=60)

    with pytest.warns(GuardWarning, match=r"10 s left.*but 'optimizer' was saved, as digits@2"):
        stop(run, training, clock, late_s=20)

    lean = run.latest()
    assert (lean.step, lean.parts_left_out) == (1, ("optimizer",))
    assert set(lean.parts) == {"model", "scheduler", "rng"}
    assert lean.metadata["parts_left_out"] == ["optimizer"]


def test_a_time_that_is_over_is_told_as_none_left(run, training, clock):
    paced(run, seconds=60)

    with pytest.warns(GuardWarning, match="with 0 s left"):
        stop(run, training, clock, late_s=30.25)


def test_with_some_time_left_the_optimizer_is_saved_in_bfloat16(run, training, clock):
    whole, narrow, least = (rung.size_bytes for rung in ladder(training.parts()))
    training.save(run, step=0)
    # Two seconds a byte, and the time is over between all of it and some.
    run._store._writer(run.name).pace.estimate_s = lambda size: size
    left_s = (whole + narrow) / 2

    with pytest.warns(GuardWarning, match="with 'optimizer' in bfloat16, was saved, as digits@2"):
        stop(run, training, clock, late_s=10, deadline=timedelta(seconds=10 + left_s))

    saved = run.latest()
    assert (saved.step, saved.parts_left_out) == (1, ())
    average = saved.state("optimizer")["state"][0]["exp_avg"]
    assert average.dtype == torch.bfloat16
    assert training.resume(run).step == 1
    assert training.optimizer.state_dict()["state"][0]["exp_avg"].dtype == torch.float32
    assert least < narrow


def test_without_a_deadline_all_is_saved_however_long_it_takes(run, training, clock):
    paced(run, seconds=1e6)
    stop(run, training, clock, late_s=1e6, deadline=None)

    assert run.latest().parts_left_out == ()


def test_who_has_no_optimizer_saves_all_there_is(run, training):
    paced(run, seconds=60)

    exits(run, told(), lambda guard: guard.step(training.model))

    assert run.latest().parts_left_out == ()


def test_a_whole_version_since_the_signal_is_worth_more_than_a_leaner_one(run, training, clock):
    def save(_):
        clock.passed_s += 1
        training.save(run, step=1)
        paced(run, seconds=60)

    with pytest.warns(GuardWarning, match="nothing more was saved than digits@1"):
        exits(run, told(), save, boundary(training, step=2))

    assert run.latest().ref == "digits@1"


def test_resume_passes_over_what_lacks_a_part_unless_told_otherwise(run, training, clock):
    training.save(run, step=0)
    paced(run, seconds=60)
    with pytest.warns(GuardWarning):
        stop(run, training, clock, late_s=20)

    with pytest.warns(FallbackWarning, match=r"(?s)digits@2: without 'optimizer'.*strict=False"):
        assert training.resume(run).step == 0
    with pytest.warns(StateWarning, match="optimizer"):
        resumed = training.resume(run, strict=False)
    assert resumed.step == 1
    assert "optimizer" in resumed.audit.not_saved
    assert run.resume(training.model).step == 1  # nobody misses what nobody asked for


def test_where_no_version_has_all_parts_resume_says_what_to_do(run, training, clock):
    paced(run, seconds=60)
    with pytest.warns(GuardWarning):
        stop(run, training, clock, late_s=20)

    with pytest.raises(VersionNotFoundError, match=r"(?s)digits@1: without 'optim.*strict=False"):
        training.resume(run)


def test_the_guards_own_save_never_retires_what_resume_goes_on_from(tmp_path, training, clock):
    run = Store(tmp_path / "store", catalog="sqlite://").run("digits", keep=Keep(last=1))
    training.save(run, step=0)
    paced(run, seconds=60)
    with pytest.warns(GuardWarning):
        stop(run, training, clock, late_s=20)

    with pytest.warns(FallbackWarning):
        assert training.resume(run).step == 0


def test_where_a_complete_version_was_retired_resume_says_that_it_may_come_back(
    run, training, clock
):
    training.save(run, step=0)
    paced(run, seconds=60)
    with pytest.warns(GuardWarning):
        stop(run, training, clock, late_s=20)
    run._store._writer("digits").append(
        lambda _, time, writer: RetireEntry({1: "an older ckptstore"}, time, writer)
    )

    with pytest.raises(VersionNotFoundError, match=r"undelete\('digits@1'\) may bring it back"):
        training.resume(run)


# ------------------------------------------------------------ full disks


def no_room():
    error = StorageError("the disk is full")
    error.errno = errno.ENOSPC
    return error


@pytest.mark.parametrize(
    ("times", "said", "left_out"),
    [(1, "with 'optimizer' in bfloat16, was", ()), (2, "but 'optimizer' was", ("optimizer",))],
)
def test_where_there_is_no_room_for_all_there_may_be_for_less(
    tmp_path, training, times, said, left_out
):
    storage = Failing(LocalStorage(tmp_path / "store"))
    run = store_on(storage, on_full="wait").run("digits")
    failed = []

    def full(operation, key, work, do=storage.do):
        second = operation == "open_writer" and "-1." in key  # the optimizer's
        if second and len(failed) < times:
            failed.append(key)
            raise no_room()
        return do(operation, key, work)

    storage.do = full

    with pytest.warns(GuardWarning, match=f"found no room: everything,? {said} saved"):
        exits(run, told(), boundary(training, step=1))

    assert run.latest().parts_left_out == left_out


def unkeepable(training):
    """A step that puts something into the optimizer's state that can't be kept."""

    def spoil(_):
        training.optimizer.param_groups[0]["hook"] = lambda: None

    return spoil


def test_what_can_not_be_saved_of_an_optimizer_does_not_take_the_weights_with_it(run, training):
    steps = [boundary(training), unkeepable(training), told(), boundary(training, step=1)]

    with pytest.warns(GuardWarning, match="everything but 'optimizer' was saved"):
        exits(run, *steps)


def test_without_a_deadline_an_error_is_an_error(run, training):
    steps = [boundary(training), unkeepable(training), told(), boundary(training, step=1)]

    with pytest.raises(UnsupportedValueError, match="optimizer/param_groups/0/hook"):
        exits(run, *steps, deadline=None)


def test_a_save_of_the_trainings_own_that_waits_gives_way_to_a_signal(
    tmp_path, training, monkeypatch
):
    """It waits no longer, less is saved, and the exit code is the chosen one."""
    storage = Failing(LocalStorage(tmp_path / "store"))
    run = store_on(storage, on_full="wait").run("digits")

    def full(operation, key, work, do=storage.do):
        if operation == "open_writer" and "-1." in key:  # the optimizer's, narrowed or not
            raise no_room()
        return do(operation, key, work)

    storage.do = full
    waited = WaitingClock(monkeypatch, "ckptstore.saving.on_full")
    waited.then = lambda passed_s: passed_s == 50 and signal.raise_signal(signal.SIGTERM)

    with pytest.warns(RoomWarning), pytest.warns(GuardWarning, match="but 'optimizer' was saved"):
        assert exits(run, lambda _: training.save(run, step=1), exit_code=75) == 75

    assert waited.passed_s == 50
    assert (run.latest().step, run.latest().parts_left_out) == (1, ("optimizer",))


def test_a_version_whose_record_finds_no_room_is_not_made_again(tmp_path, training, monkeypatch):
    """It is there; only the record that its parent stays is not."""
    run = Store(tmp_path / "store", catalog="sqlite://", on_full="wait").run("digits")
    training.save(run, step=0)
    writer = run._store._writer("digits")

    def full(*_):
        raise no_room()

    monkeypatch.setattr(writer, "make_live", full)
    waited = WaitingClock(monkeypatch, "ckptstore.saving.on_full")
    waited.then = lambda passed_s: passed_s == 50 and signal.raise_signal(signal.SIGTERM)
    save = [lambda _: training.save(run, step=1, parent="digits@1")]

    with pytest.warns(RoomWarning), pytest.warns(GuardWarning, match="digits@2 is saved; only"):
        assert exits(run, *save) == 143

    assert [each.step for each in run.history()] == [0, 1]


@pytest.mark.parametrize("is_saving_already", [True, False])
def test_room_is_waited_for_until_the_deadline(tmp_path, training, monkeypatch, is_saving_already):
    storage = Failing(LocalStorage(tmp_path / "store"), fault=no_room, only={"write"})
    run = store_on(storage, on_full="wait").run("digits")
    storage.at, storage.always = 1, True
    waited = WaitingClock(monkeypatch, "ckptstore.saving.on_full")
    shared = SimpleNamespace(monotonic=lambda: waited.passed_s, sleep=time.sleep)
    monkeypatch.setattr("ckptstore.guard.time", shared)
    steps = [told(), boundary(training, step=1)]
    if is_saving_already:
        waited.then = lambda passed_s: passed_s == 50 and signal.raise_signal(signal.SIGTERM)
        steps = [lambda _: training.save(run, step=1)]

    with pytest.warns(RoomWarning), pytest.raises(StorageError, match="the disk is full"):
        exits(run, *steps, deadline=timedelta(seconds=20))

    assert waited.passed_s == (70 if is_saving_already else 20)
    storage.rest()
    assert not training.resume(run)


def test_a_step_costs_next_to_nothing(run, training):
    """No clock is asked: what is done in a step is one look at a list."""
    with run.guard() as guard:
        guard.step(**training.parts())
        guard._agreed = guard._save_together = lambda *_: pytest.fail("that is more")
        guard.step(**training.parts())
