from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench import timing


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_only_what_is_between_two_presses_counts(clock):
    def contender() -> Iterator[None]:
        clock.now += 100  # preparing
        yield
        clock.now += 1  # the call
        yield
        clock.now += 100  # training goes on
        yield
        clock.now += 2  # waiting for what is left
        yield
        clock.now += 100  # cleaning up

    assert timing.timed(contender) == 3


def test_a_stopwatch_that_still_runs_is_an_error():
    def contender() -> Iterator[None]:
        yield

    with pytest.raises(ValueError, match="before its stopwatch was stopped"):
        timing.timed(contender)


def test_work_that_counts_as_a_whole(clock):
    def work():
        clock.now += 5

    assert timing.timed(timing.whole(work)) == 5


def test_each_round_begins_with_another_and_the_first_is_not_counted(clock):
    order = []

    def contender(name):
        def presses() -> Iterator[None]:
            yield
            order.append(name)
            clock.now += 1
            yield

        return presses

    times = timing.interleave({"a": contender("a"), "b": contender("b")}, rounds=2, touched_bytes=0)

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert times == {"a": [1, 1], "b": [1, 1]}
