"""A fork waits for the transactions of other threads, and threads for the fork."""

from __future__ import annotations

import threading

import pytest

from ckptstore.catalog.forking import Gate


@pytest.fixture
def gate():
    return Gate()


def stays_inside(gate):
    """Start a thread that is inside until it is told to leave. Return the thread and the word."""
    entered, leave = threading.Event(), threading.Event()

    def work():
        with gate.inside():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    return thread, leave


def test_threads_are_inside_side_by_side(gate):
    thread, leave = stays_inside(gate)
    with gate.inside(), gate.inside():
        leave.set()
        thread.join()

    gate.shut()
    gate.open()


def test_shutting_waits_for_those_inside(gate):
    thread, leave = stays_inside(gate)
    steps = []

    def fork():
        gate.shut()
        steps.append("forked")
        gate.open()

    forking = threading.Thread(target=fork)
    forking.start()
    steps.append("left")
    leave.set()
    thread.join()
    forking.join()

    assert steps == ["left", "forked"]


def test_nobody_gets_in_while_it_is_shut(gate):
    steps = []

    def enter():
        with gate.inside():
            steps.append("inside")

    gate.shut()
    thread = threading.Thread(target=enter)
    thread.start()
    steps.append("forked")
    gate.open()
    thread.join()

    assert steps == ["forked", "inside"]


def test_who_shuts_it_may_be_inside(gate):
    with gate.inside():
        gate.shut()
        gate.open()

    assert not gate._inside


def test_an_error_inside_is_no_reason_to_stay(gate):
    with pytest.raises(ZeroDivisionError), gate.inside():
        1 / 0  # noqa: B018 - it raises

    gate.shut()
    gate.open()
