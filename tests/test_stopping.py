"""What a guard may be told: checked before the training begins."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest

from ckptstore.errors import ArgumentError, GuardWarning
from ckptstore.stopping import (
    check_entering,
    check_step,
    code,
    handler_of,
    known,
    name_of,
    not_passed_on,
    seconds,
)


def test_a_deadline_is_a_time_above_zero_or_none():
    assert seconds(timedelta(minutes=1)) == 60.0
    assert seconds(None) is None
    for wrong in (30, timedelta(0), timedelta(seconds=-1)):
        with pytest.raises(ArgumentError, match="takes a timedelta above 0"):
            seconds(wrong)


@pytest.mark.parametrize("wrong", [-1, 256, True, "0", 1.5])
def test_no_process_ends_with_such_a_code(wrong):
    with pytest.raises(ArgumentError, match="from 0 to 255"):
        code(wrong)


@pytest.mark.parametrize("right", [0, 143, 255])
def test_a_process_ends_with_such_a_code(right):
    assert code(right) == right


def test_signals_are_told_once_each_and_in_order():
    told = [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1]

    assert known(told) == (signal.SIGUSR1, signal.SIGTERM)


@pytest.mark.parametrize("wrong", [[], [signal.SIGKILL], [signal.SIGSTOP], [10_000]])
def test_what_nobody_can_catch_is_refused(wrong):
    with pytest.raises(ArgumentError, match="can't be watched for"):
        known(wrong)


def test_a_handler_that_python_did_not_install_is_refused(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: None)

    with pytest.raises(ArgumentError, match="SIGTERM has a handler that was not installed"):
        handler_of(signal.SIGTERM)


def test_a_signal_has_a_name():
    assert name_of(signal.SIGTERM) == "SIGTERM"
    assert "SIGTERM had come when this was raised" in not_passed_on(signal.SIGTERM)


def test_one_guard_is_entered_at_a_time():
    check_entering("digits", [])

    with pytest.raises(ArgumentError, match="'digits' was entered while that of run 'other' is"):
        check_entering("digits", ["other"])


def test_steps_are_for_guards_that_are_in_place():
    check_step("digits", was_entered=True, still_heeds=True)

    with pytest.raises(ArgumentError, match=r"never entered.*with run.guard\(\) as guard"):
        check_step("digits", was_entered=False, still_heeds=False)
    with pytest.warns(GuardWarning, match="after its block was left"):
        check_step("digits", was_entered=True, still_heeds=False)
